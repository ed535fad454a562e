""".tflite file, int8 or float32, to graph: what TFLite's converter writes for image and keyword
networks.

Read with the schema of the installed LiteRT, table by table; nothing of the file is trusted:
counts and sizes are bounded before anything is allocated, and whatever does not parse is a
``FileFormatError``. What the graph does not know is an ``UnsupportedOperator`` whose ``where`` is
the operator's index and kind.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeofa.errors import FileFormatError, UnsupportedOperator, UsageError
from edgeofa.graph.importers.nearest import nearest_form
from edgeofa.graph.importers.pieces import channel_ones
from edgeofa.graph.importers.tflite_file import File, Operator
from edgeofa.graph.ir import Activation, Array, DType, Graph, Op, OpKind, Pads, Pair, Tensor
from edgeofa.graph.ops import FUSABLE, output_shape, same_pads, validate

_ACTIVATIONS: dict[int, Activation] = {
    schema.ActivationFunctionType.NONE: "none",
    schema.ActivationFunctionType.RELU: "relu",
    schema.ActivationFunctionType.RELU6: "relu6",
}
#: what the flatbuffers reader raises on a file that lies about its offsets or lengths
_UNREADABLE = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)


def import_tflite(source: Path | bytes, name: str | None = None) -> Graph:
    """The graph of a .tflite file with one input and one output: int8 where its activations are,
    else float32 (with weights as they are stored: float32, float16, or int8 with scales).

    In an int8 file a float32 or uint8 input or output is accepted where a QUANTIZE or DEQUANTIZE
    stands directly at it; the graph then starts and ends with the int8 tensors.

    Args:
        source: the file, or its content.
        name: the graph's name; by default the file's.

    Raises:
        FileFormatError: no .tflite file, or a damaged one.
        UnsupportedOperator: an operator, or a use of it, that the graph does not know.
    """
    place = name or (source.stem if isinstance(source, Path) else "model")
    try:
        file = File(source)
        return _Importer(file, place).graph()
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise FileFormatError(f"a damaged .tflite file ({error})", where=place) from error


class _Importer:
    """Walks the operators in order; tensors of the file become tensors of the graph when used."""

    def __init__(self, file: File, name: str):
        self.file = file
        self.name = name
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        #: number in the file -> number in the graph
        self.values: dict[int, int] = {}
        #: number in the file -> place of the operator that writes it, aliases left out
        self.writers: dict[int, int] = {}
        self.operators = list(file.operators())
        #: how many operators read a tensor of the file, its user included
        self.readers = Counter(n for operator in self.operators for n in operator.inputs)
        self.readers[file.output] += 1
        self.int8 = any(file.dtype(operator.output) == np.int8 for operator in self.operators)
        #: constants that are read through a DEQUANTIZE, by the number that it writes
        self.dequantized: dict[int, int] = {}
        #: pads that a maximum pool takes over from a PADV2 before it, by number in the file
        self.lowest_pads: dict[int, tuple[int, Pads]] = {}

    def graph(self) -> Graph:
        source = self.file.input
        if self.file.dtype(source) == (np.int8 if self.int8 else np.float32):
            self._add_tensor(source)
        for operator in self.operators:
            handler = _HANDLERS.get(operator.kind)
            if handler is None:
                raise self.unsupported(operator, "the graph has no such operator")
            handler(self, operator)
        if self.file.output not in self.values:
            raise UsageError("the output is no tensor of an operator", where=self.name)
        graph = Graph(
            self.name, tuple(self.tensors), tuple(self.ops), 0, self.values[self.file.output]
        )
        return validate(graph)

    def unsupported(self, operator: Operator, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(
            f"operator {operator.index}, {operator.kind}: {why}",
            where=f"{self.name}, {operator.place}",
            hint=nearest_form(operator.kind),
        )

    def is_float(self, number: int) -> bool:
        return self.file.dtype(number) == np.float32

    def _add_tensor(self, number: int, shape: tuple[int, ...] | None = None) -> int:
        tensor = self.file.activation(number)
        self.tensors.append(
            tensor if shape is None else Tensor(tensor.name, shape, tensor.quantization)
        )
        self.values[number] = len(self.tensors) - 1
        return self.values[number]

    def value(self, operator: Operator, position: int = 0) -> int:
        """The graph's number of an input that must be an activation."""
        number = operator.input(position)
        if number in self.lowest_pads:
            raise self.unsupported(operator, "a PADV2 that no maximum pool reads")
        if number == self.file.input and number not in self.values:
            raise self.unsupported(operator, "an input that is not quantised to int8 first")
        if number not in self.values:
            raise self.unsupported(
                operator, f"input {position} is a constant or a tensor of no operator before it"
            )
        return self.values[number]

    def add(self, operator: Operator, kind: OpKind, inputs: tuple[int, ...], **fields: Any) -> None:
        op = Op(kind, operator.place, inputs, len(self.tensors), **fields)
        shape = output_shape(op, tuple(self.tensors[i].shape for i in inputs))
        stored = self.file.shape(operator.output)
        if prod(stored) != prod(shape):
            raise self.unsupported(operator, f"output {stored}, expected {shape}")
        number = self._add_tensor(operator.output, shape)
        if (self.tensors[number].quantization is not None) != self.int8:
            raise self.unsupported(operator, "int8 and float32 activations in one network")
        self.writers[operator.output] = len(self.ops)
        self.ops.append(op)

    def alias(self, operator: Operator) -> None:
        self.values[operator.output] = self.value(operator)

    def activation(self, operator: Operator, options: Any) -> Activation:
        code = options.FusedActivationFunction()
        if code not in _ACTIVATIONS:
            raise self.unsupported(operator, f"fused activation {code}")
        return _ACTIVATIONS[code]

    def window(self, operator: Operator, options: Any, kernel: Pair) -> tuple[Pair, Pads]:
        """Stride and explicit pads."""
        stride = (int(options.StrideH()), int(options.StrideW()))
        if min(stride) < 1 or min(kernel) < 1:
            raise self.unsupported(operator, f"stride {stride}, kernel {kernel}")
        if options.Padding() == schema.Padding.VALID:
            return stride, (0, 0, 0, 0)
        shape = self.tensors[self.value(operator)].shape
        if len(shape) != 4:
            raise self.unsupported(operator, f"an input of shape {shape}")
        return stride, same_pads((shape[1], shape[2]), kernel, stride)

    def weight(self, operator: Operator, rank: int) -> tuple[Array, Array | None]:
        """Weight and scales as stored, or (None for the scales) as float32."""
        number = operator.input(1)
        if self.int8:
            return self.file.weight(number, rank)
        return self.file.real_weight(self.dequantized.get(number, number), rank), None

    def _bias(self, operator: Operator, channels: int) -> Array:
        number = operator.optional_input(2)
        if number is None:
            return np.zeros(channels, np.int32 if self.int8 else np.float32)
        if self.int8:
            return self.file.constant(number, np.int32).reshape(-1)
        return self.file.real_weight(self.dequantized.get(number, number), 1)

    def linear(
        self, operator: Operator, kind: OpKind, weight: Array, scale: Array | None, **fields: Any
    ) -> None:
        """An operator with weights; ``scale`` has one element or one for each output channel, and
        is None in a float32 file."""
        channels = weight.shape[3 if kind == "depthwise_conv2d" else 0]
        if scale is not None and kind != "fully_connected" and len(scale) == 1:
            scale = np.repeat(scale, channels)
        bias = self._bias(operator, channels)
        fields |= {"weight": weight, "bias": bias, "weight_scale": scale}
        self.add(operator, kind, (self.value(operator),), **fields)

    def activate(self, operator: Operator, activation: Activation) -> None:
        """An activation (or another quantisation) by itself: put into the operator before it where
        that changes no number, else a depthwise convolution with ones."""
        source = self.value(operator)
        before, after = self.tensors[source], self.file.activation(operator.output)
        place = self.writers.get(operator.input(0))
        same = before.quantization == after.quantization
        if place is not None and same and self.readers[operator.input(0)] == 1:
            op = self.ops[place]
            if op.activation == "none" and op.kind in FUSABLE:
                self.ops[place] = replace(op, activation=activation)
                self.alias(operator)
                return
        if len(before.shape) != 4:
            raise self.unsupported(operator, "of a flat tensor, after what it cannot be put into")
        ones = channel_ones(before.shape[3], self.precision)
        self.add(operator, "depthwise_conv2d", (source,), activation=activation, **ones)

    @property
    def precision(self) -> DType:
        return "int8" if self.int8 else "float32"

    def paddings(self, operator: Operator) -> Pads:
        rows = self.file.constant(operator.input(1), np.int32).reshape(-1, 2)
        if rows.shape != (4, 2) or rows[[0, 3]].any():
            raise self.unsupported(operator, "only height and width of an image can be padded")
        return int(rows[1, 0]), int(rows[1, 1]), int(rows[2, 0]), int(rows[2, 1])


