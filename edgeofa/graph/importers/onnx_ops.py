"""How each ONNX operator is expressed in the graph; one handler per operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeofa.graph.importers.onnx import Handler, Importer
from edgeofa.graph.importers.onnx_constants import CONSTANT_HANDLERS, fold
from edgeofa.graph.importers.onnx_file import Node
from edgeofa.graph.importers.onnx_shapes import SHAPE_HANDLERS
from edgeofa.graph.importers.onnx_values import Const, Operand, Stream
from edgeofa.graph.ir import Activation, Array, Op, OpKind, Pads, Pair, Quantization
from edgeofa.graph.ops import SOFTMAX_SCALE, SOFTMAX_ZERO_POINT, rounded_up_pad, same_pads

_NO_PADS: Pads = (0, 0, 0, 0)
#: a clip to this or more is none
_UNBOUNDED = 1e30
#: a hard sigmoid's slope as int8 weights hold it
_SLOPE_STORED = 127


# ------------------------------------------------------------ quantisation


def _scale_and_zero(im: Importer, node: Node) -> tuple[Array, Array]:
    scale, zero = im.const(node, 1), im.const(node, 2)
    if scale is None or (zero is None and node.optional(2) is not None):
        raise im.unsupported(node, "a scale or zero point that is no constant")
    values = scale.stored.astype(np.float32).reshape(-1)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise im.unsupported(node, "a scale that is not positive")
    return values, np.zeros(1, np.uint8) if zero is None else zero.stored.reshape(-1)


def _quantization(im: Importer, node: Node) -> Quantization:
    """Of an activation, as int8."""
    scale, zero = _scale_and_zero(im, node)
    if scale.size != 1 or zero.size != 1:
        raise im.unsupported(node, "an activation with several scales")
    if zero.dtype.name not in ("int8", "uint8"):
        raise im.unsupported(node, f"activations of type {zero.dtype}; only int8 and uint8")
    shift = 128 if zero.dtype == np.uint8 else 0
    return Quantization(float(scale[0]), int(zero[0]) - shift)


def _quantize(im: Importer, node: Node) -> Operand:
    source = im.values[node.input(0)]
    if isinstance(source, Const):
        return _quantize_constant(im, node, source)
    return im.quantised(node, source, _quantization(im, node))


def _quantize_constant(im: Importer, node: Node, source: Const) -> Const:
    scale, zero = _scale_and_zero(im, node)
    if zero.dtype.kind not in "iu" or scale.size not in (1, *source.stored.shape):
        raise im.unsupported(node, f"{scale.size} scales of a constant {source.stored.shape}")
    shape = [1] * source.stored.ndim
    axis = int(node.attributes.get("axis", 1))
    if scale.size > 1:
        shape[axis] = -1
    limits = np.iinfo(zero.dtype)
    stored = np.rint(source.real / scale.reshape(shape if source.stored.ndim else ()))
    stored = np.clip(stored + int(zero[0]), limits.min, limits.max)
    return Const(stored.astype(zero.dtype))


def _dequantize(im: Importer, node: Node) -> Operand:
    source = im.values[node.input(0)]
    if isinstance(source, Const):
        scale, zero = _scale_and_zero(im, node)
        axis = int(node.attributes.get("axis", 1))
        rank = source.stored.ndim
        if scale.size > 1 and (not -rank <= axis < rank or source.stored.shape[axis] != scale.size):
            raise im.unsupported(node, f"{scale.size} scales of a constant {source.stored.shape}")
        if len(set(zero.tolist())) > 1:
            raise im.unsupported(node, "different zero points of one constant")
        zero_point = int(zero[0]) if node.optional(2) is not None else 0
        return Const(source.stored, scale, zero_point, axis % max(rank, 1))
    q = _quantization(im, node)
    declared = source.declared
    if declared is None and im.comes_stored(source):
        declared = im.stored.setdefault(source.value.tensor, q)
    if declared != q:
        raise im.unsupported(node, f"it reads with {q} what was stored with {declared}")
    return replace(source, declared=None)


# ------------------------------------------------------------ operators with weights


def _square_window(im: Importer, node: Node, size: Pair, image: Pair) -> tuple[Pair, Pads]:
    """Stride and pads of a window of ``size``."""
    if any(int(d) != 1 for d in node.attributes.get("dilations", ())):
        raise im.unsupported(node, "dilation")
    strides = [int(s) for s in node.attributes.get("strides", (1, 1))]
    if len(strides) != 2 or min(strides) < 1 or min(size) < 1:
        raise im.unsupported(node, f"strides {strides} of a window of {size}")
    stride = (strides[0], strides[1])
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        top, bottom, left, right = same_pads(image, size, stride)
        if automatic == "SAME_LOWER":
            return stride, (bottom, top, right, left)
        return stride, (top, bottom, left, right)
    given = [int(p) for p in node.attributes.get("pads", (0, 0, 0, 0))]
    if len(given) != 4 or min(given) < 0:
        raise im.unsupported(node, f"pads {given}")
    if automatic == "VALID":
        return stride, _NO_PADS
    return stride, (given[0], given[2], given[1], given[3])


def _convolution(im: Importer, node: Node) -> Operand:
    source, weight = im.image(node), im.const(node, 1)
    if weight is None or weight.stored.ndim != 4:
        raise im.unsupported(node, "only two-dimensional, with a constant weight")
    cout, per_group, height, width = weight.stored.shape
    _, rows, columns, channels = im.shape(source)
    stride, pads = _square_window(im, node, (height, width), (rows, columns))
    group = int(node.attributes.get("group", 1))
    if per_group * group != channels:
        raise im.unsupported(node, f"a weight {weight.stored.shape} on {channels} channels")
    bias = im.const(node, 2)
    if bias is None and node.optional(2) is not None:
        raise im.unsupported(node, "a bias that is no constant")
    fields = im.parameters(node, source, weight, bias, 0)
    kind: OpKind = "conv2d"
    order = (0, 2, 3, 1)
    if group > 1:
        if per_group != 1 or cout != group:
            raise im.unsupported(node, f"group={group} with {cout} outputs; only 1 or depthwise")
        kind, order = "depthwise_conv2d", (1, 2, 3, 0)
    fields["weight"] = np.ascontiguousarray(fields["weight"].transpose(order))
    if im.int8 and len(fields["weight_scale"]) == 1:
        fields["weight_scale"] = np.repeat(fields["weight_scale"], cout)
    return im.add(node, Op(kind, "", (), 0, stride=stride, pads=pads, **fields), [source])


def _gemm(im: Importer, node: Node) -> Operand:
    attributes = node.attributes
    factors = (float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0)))
    if factors != (1.0, 1.0) or attributes.get("transA", 0):
        raise im.unsupported(node, "alpha, beta or transA")
    bias = im.const(node, 2)
    if bias is None and node.optional(2) is not None:
        raise im.unsupported(node, "a bias that is no constant")
    return _dense(im, node, im.const(node, 1), bias, 0 if attributes.get("transB", 0) else 1)


def _matmul(im: Importer, node: Node) -> Operand:
    return _dense(im, node, im.const(node, 1), None, 1)


def _dense(
    im: Importer, node: Node, weight: Const | None, bias: Const | None, axis: int
) -> Operand:
    source = im.real(node)
    if weight is None or weight.stored.ndim != 2 or source.order not in ("flat", "flat NCHW"):
        raise im.unsupported(node, "only of a flat tensor, with a constant weight")
    fields = im.parameters(node, source, weight, bias, axis)
    if axis == 1:
        fields["weight"] = fields["weight"].T
    shape = im.shape(source)
    if source.order == "flat NCHW":
        # the file flattens channel by channel, the graph pixel by pixel
        _, height, width, channels = shape
        by_channel = fields["weight"].reshape(-1, channels, height, width)
        fields["weight"] = by_channel.transpose(0, 2, 3, 1).reshape(len(by_channel), -1)
    fields["weight"] = np.ascontiguousarray(fields["weight"])
    return im.add(node, Op("fully_connected", "", (), 0, **fields), [source], "flat")


def _batch_norm(im: Importer, node: Node) -> Operand:
    constants = [im.const(node, position) for position in range(1, 5)]
    if any(c is None for c in constants):
        raise im.unsupported(node, "statistics that are no constants")
    gamma, beta, mean, variance = (c.real.reshape(-1) for c in constants if c is not None)
    scale = gamma / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    return im.affine(node, im.real(node), scale, beta - mean * scale)


# ------------------------------------------------------------ activations


def _relu(im: Importer, node: Node) -> Operand:
    return _activation(im, node, "relu")


def _activation(im: Importer, node: Node, activation: Activation) -> Stream:
    source = im.stream(node)
    if source.declared is not None or source.limits is not None:
        raise im.unsupported(node, "it computes on stored or clipped numbers")
    return im.activate(node, source, activation)


def _clip(im: Importer, node: Node) -> Operand:
    low, high = im.numbers(node, 1, "min"), im.numbers(node, 2, "max")
    bounds = (low[0] if low else -np.inf, high[0] if high else np.inf)
    if bounds[0] == 0 and bounds[1] >= _UNBOUNDED:
        return _activation(im, node, "relu")
    if bounds == (0, 6):
        return _activation(im, node, "relu6")
    if not im.int8:
        raise im.unsupported(node, f"bounds {bounds}; only 0 and 6, or 0 and none")
    source = im.stream(node)
    if source.declared is not None or source.limits is not None:
        raise im.unsupported(node, "it computes on stored or clipped numbers")
    if not source.exclusive:
        # others read what is not clipped
        source = im.requantised(node, source)
    return replace(source, limits=bounds)


def _hard_swish(im: Importer, node: Node) -> Operand:
    return im.add(node, Op("hard_swish", "", (), 0), [im.real(node)])


def _hard_sigmoid(im: Importer, node: Node) -> Operand:
    slope = float(node.attributes.get("alpha", 0.2))
    if abs(slope - 1 / 6) > 1e-6 or float(node.attributes.get("beta", 0.5)) != 0.5:
        raise im.unsupported(node, "only with alpha 1/6 and beta 1/2")
    source = im.image(node)
    if not im.int8:
        return Stream(im.builder.gate(source.value, node.place), source.order)
    # 0 and 1 are where the result saturates: x / 6 + 1/2, rounded by a depthwise convolution
    channels = im.shape(source)[3]
    scale = np.float32(1 / 6 / _SLOPE_STORED)
    bias = np.rint(0.5 / (im.stored[source.value.tensor].scale * np.float64(scale)))
    op = Op(
        "depthwise_conv2d",
        "",
        (),
        0,
        weight=np.full((1, 1, 1, channels), _SLOPE_STORED, np.int8),
        bias=np.full(channels, bias, np.int32),
        weight_scale=np.full(channels, scale, np.float32),
    )
    return replace(im.add(node, op, [source]), limits=(0.0, 1.0))


def _softmax(im: Importer, node: Node) -> Operand:
    source = im.real(node)
    shape, logical = im.shape(source), im.logical_shape(source)
    axis = int(node.attributes.get("axis", 1 if im.file.opset < 13 else -1)) % len(logical)
    if logical[axis] != shape[-1] or source.order == "flat NCHW":
        raise im.unsupported(node, f"over axis {axis} of {logical}; only over the channels")
    found = im.add(node, Op("softmax", "", (), 0), [source])
    if im.int8:
        im.stored[found.value.tensor] = Quantization(SOFTMAX_SCALE, SOFTMAX_ZERO_POINT)
    return found


# ------------------------------------------------------------ arithmetic


def _binary(im: Importer, node: Node) -> Operand:
    left, right = im.values[node.input(0)], im.values[node.input(1)]
    if isinstance(left, Const) and isinstance(right, Const):
        return fold(im, node)
    kind = node.kind
    if isinstance(left, Const) or isinstance(right, Const):
        constant, place = (left, 1) if isinstance(left, Const) else (right, 0)
        if kind in ("Sub", "Div") and place == 1:
            raise im.unsupported(node, "a constant minus or over an activation")
        return _with_constant(im, node, im.stream(node, place), constant)
    if kind in ("Sub", "Div"):
        raise im.unsupported(node, "of two activations")
    sources = [im.real(node, 0), im.real(node, 1)]
    if len({s.order for s in sources}) > 1 or len({len(im.shape(s)) for s in sources}) > 1:
        raise im.unsupported(node, "operands of different ranks or orders")
    return im.add(node, Op("mul" if kind == "Mul" else "add", "", (), 0), sources)


def _with_constant(im: Importer, node: Node, source: Stream, operand: Operand) -> Operand:
    assert isinstance(operand, Const)  # noqa: S101  (the caller found it to be one)
    values = operand.real
    logical = im.logical_shape(source)
    channels = {"NCHW": -3, "NHWC": -1}.get(source.order, -1)
    axis = values.ndim + channels
    per_channel = axis >= 0 and values.size == values.shape[axis] == logical[channels]
    if values.size != 1 and (not per_channel or source.order == "flat NCHW"):
        raise im.unsupported(node, f"a constant of shape {values.shape}")
    values = values.reshape(-1)
    if im.int8 and (source.declared is not None or source.limits is not None):
        raise im.unsupported(node, "it computes on stored or clipped numbers")
    if node.kind in ("Add", "Sub"):
        return im.affine(node, source, 1.0, values if node.kind == "Add" else -values)
    factor = values if node.kind == "Mul" else 1 / values
    if not im.int8 and factor.size == 1 and float(factor[0]) > 0:
        gain = source.value.gain / float(factor[0])
        return replace(source, value=replace(source.value, gain=gain))
    return im.affine(node, source, factor, 0.0)


# ------------------------------------------------------------ windows


def _mean(im: Importer, node: Node) -> Operand:
    axes = im.numbers(node, 1, "axes")
    source = im.real(node)
    order: tuple[int, ...] = (1, 2) if source.order == "NHWC" else (2, 3)
    if axes is None or len(im.logical_shape(source)) != 4:
        raise im.unsupported(node, "only over height and width of an image")
    if tuple(sorted(int(a) % 4 for a in axes)) != order:
        raise im.unsupported(node, f"axes {axes}; only height and width")
    found = im.add(node, Op("mean", "", (), 0), [source])
    return found if node.attributes.get("keepdims", 1) else replace(found, order="flat")


def _global_average(im: Importer, node: Node) -> Operand:
    return im.add(node, Op("mean", "", (), 0), [im.image(node)])


def _global_max(im: Importer, node: Node) -> Operand:
    source = im.image(node)
    size = im.shape(source)[1:3]
    window = (size[0], size[1])
    return im.add(node, Op("max_pool2d", "", (), 0, stride=window, kernel=window), [source])


def _pool(im: Importer, node: Node) -> Operand:
    source = im.image(node)
    _, rows, columns, _ = im.shape(source)
    kernel = [int(k) for k in node.attributes.get("kernel_shape", ())]
    if len(kernel) != 2 or node.attributes.get("storage_order", 0):
        raise im.unsupported(node, f"a window of {kernel}")
    size = (kernel[0], kernel[1])
    stride, pads = _square_window(im, node, size, (rows, columns))
    maximum = node.kind == "MaxPool"
    if node.attributes.get("ceil_mode", 0):
        if any(pads):
            raise im.unsupported(node, "padding and rounding up together")
        pads = (0, rounded_up_pad(rows, size[0], stride[0]), 0, 0)
        pads = (0, pads[1], 0, rounded_up_pad(columns, size[1], stride[1]))
    elif any(pads) and not maximum and node.attributes.get("count_include_pad", 0):
        # the graph's average leaves padding out, so it has to become real zeros
        source = im.add(node, Op("pad", "", (), 0, pads=pads), [source])
        pads = _NO_PADS
    whole = not maximum and size == (rows, columns) and not any(pads)
    if whole and _changes_quantization(im, node, source):
        # a pool keeps its input's quantisation, a mean need not
        return im.add(node, Op("mean", "", (), 0), [source])
    kind: OpKind = "max_pool2d" if maximum else "average_pool2d"
    return im.add(node, Op(kind, "", (), 0, stride=stride, pads=pads, kernel=size), [source])


def _changes_quantization(im: Importer, node: Node, source: Stream) -> bool:
    """Whether the node's result is stored otherwise than its input is."""
    if not im.int8:
        return False
    readers = [n for n in im.nodes if node.output in n.inputs]
    return any(
        n.kind == "QuantizeLinear" and _quantization(im, n) != im.stored[source.value.tensor]
        for n in readers
    )


