"""onnxruntime: the graph as ONNX; int8 as QDQ with int8 input and output.

Inside it is NCHW, as ONNX wants it. So are input and output in float32; in int8 they are NHWC, like
onnxruntime's integer kernels, which then need no transposition: neither a block, when it is
profiled, nor a network pays for changing the layout.

Activations are signed int8, as in the graph. On ARM, onnxruntime's kernels take signed and unsigned
alike; on x86 it keeps some operators with signed activations in float (docs/decisions.md).
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgeofa.backends.base import Backend, TensorSpec
from edgeofa.backends.layout import nchw
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.ir import Array, Graph, Op, Pads, Quantization, Tensor
from edgeofa.graph.ops import window_size

#: old enough for every onnxruntime of the last years; HardSwish needs 14
_OPSET = 17
_IR_VERSION = 8
_PLAIN = {
    "add": "Add",
    "mul": "Mul",
    "mean": "GlobalAveragePool",
    "hard_swish": "HardSwish",
}
_WINDOWED = {
    "conv2d": "Conv",
    "depthwise_conv2d": "Conv",
    "average_pool2d": "AveragePool",
    "max_pool2d": "MaxPool",
}
_NO_PADS: Pads = (0, 0, 0, 0)


class OnnxRuntimeBackend(Backend):
    """Writes .onnx files for onnxruntime."""

    name = "onnxruntime"
    suffix = ".onnx"

    def version(self) -> str:
        return metadata.version("onnxruntime")

    def serialize(self, graph: Graph) -> bytes:
        return _Writer(graph).file()

    def specs(self, graph: Graph) -> tuple[TensorSpec, TensorSpec]:
        return _spec(graph.input_tensor), _spec(graph.output_tensor)


def _spec(tensor: Tensor) -> TensorSpec:
    if len(tensor.shape) == 4 and tensor.dtype == "float32":
        return TensorSpec(tensor.name, nchw(tensor.shape), tensor.dtype, "NCHW")
    layout = "NHWC" if len(tensor.shape) == 4 else "NC"
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, layout, tensor.quantization)


class _Writer:
    """One model in the making.

    The value of tensor ``i`` is called ``t{i}``: float32, or stored int8. Around each operator of
    an int8 graph stand the DequantizeLinear and QuantizeLinear that onnxruntime fuses with it.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.int8 = graph.precision == "int8"
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        #: outputs of pads that their convolutions absorb: the padded tensor and the pads
        self.absorbed: dict[int, tuple[int, Pads]] = {}

    def file(self) -> bytes:
        source = self.graph.input
        if self.channels_last(source):
            self.node("Transpose", ["input"], _value(source), perm=[0, 3, 1, 2])
        for op in self.graph.ops:
            self.operator(op)
        sink = self.graph.output
        if self.channels_last(sink):
            self.node("Transpose", [_value(sink)], "output", perm=[0, 2, 3, 1])
        ends = [self.end(self.graph.input, "input"), self.end(self.graph.output, "output")]
        body = helper.make_graph(self.nodes, "edgeofa", ends[:1], ends[1:], self.constants)
        model = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="edgeofa"
        )
        model.ir_version = _IR_VERSION
        return bytes(model.SerializeToString(deterministic=True))

    def channels_last(self, number: int) -> bool:
        """Whether this input or output is NHWC."""
        return self.int8 and len(self.graph.shape(number)) == 4

    def end(self, number: int, name: str) -> Any:
        """Description of the input or the output."""
        kind = TensorProto.INT8 if self.int8 else TensorProto.FLOAT
        shape = self.graph.shape(number)
        if self.channels_last(number):
            return helper.make_tensor_value_info(name, kind, shape)
        return helper.make_tensor_value_info(_value(number), kind, nchw(shape))

    def operator(self, op: Op) -> None:
        if op.kind == "pad" and self.is_absorbed(op):
            self.absorbed[op.output] = (op.inputs[0], op.pads)
            return
        inputs = [self.real(op, place) for place in range(len(op.inputs))]
        result = f"{op.name}/result" if self.int8 else _value(op.output)
        clip = self.activation_bounds(op)
        unclipped = f"{result}/unclipped" if clip else result
        if op.kind in _PLAIN:
            self.node(_PLAIN[op.kind], inputs, unclipped)
        elif op.kind in _WINDOWED:
            self.windowed(op, inputs, unclipped)
        elif op.kind == "fully_connected":
            self.node("Gemm", [*inputs, *self.parameters(op)], unclipped, transB=1)
        elif op.kind == "softmax":
            self.node("Softmax", inputs, unclipped, axis=1)
        elif op.kind == "pad":
            top, bottom, left, right = op.pads
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            self.node("Pad", [*inputs, self.constant(f"{op.name}/pads", pads)], unclipped)
        else:
            raise UnsupportedOperator(
                f"the onnxruntime back end does not know {op.kind!r}", where=op.name
            )
        if clip:
            bounds = [
                self.constant(f"{op.name}/bound{i}", np.float32(x)) for i, x in enumerate(clip)
            ]
            self.node("Clip", [unclipped, *bounds], result)
        if self.int8:
            self.quantize(result, op.output)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array | np.generic) -> str:
        array = np.asarray(value)
        self.constants.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        return name

    def is_absorbed(self, op: Op) -> bool:
        """Every reader of this pad is a convolution, which can pad by itself."""
        readers = [x for x in self.graph.ops if op.output in x.inputs]
        convolutions = ("conv2d", "depthwise_conv2d")
        return op.output != self.graph.output and all(x.kind in convolutions for x in readers)

    def real(self, op: Op, place: int) -> str:
        """The operator's input as float32, flattened for a dense layer."""
        number = op.inputs[place]
        number, _ = self.absorbed.get(number, (number, _NO_PADS))
        name = _value(number)
        if op.kind == "fully_connected" and len(self.graph.shape(number)) > 2:
            # on the stored value, so that onnxruntime finds dequantisation and Gemm adjacent
            name = self.node("Flatten", [name], f"{op.name}/flat")
        if not self.int8:
            return name
        scale, zero_point = self.quantization(f"{op.name}/in{place}", self.stored_as(number))
        return self.node("DequantizeLinear", [name, scale, zero_point], f"{op.name}/in{place}")

    def quantize(self, result: str, number: int) -> None:
        scale, zero_point = self.quantization(f"{_value(number)}", self.stored_as(number))
        self.node("QuantizeLinear", [result, scale, zero_point], _value(number))

    def quantization(self, name: str, value: Quantization) -> tuple[str, str]:
        return (
            self.constant(f"{name}/scale", np.float32(value.scale)),
            self.constant(f"{name}/zero_point", np.int8(value.zero_point)),
        )

    def stored_as(self, number: int) -> Quantization:
        value = self.graph.tensors[number].quantization
        if value is None:
            raise UnsupportedOperator(
                "an int8 graph with a float tensor", where=self.graph.tensors[number].name
            )
        return value

    def windowed(self, op: Op, inputs: list[str], output: str) -> None:
        _, earlier = self.absorbed.get(op.inputs[0], (0, _NO_PADS))
        top, bottom, left, right = (a + b for a, b in zip(op.pads, earlier, strict=True))
        attributes: dict[str, Any] = {
            "kernel_shape": list(window_size(op)),
            "strides": list(op.stride),
            "pads": [top, left, bottom, right],
        }
        if op.kind == "depthwise_conv2d":
            attributes["group"] = self.graph.shape(op.inputs[0])[3]
        if op.weight is not None:
            inputs = [*inputs, *self.parameters(op)]
        self.node(_WINDOWED[op.kind], inputs, output, **attributes)

    def parameters(self, op: Op) -> list[str]:
        weight, bias = op.linear
        if op.kind == "conv2d":
            weight = weight.transpose(0, 3, 1, 2)
        elif op.kind == "depthwise_conv2d":
            weight = weight.transpose(3, 0, 1, 2)
        elif len(shape := self.graph.shape(op.inputs[0])) == 4:
            # the graph flattens height, width, channels; ONNX channels, height, width
            weight = weight.reshape(-1, *shape[1:]).transpose(0, 3, 1, 2).reshape(weight.shape)
        if not self.int8:
            return [
                self.constant(f"{op.name}/weight", weight),
                self.constant(f"{op.name}/bias", bias),
            ]
        if op.weight_scale is None or weight.dtype != np.int8:
            raise UnsupportedOperator("an int8 graph with a float operator", where=op.name)
        scale = np.broadcast_to(np.asarray(op.weight_scale, np.float32), op.linear[1].shape)
        number, _ = self.absorbed.get(op.inputs[0], (op.inputs[0], _NO_PADS))
        bias_scale = scale * np.float32(self.stored_as(number).scale)
        return [
            self.dequantized(f"{op.name}/weight", weight, scale),
            self.dequantized(f"{op.name}/bias", bias, bias_scale),
        ]

    def dequantized(self, name: str, stored: Array, scale: Array) -> str:
        parts = [
            self.constant(f"{name}/stored", stored),
            self.constant(f"{name}/scale", scale),
            self.constant(f"{name}/zero_point", np.zeros(len(scale), stored.dtype)),
        ]
        return self.node("DequantizeLinear", parts, name, axis=0)

    def activation_bounds(self, op: Op) -> tuple[float, float] | None:
        """What the activation clips to; None when int8's own saturation does it already."""
        if op.activation == "none":
            return None
        upper = 6.0 if op.activation == "relu6" else float(np.finfo(np.float32).max)
        if self.int8:
            stored = self.stored_as(op.output)
            highest = stored.zero_point + np.rint(min(upper, 1e6) / stored.scale)
            if stored.zero_point == -128 and highest >= 127:
                return None
        return 0.0, upper


def _value(number: int) -> str:
    return f"t{number}"