def _convolution(im: _Importer, operator: Operator) -> None:
    options = operator.options(schema.Conv2DOptions)
    if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
        raise im.unsupported(operator, "dilation")
    weight, scale = im.weight(operator, 4)
    stride, pads = im.window(operator, options, (weight.shape[1], weight.shape[2]))
    activation = im.activation(operator, options)
    im.linear(operator, "conv2d", weight, scale, stride=stride, pads=pads, activation=activation)


def _depthwise(im: _Importer, operator: Operator) -> None:
    options = operator.options(schema.DepthwiseConv2DOptions)
    if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
        raise im.unsupported(operator, "dilation")
    weight, scale = im.weight(operator, 4)
    kind: OpKind = "depthwise_conv2d"
    channels = im.tensors[im.value(operator)].shape[-1]
    if channels == 1 and weight.shape[3] > 1:
        # one channel that every output reads: a convolution by another name
        kind, weight = "conv2d", np.ascontiguousarray(weight.transpose(3, 1, 2, 0))
    elif weight.shape[3] != channels:
        raise im.unsupported(operator, f"{channels} channels in, {weight.shape[3]} out")
    stride, pads = im.window(operator, options, (weight.shape[1], weight.shape[2]))
    activation = im.activation(operator, options)
    im.linear(operator, kind, weight, scale, stride=stride, pads=pads, activation=activation)


