"""What each operator kind means: its output shape, its cost, and what a valid graph obeys.

A graph is checked once, where it is made (builder, importer, quantiser); everything after that
trusts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.ir import Array, Graph, Op, OpKind, Pads, Pair, Quantization, Tensor

Shape = tuple[int, ...]

#: TFLite fixes the quantisation of an int8 softmax's output
SOFTMAX_SCALE, SOFTMAX_ZERO_POINT = 1.0 / 256.0, -128


@dataclass(frozen=True)
class OpRule:
    """One operator kind.

    ``macs`` are multiply-accumulates, the field's convention: operators without weights count 0.
    ``keeps_quantization``: int8 output has its input's scale and zero point (TFLite's rule).
    """

    inputs: int
    shape: Callable[[Op, tuple[Shape, ...]], Shape]
    macs: Callable[[Op, Shape], int]
    weighted: bool = False
    keeps_quantization: bool = False


def same_pads(size: Pair, kernel: Pair, stride: Pair) -> Pads:
    """TensorFlow's SAME padding, made explicit: output ceil(size / stride), odd pixel at the end.

    Args:
        size: height and width of the input, in pixels.
    """
    pads: list[int] = []
    for extent, window, step in zip(size, kernel, stride, strict=True):
        total = max((-(-extent // step) - 1) * step + window - extent, 0)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


def symmetric_pads(kernel: Pair) -> Pads:
    """PyTorch's usual padding for an odd kernel: ``kernel // 2`` on every side."""
    vertical, horizontal = kernel[0] // 2, kernel[1] // 2
    return vertical, vertical, horizontal, horizontal


