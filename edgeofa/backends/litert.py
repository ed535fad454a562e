"""LiteRT: the .tflite flatbuffer, written directly from the graph.

No converter and no TensorFlow: a block takes about a millisecond, which is what makes profiling
thousands of blocks practical. The schema is the one of the installed runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeofa.backends.base import Backend, TensorSpec
from edgeofa.backends.padding import padding_of
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.ir import Array, Graph, Op, OpKind, Pads, Quantization, Tensor
from edgeofa.graph.ops import window_size

_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_CODE = schema.BuiltinOperator
_OPTIONS = schema.BuiltinOptions


@dataclass(frozen=True)
class _Builtin:
    """A TFLite operator and the versions of it that float32 and int8 graphs need."""

    code: int
    options_type: int
    options: type
    float_version: int
    int8_version: int


#: the fixed operator versions; a runtime refuses a file that asks for more than it knows
_BUILTINS: dict[OpKind | str, _Builtin] = {
    "conv2d": _Builtin(_CODE.CONV_2D, _OPTIONS.Conv2DOptions, schema.Conv2DOptionsT, 1, 3),
    "depthwise_conv2d": _Builtin(
        _CODE.DEPTHWISE_CONV_2D,
        _OPTIONS.DepthwiseConv2DOptions,
        schema.DepthwiseConv2DOptionsT,
        1,
        3,
    ),
    "fully_connected": _Builtin(
        _CODE.FULLY_CONNECTED, _OPTIONS.FullyConnectedOptions, schema.FullyConnectedOptionsT, 1, 4
    ),
    "add": _Builtin(_CODE.ADD, _OPTIONS.AddOptions, schema.AddOptionsT, 1, 2),
    "mul": _Builtin(_CODE.MUL, _OPTIONS.MulOptions, schema.MulOptionsT, 1, 2),
    "mean": _Builtin(_CODE.MEAN, _OPTIONS.ReducerOptions, schema.ReducerOptionsT, 1, 2),
    "average_pool2d": _Builtin(
        _CODE.AVERAGE_POOL_2D, _OPTIONS.Pool2DOptions, schema.Pool2DOptionsT, 1, 2
    ),
    "max_pool2d": _Builtin(_CODE.MAX_POOL_2D, _OPTIONS.Pool2DOptions, schema.Pool2DOptionsT, 1, 2),
    "pad": _Builtin(_CODE.PAD, _OPTIONS.PadOptions, schema.PadOptionsT, 1, 2),
    "hard_swish": _Builtin(
        _CODE.HARD_SWISH, _OPTIONS.HardSwishOptions, schema.HardSwishOptionsT, 1, 1
    ),
    "softmax": _Builtin(_CODE.SOFTMAX, _OPTIONS.SoftmaxOptions, schema.SoftmaxOptionsT, 1, 2),
    # pads of a maximum must never win: PADV2 carries the smallest value
    "pad_lowest": _Builtin(_CODE.PADV2, _OPTIONS.PadV2Options, schema.PadV2OptionsT, 1, 2),
}
_ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}


class LiteRtBackend(Backend):
    """Writes .tflite files for LiteRT, TFLite and tflite-micro."""

    name = "litert"
    suffix = ".tflite"

    def version(self) -> str:
        return metadata.version("ai-edge-litert")

    def serialize(self, graph: Graph) -> bytes:
        return _Writer(graph).file()

    def specs(self, graph: Graph) -> tuple[TensorSpec, TensorSpec]:
        return _spec(graph.input_tensor), _spec(graph.output_tensor)


def _spec(tensor: Tensor) -> TensorSpec:
    layout = "NHWC" if len(tensor.shape) == 4 else "NC"
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, layout, tensor.quantization)


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A constant on a 16-byte boundary, as the schema asks and microcontrollers need.

    The generated ``BufferT`` forgets the alignment.
    """

    def __init__(self, content: bytes):
        super().__init__()
        self.content = content

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        builder.StartVector(1, len(self.content), 16)
        builder.head = builder.Head() - len(self.content)
        builder.Bytes[builder.Head() : builder.Head() + len(self.content)] = self.content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def pack_model(model: Any) -> bytes:
    """The .tflite file of a model in the schema's object form (``schema.ModelT``)."""
    for place, buffer in enumerate(model.buffers):
        if not isinstance(buffer, _AlignedBuffer) and buffer.data is not None:
            model.buffers[place] = _AlignedBuffer(bytes(buffer.data))
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