def _fully_connected(im: _Importer, operator: Operator) -> None:
    options = operator.options(schema.FullyConnectedOptions)
    if options.WeightsFormat() != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise im.unsupported(operator, "shuffled weights")
    weight, scale = im.weight(operator, 2)
    activation = im.activation(operator, options)
    im.linear(operator, "fully_connected", weight, scale, activation=activation)


def _binary(kind: OpKind, options_type: type) -> Callable[[_Importer, Operator], None]:
    def handle(im: _Importer, operator: Operator) -> None:
        activation = im.activation(operator, operator.options(options_type))
        inputs = (im.value(operator, 0), im.value(operator, 1))
        im.add(operator, kind, inputs, activation=activation)

    return handle


def _pool(kind: OpKind) -> Callable[[_Importer, Operator], None]:
    def handle(im: _Importer, operator: Operator) -> None:
        options = operator.options(schema.Pool2DOptions)
        kernel = (int(options.FilterHeight()), int(options.FilterWidth()))
        activation = im.activation(operator, options)
        padded = im.lowest_pads.get(operator.input(0))
        if padded is None:
            stride, pads = im.window(operator, options, kernel)
            source = im.value(operator)
        else:
            source, pads = padded
            stride = (int(options.StrideH()), int(options.StrideW()))
            if kind != "max_pool2d" or options.Padding() != schema.Padding.VALID:
                raise im.unsupported(operator, "a PADV2 before it")
        fields = {"stride": stride, "pads": pads, "kernel": kernel, "activation": activation}
        im.add(operator, kind, (source,), **fields)

    return handle