def rounded_up_pad(size: int, kernel: int, stride: int) -> int:
    """Pixels that the last window reaches beyond ``size``, if outputs are rounded up.

    A window that would start outside does not count. Pooling leaves the missing pixels out, in
    torch and ONNX as in the graph.
    """
    count = -(-(size - kernel) // stride) + 1
    if (count - 1) * stride >= size:
        count -= 1
    return max((count - 1) * stride + kernel - size, 0)


def window_size(op: Op) -> Pair:
    """Height and width of the window that a convolution or a pool moves over its input."""
    if op.weight is None:
        return op.kernel
    return int(op.weight.shape[1]), int(op.weight.shape[2])


def _image(op: Op, shape: Shape) -> Shape:
    if len(shape) != 4:
        raise UsageError(f"{op.kind} needs an NHWC input, not {shape}", where=op.name)
    return shape


def _window(op: Op, shape: Shape) -> Pair:
    _, height, width, _ = _image(op, shape)
    top, bottom, left, right = op.pads
    kernel = window_size(op)
    out = tuple(
        (extent - size) // max(step, 1) + 1 if extent >= size else 0
        for extent, size, step in zip(
            (height + top + bottom, width + left + right), kernel, op.stride, strict=True
        )
    )
    if min(kernel) < 1 or min(op.stride) < 1 or min(out) < 1:
        raise UsageError(
            f"a window of {kernel} px does not fit {shape} with pads {op.pads}", where=op.name
        )
    return out[0], out[1]


def _weight(op: Op, rank: int) -> Array:
    if op.weight is None or op.weight.ndim != rank:
        raise UsageError(f"{op.kind} needs a weight of rank {rank}", where=op.name)
    return op.weight


def _conv_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    weight = _weight(op, 4)
    if weight.shape[3] != _image(op, shapes[0])[3]:
        raise UsageError(f"weight {weight.shape} (OHWI) on input {shapes[0]}", where=op.name)
    return (shapes[0][0], *_window(op, shapes[0]), int(weight.shape[0]))


def _depthwise_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    weight = _weight(op, 4)
    expected = (1, *weight.shape[1:3], _image(op, shapes[0])[3])
    if weight.shape != expected:
        raise UsageError(f"weight {weight.shape} (1HWC) on input {shapes[0]}", where=op.name)
    return (shapes[0][0], *_window(op, shapes[0]), int(weight.shape[3]))


def _fully_connected_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    weight = _weight(op, 2)
    if weight.shape[1] != prod(shapes[0][1:]):
        raise UsageError(f"weight {weight.shape} (out, in) on input {shapes[0]}", where=op.name)
    return (shapes[0][0], int(weight.shape[0]))


def _broadcast_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    try:
        out = np.broadcast_shapes(*shapes)
    except ValueError:
        raise UsageError(f"{op.kind} of {shapes[0]} and {shapes[1]}", where=op.name) from None
    if len({len(s) for s in shapes}) > 1:
        raise UsageError(f"{op.kind} of different ranks {shapes}", where=op.name)
    return out


def _pool_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    # a window of padding alone would have no pixel to pool
    height, width = op.kernel
    if max(op.pads[:2]) >= max(height, 1) or max(op.pads[2:]) >= max(width, 1):
        raise UsageError(f"pads {op.pads} of a {op.kernel} px pool", where=op.name)
    return (shapes[0][0], *_window(op, shapes[0]), shapes[0][3])


def _pad_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    n, height, width, channels = _image(op, shapes[0])
    top, bottom, left, right = op.pads
    return (n, height + top + bottom, width + left + right, channels)


def _mean_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    n, _, _, channels = _image(op, shapes[0])
    return (n, 1, 1, channels)


def _unchanged(_op: Op, shapes: tuple[Shape, ...]) -> Shape:
    return shapes[0]


def _no_macs(_op: Op, _output: Shape) -> int:
    return 0


def _conv_macs(op: Op, output: Shape) -> int:
    return prod(output[1:3]) * _weight(op, 4).size


def _dense_macs(op: Op, _output: Shape) -> int:
    return _weight(op, 2).size


RULES: dict[OpKind, OpRule] = {
    "conv2d": OpRule(1, _conv_shape, _conv_macs, weighted=True),
    "depthwise_conv2d": OpRule(1, _depthwise_shape, _conv_macs, weighted=True),
    "fully_connected": OpRule(1, _fully_connected_shape, _dense_macs, weighted=True),
    "add": OpRule(2, _broadcast_shape, _no_macs),
    "mul": OpRule(2, _broadcast_shape, _no_macs),
    "mean": OpRule(1, _mean_shape, _no_macs),
    "average_pool2d": OpRule(1, _pool_shape, _no_macs, keeps_quantization=True),
    "max_pool2d": OpRule(1, _pool_shape, _no_macs, keeps_quantization=True),
    "pad": OpRule(1, _pad_shape, _no_macs, keeps_quantization=True),
    "hard_swish": OpRule(1, _unchanged, _no_macs),
    "softmax": OpRule(1, _unchanged, _no_macs),
}

#: kinds that can carry a fused activation
FUSABLE: frozenset[OpKind] = frozenset(
    {
        "conv2d",
        "depthwise_conv2d",
        "fully_connected",
        "add",
        "mul",
        "average_pool2d",
        "max_pool2d",
    }
)


def output_shape(op: Op, shapes: tuple[Shape, ...]) -> Shape:
    """Shape of the operator's output for these input shapes; ``UsageError`` names the operator."""
    rule = RULES[op.kind]
    if len(shapes) != rule.inputs:
        raise UsageError(f"{op.kind} takes {rule.inputs} inputs, not {len(shapes)}", where=op.name)
    if min(op.pads) < 0:
        raise UsageError(f"negative pads {op.pads}", where=op.name)
    return rule.shape(op, shapes)


def channel_axis(op: Op) -> int:
    """Axis of the weight that holds the output channels, and of its int8 scales."""
    return 3 if op.kind == "depthwise_conv2d" else 0


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one operator."""
    return RULES[op.kind].macs(op, graph.shape(op.output))


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference."""
    return sum(op_macs(graph, op) for op in graph.ops)


def parameters(graph: Graph) -> int:
    """Weights and biases, counted."""
    return sum(a.size for op in graph.ops for a in (op.weight, op.bias) if a is not None)


def validate(graph: Graph) -> Graph:
    """The same graph, or a ``UsageError`` whose ``where`` is the operator at fault.

    Checked: tensor numbers in range, each written once and before it is read, none unread; shapes;
    weights, biases and activations where the kind has them; quantisation on all tensors or on
    none, with the constraints of the TFLite int8 specification.
    """
    count = len(graph.tensors)
    for number in (graph.input, graph.output):
        if not 0 <= number < count:
            raise UsageError(f"no tensor {number}", where=graph.name)
    if len({t.quantization is None for t in graph.tensors}) > 1:
        raise UsageError("float32 and int8 tensors in one graph", where=graph.name)
    written = {graph.input}
    read: set[int] = set()
    for op in graph.ops:
        for number in op.inputs:
            if number not in written:
                raise UsageError(f"input {number} is read before it is written", where=op.name)
        if not 0 <= op.output < count or op.output in written:
            raise UsageError(f"output {op.output} is unknown or written twice", where=op.name)
        read.update(op.inputs)
        written.add(op.output)
        _validate_op(graph, op)
    unread = set(range(count)) - read - {graph.output}
    if unread or graph.output not in written:
        raise UsageError(f"tensors {sorted(unread)} are of no use", where=graph.name)
    return graph


def _validate_op(graph: Graph, op: Op) -> None:
    rule = RULES.get(op.kind)
    if rule is None:
        raise UsageError(f"unknown operator kind {op.kind!r}", where=op.name)
    expected = output_shape(op, tuple(graph.shape(i) for i in op.inputs))
    if graph.shape(op.output) != expected:
        raise UsageError(
            f"output has shape {graph.shape(op.output)}, must be {expected}", where=op.name
        )
    if op.activation != "none" and op.kind not in FUSABLE:
        raise UsageError(f"{op.kind} takes no fused {op.activation}", where=op.name)
    if not rule.weighted:
        if any(a is not None for a in (op.weight, op.bias, op.weight_scale)):
            raise UsageError(f"{op.kind} takes no weight", where=op.name)
    else:
        _validate_weights(graph, op)
    if graph.precision == "int8":
        _validate_quantization(graph, op)


def _validate_weights(graph: Graph, op: Op) -> None:
    weight, bias, scale = op.weight, op.bias, op.weight_scale
    if weight is None or bias is None:
        raise UsageError(f"{op.kind} needs a weight and a bias", where=op.name)
    channels = weight.shape[channel_axis(op)]
    if bias.shape != (channels,):
        raise UsageError(f"bias {bias.shape} for {channels} channels", where=op.name)
    quantized = graph.precision == "int8"
    expected = ("int8", "int32") if quantized else ("float32", "float32")
    if (weight.dtype.name, bias.dtype.name) != expected:
        raise UsageError(
            f"weight {weight.dtype} and bias {bias.dtype} where the graph is {graph.precision}",
            where=op.name,
        )
    if quantized != (scale is not None):
        raise UsageError("weight scales belong to int8 graphs, and only to them", where=op.name)
    if scale is not None:
        per_tensor = op.kind == "fully_connected" and scale.shape == (1,)
        if not (per_tensor or scale.shape == (channels,)) or scale.dtype != np.float32:
            raise UsageError(f"one float32 scale for each of {channels} channels", where=op.name)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise UsageError("weight scales must be positive", where=op.name)
        # -128 would break the symmetric range that kernels rely on
        if int(weight.min(initial=0)) < -127:
            raise UsageError("int8 weights lie in [-127, 127]", where=op.name)
    elif not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UsageError("a weight or a bias is not finite", where=op.name)


def _validate_quantization(graph: Graph, op: Op) -> None:
    tensors: list[Tensor] = [graph.tensors[i] for i in (*op.inputs, op.output)]
    for tensor in tensors:
        q = tensor.quantization
        if q is None or not (np.isfinite(q.scale) and q.scale > 0):
            raise UsageError(f"tensor {tensor.name} has no valid scale", where=op.name)
        if float(np.float32(q.scale)) != q.scale:
            raise UsageError(f"scale of {tensor.name} is not a float32", where=op.name)
        if not -128 <= q.zero_point <= 127:
            raise UsageError(f"zero point {q.zero_point} of {tensor.name}", where=op.name)
    last = tensors[-1].quantization
    if RULES[op.kind].keeps_quantization and last != tensors[0].quantization:
        raise UsageError(f"{op.kind} must keep its input's quantisation", where=op.name)
    if op.kind == "softmax" and last != Quantization(SOFTMAX_SCALE, SOFTMAX_ZERO_POINT):
        raise UsageError("an int8 softmax has scale 1/256, zero point -128", where=op.name)