class _Writer:
    """One file in the making. Activations keep their numbers; constants follow them."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.int8 = graph.precision == "int8"
        # buffer 0 is the empty one by convention
        self.buffers: list[Any] = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}
        for tensor in graph.tensors:
            self.activation(tensor.name, tensor.shape, tensor.quantization)

    def file(self) -> bytes:
        for op in self.graph.ops:
            self.operator(op)
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = [self.graph.input], [self.graph.output]
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "edgeofa"
        model.subgraphs, model.buffers = [subgraph], self.buffers
        model.operatorCodes = [_operator_code(code, version) for code, version in self.codes]
        return pack_model(model)

    def activation(
        self, name: str, shape: tuple[int, ...], quantization: Quantization | None
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = schema.TensorType.FLOAT32
        if quantization is not None:
            tensor.type = schema.TensorType.INT8
            tensor.quantization = _quantization(
                np.array([quantization.scale]), np.array([quantization.zero_point])
            )
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(
        self, name: str, value: Array, scale: Array | None = None, axis: int = 0, zero: int = 0
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(value.shape), _TYPES[value.dtype]
        little_endian = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<")))
        self.buffers.append(_AlignedBuffer(little_endian.tobytes()))
        tensor.buffer = len(self.buffers) - 1
        if scale is not None:
            tensor.quantization = _quantization(scale, np.full(len(scale), zero), axis)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, op: Op) -> None:
        if op.kind not in _BUILTINS:
            raise UnsupportedOperator(
                f"the litert back end does not know {op.kind!r}", where=op.name
            )
        inputs = list(op.inputs)
        options = _BUILTINS[op.kind].options()
        if op.kind in ("conv2d", "depthwise_conv2d", "average_pool2d", "max_pool2d"):
            inputs[0] = self.sliding_window(op, options)
        if op.kind == "depthwise_conv2d":
            options.depthMultiplier = 1
        if op.kind == "mean":
            options.keepDims = True
            inputs.append(self.constant(f"{op.name}/axes", np.array([1, 2], np.int32)))
        if op.kind == "pad":
            inputs.append(self.paddings(op.name, op.pads))
        if op.kind == "softmax":
            options.beta = 1.0
        if op.weight is not None:
            inputs += self.parameters(op)
        if hasattr(options, "fusedActivationFunction"):
            options.fusedActivationFunction = _ACTIVATIONS[op.activation]
        elif op.activation != "none":
            raise UnsupportedOperator(
                f"{op.kind} cannot be fused with {op.activation}", where=op.name
            )
        self.emit(op.kind, inputs, op.output, options)

    def emit(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        builtin = _BUILTINS[kind]
        key = (builtin.code, builtin.int8_version if self.int8 else builtin.float_version)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = builtin.options_type, options
        self.operators.append(operator)

    def sliding_window(self, op: Op, options: Any) -> int:
        """Set stride and padding; returns the input, which is a padded one where pads demand it."""
        options.strideH, options.strideW = op.stride
        if op.weight is None:
            options.filterHeight, options.filterWidth = window_size(op)
        else:
            options.dilationHFactor = options.dilationWFactor = 1
        padding = padding_of(self.graph, op)
        options.padding = schema.Padding.SAME if padding == "same" else schema.Padding.VALID
        return op.inputs[0] if padding != "explicit" else self.padded_input(op)

    def padded_input(self, op: Op) -> int:
        """An explicit PAD before the operator; XNNPACK folds it into a convolution."""
        if op.kind == "average_pool2d":
            raise UnsupportedOperator(
                f"average_pool2d with pads {op.pads}: only no pads or TensorFlow's SAME, which "
                "leaves the pads out of the mean",
                where=op.name,
            )
        source = self.graph.tensors[op.inputs[0]]
        batch, height, width, channels = source.shape
        top, bottom, left, right = op.pads
        shape = (batch, height + top + bottom, width + left + right, channels)
        inputs = [op.inputs[0], self.paddings(op.name, op.pads)]
        if op.kind == "max_pool2d":
            inputs.append(self.lowest(f"{op.name}/lowest", source.quantization))
        padded = self.activation(f"{op.name}/padded", shape, source.quantization)
        kind = "pad_lowest" if op.kind == "max_pool2d" else "pad"
        self.emit(kind, inputs, padded, _BUILTINS[kind].options())
        return padded

    def paddings(self, name: str, pads: Pads) -> int:
        rows = np.array([(0, 0), pads[:2], pads[2:], (0, 0)], np.int32)
        return self.constant(f"{name}/paddings", rows)

    def lowest(self, name: str, quantization: Quantization | None) -> int:
        if quantization is None:
            return self.constant(name, np.array([np.finfo(np.float32).min], np.float32))
        scale = np.array([quantization.scale])
        return self.constant(name, np.array([-128], np.int8), scale, zero=quantization.zero_point)

    def parameters(self, op: Op) -> list[int]:
        weight, bias = op.linear
        weight_scale = bias_scale = None
        if self.int8:
            source = self.graph.tensors[op.inputs[0]].quantization
            if op.weight_scale is None or source is None or weight.dtype != np.int8:
                raise UnsupportedOperator("an int8 graph with a float operator", where=op.name)
            weight_scale = op.weight_scale
            bias_scale = np.asarray(weight_scale, np.float64) * source.scale
        axis = 3 if op.kind == "depthwise_conv2d" else 0
        return [
            self.constant(f"{op.name}/weight", weight, weight_scale, axis),
            self.constant(f"{op.name}/bias", bias, bias_scale),
        ]


def _quantization(scale: Array, zero_point: Array, axis: int = 0) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.asarray(scale, np.float32)
    quantization.zeroPoint = np.asarray(zero_point, np.int64)
    quantization.quantizedDimension = axis
    return quantization


def _operator_code(code: int, version: int) -> Any:
    entry = schema.OperatorCodeT()
    # readers older than the 128th operator look at the deprecated byte
    entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
    return entry