def _mean(im: _Importer, operator: Operator) -> None:
    axes = im.file.constant(operator.input(1), np.int32).reshape(-1)
    shape = im.tensors[im.value(operator)].shape
    if len(shape) != 4 or sorted(int(a) % 4 for a in axes) != [1, 2]:
        raise im.unsupported(operator, f"axes {axes.tolist()} of {shape}")
    im.add(operator, "mean", (im.value(operator),))


def _pad(im: _Importer, operator: Operator) -> None:
    im.add(operator, "pad", (im.value(operator),), pads=im.paddings(operator))


def _pad_value(im: _Importer, operator: Operator) -> None:
    value = im.file.constant(operator.input(2), np.int8 if im.int8 else np.float32).reshape(-1)
    lowest = -128 if im.int8 else np.finfo(np.float32).min
    if len(value) != 1 or value[0] > lowest:
        raise im.unsupported(operator, f"a value of {value.tolist()}")
    im.lowest_pads[operator.output] = (im.value(operator), im.paddings(operator))


def _hard_swish(im: _Importer, operator: Operator) -> None:
    im.add(operator, "hard_swish", (im.value(operator),))


def _softmax(im: _Importer, operator: Operator) -> None:
    beta = operator.options(schema.SoftmaxOptions).Beta()
    if beta != 1.0:
        raise im.unsupported(operator, f"beta {beta}")
    im.add(operator, "softmax", (im.value(operator),))


def _reshape(im: _Importer, operator: Operator) -> None:
    """Only what changes no byte's meaning: the graph's dense layer flattens by itself."""
    old, new = im.tensors[im.value(operator)].shape, im.file.shape(operator.output)
    if prod(old) != prod(new) or new[0] != 1:
        raise im.unsupported(operator, f"{old} to {new}")
    channels = [size for size in new if size > 1]
    if new != old and len(channels) > 1:
        raise im.unsupported(operator, f"{old} to {new}, more than flattening")
    im.alias(operator)


def _quantize(im: _Importer, operator: Operator) -> None:
    """At a float32 or uint8 input, at a uint8 output, or between two int8 tensors."""
    source, sink = operator.input(0), operator.output
    if source == im.file.input and not im.tensors:
        if im.is_float(source) or im.file.is_same_in_uint8(source, sink):
            im._add_tensor(sink)
            return
        raise im.unsupported(operator, "an input that is quantised otherwise than what it becomes")
    if sink == im.file.output and im.file.dtype(sink) == np.uint8:
        if not im.file.is_same_in_uint8(sink, source):
            raise im.unsupported(operator, "an output that is quantised otherwise")
        im.alias(operator)
        return
    im.activate(operator, "none")


def _shape(im: _Importer, operator: Operator) -> None:
    """Part of a small program about shapes, which a converter writes where the batch is open. Only
    a RESHAPE may read its result, and that knows its shape without."""
    if im.file.dtype(operator.output) != np.int32:
        raise im.unsupported(operator, "only of shapes")


def _activation(activation: Activation) -> Callable[[_Importer, Operator], None]:
    def handle(im: _Importer, operator: Operator) -> None:
        im.activate(operator, activation)

    return handle


def _dequantize(im: _Importer, operator: Operator) -> None:
    source = operator.input(0)
    if not im.int8 and source not in im.values:
        # a float16 weight, widened
        im.dequantized[operator.output] = source
        return
    if operator.output != im.file.output or not im.is_float(operator.output):
        raise im.unsupported(operator, "only at a float32 output")
    im.alias(operator)


_HANDLERS: dict[str, Callable[[_Importer, Operator], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _binary("add", schema.AddOptions),
    "MUL": _binary("mul", schema.MulOptions),
    "MEAN": _mean,
    "AVERAGE_POOL_2D": _pool("average_pool2d"),
    "MAX_POOL_2D": _pool("max_pool2d"),
    "PAD": _pad,
    "PADV2": _pad_value,
    "RELU": _activation("relu"),
    "RELU6": _activation("relu6"),
    "HARD_SWISH": _hard_swish,
    "SOFTMAX": _softmax,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "SHAPE": _shape,
    "STRIDED_SLICE": _shape,
    "PACK": _shape,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
}