def _pad(im: Importer, node: Node) -> Operand:
    amounts, value = im.numbers(node, 1, "pads"), im.numbers(node, 2, "value")
    source = im.image(node)
    if node.attributes.get("mode", "constant") != "constant" or (value and value[0] != 0):
        raise im.unsupported(node, "only zeros")
    if node.optional(3) is not None or amounts is None or len(amounts) != 8:
        raise im.unsupported(node, "only of whole images")
    before, after = [int(a) for a in amounts[:4]], [int(a) for a in amounts[4:]]
    if any(before[:2] + after[:2]) or min(before + after) < 0:
        raise im.unsupported(node, f"pads {before + after}; only height and width")
    pads = (before[2], after[2], before[3], after[3])
    return im.add(node, Op("pad", "", (), 0, pads=pads), [source])


HANDLERS: Mapping[str, Handler] = {
    **CONSTANT_HANDLERS,
    **SHAPE_HANDLERS,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Relu": _relu,
    "Clip": _clip,
    "HardSwish": _hard_swish,
    "HardSigmoid": _hard_sigmoid,
    "Softmax": _softmax,
    "Add": _binary,
    "Sub": _binary,
    "Mul": _binary,
    "Div": _binary,
    "ReduceMean": _mean,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Pad": _pad,
}
