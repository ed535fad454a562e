"""How each aten operator is expressed in the graph; one handler per operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import fx

from edgeofa.graph.gains import Value
from edgeofa.graph.importers.arguments import Arguments, is_scalar, pair, place_of, square
from edgeofa.graph.importers.translator import NO_PADS, Handler, Translator
from edgeofa.graph.ir import Array, Op, OpKind, Pads
from edgeofa.graph.ops import rounded_up_pad


def _convolution(im: Translator, node: fx.Node, a: Arguments) -> Value:
    weight = im.constant(a.get("weight"))
    if weight is None:
        raise im.unsupported(node, "the weight is not a parameter")
    stride, groups = square(a.get("stride", 1)), int(a.get("groups", 1))
    cout, per_group, kernel, other = weight.shape
    if stride is None or kernel != other or square(a.get("dilation", 1)) != 1:
        raise im.unsupported(node, "only square kernels and strides without dilation")
    padding = a.get("padding", 0)
    if padding == "same":
        before, after = (kernel - 1) // 2, kernel // 2
        own: Pads = (before, after, before, after)
    elif padding == "valid":
        own = NO_PADS
    else:
        vertical, horizontal = pair(padding)
        own = (vertical, vertical, horizontal, horizontal)
    source, pads = im.padded(a.node("input"), own)
    op = Op("conv2d", "", (), 0, stride=(stride, stride), pads=pads)
    bias = im.constant(a.get("bias"))
    if groups == 1:
        return im.linear(node, op, source, weight.transpose(0, 2, 3, 1), bias, 0)
    if per_group != 1 or cout != groups:
        raise im.unsupported(node, f"groups={groups} with {cout} outputs; only 1 or depthwise")
    op = replace(op, kind="depthwise_conv2d")
    return im.linear(node, op, source, weight.transpose(1, 2, 3, 0), bias, 3)


def _linear(im: Translator, node: fx.Node, a: Arguments) -> Value:
    weight, bias = im.constant(a.get("weight")), im.constant(a.get("bias"))
    source = a.node("input")
    shape = im.builder.shape(im.value(source))
    if weight is None or a.rank("input") != 2:
        raise im.unsupported(node, "only on flattened images, with parameters as weight")
    if _returns_to_image(node):
        if len(shape) != 4 or shape[1:3] != (1, 1):
            raise im.unsupported(node, "a dense layer whose output is an image again")
        weight = weight[:, np.newaxis, np.newaxis]
        return im.linear(node, Op("conv2d", "", (), 0), im.values[source], weight, bias, 0)
    if len(shape) == 4:
        # torch flattens channel by channel, the graph pixel by pixel
        _, height, width, channels = shape
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        weight = weight.reshape(len(weight), -1)
    return im.linear(node, Op("fully_connected", "", (), 0), im.values[source], weight, bias, 0)


def _returns_to_image(node: fx.Node) -> bool:
    """Whether a flat value is made an image (N, C, 1, 1) again, as squeeze-excite does."""
    return any(
        len(user.meta["val"].shape) == 4 or _returns_to_image(user)
        for user in node.users
        if user.op == "call_function"
    )


def _batch_norm(im: Translator, node: fx.Node, a: Arguments) -> Value:
    mean, variance = im.constant(a.get("running_mean")), im.constant(a.get("running_var"))
    if mean is None or variance is None or a.get("training", False):
        raise im.unsupported(node, "a batch norm without running statistics")
    gamma, beta = im.constant(a.get("weight")), im.constant(a.get("bias"))
    scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + float(a.get("eps", 1e-5)))
    offset = (0.0 if beta is None else beta) - mean * scale
    return im.affine(node, a.node("input"), scale, offset)


def _relu(im: Translator, node: fx.Node, a: Arguments) -> Value:
    return im.activate(node, a.node("self"), "relu")


def _hardtanh(im: Translator, node: fx.Node, a: Arguments) -> Value:
    if (a.get("min_val", -1), a.get("max_val", 1)) != (0, 6):
        raise im.unsupported(node, "only hardtanh(0, 6)")
    return im.activate(node, a.node("self"), "relu6")


def _relu6(im: Translator, node: fx.Node, a: Arguments) -> Value:
    return im.activate(node, a.node("self"), "relu6")


def _hardswish(im: Translator, node: fx.Node, a: Arguments) -> Value:
    op = Op("hard_swish", place_of(node, im.name), (), 0)
    return im.builder.add_op(op, [im.value(a.node("self"))])


def _hardsigmoid(im: Translator, node: fx.Node, a: Arguments) -> Value:
    return im.hard_sigmoid(node, a.node("self"))


def _channels(im: Translator, node: fx.Node, operand: object) -> Array | None:
    """A scalar or a per-channel constant as an array that broadcasts over channels."""
    if is_scalar(operand):
        return np.array([float(operand)])  # type: ignore[arg-type]
    constant = im.constant(operand)
    if constant is None:
        return None
    rank = len(node.meta["val"].shape)
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if len(shape) != rank or constant.size != shape[1]:
        raise im.unsupported(node, f"a constant of shape {constant.shape}")
    return constant.reshape(-1)


def _binary(im: Translator, node: fx.Node, a: Arguments) -> Value:
    if float(a.get("alpha", 1)) != 1.0:
        raise im.unsupported(node, "alpha other than 1")
    left, right = a.get("self"), a.get("other")
    if im.constant(left) is not None:
        left, right = right, left
    constant = _channels(im, node, right)
    multiply, divide = a.name in ("mul", "div"), a.name == "div"
    if constant is None:
        if divide:
            raise im.unsupported(node, "only by a constant")
        if a.rank("self") != a.rank("other"):
            raise im.unsupported(node, "operands of different ranks")
        op = Op("mul" if multiply else "add", place_of(node, im.name), (), 0)
        return im.builder.add_op(op, [im.value(left), im.value(right)])
    if not multiply:
        return im.affine(node, left, np.ones(1), constant)
    factor = 1 / constant if divide else constant
    if factor.size == 1 and float(factor[0]) > 0:
        value = im.value(left)
        return replace(value, gain=value.gain / float(factor[0]))
    return im.affine(node, left, factor, np.zeros(1))


def _pad(im: Translator, node: fx.Node, a: Arguments) -> Value:
    amounts, source = [int(p) for p in a.get("pad")], a.node("self")
    value = a.get("value", 0)
    if a.get("mode", "constant") != "constant" or (value is not None and float(value) != 0.0):
        raise im.unsupported(node, "only zeros")
    if any(amounts[4:]) or min(amounts) < 0 or a.rank("self") != 4:
        raise im.unsupported(node, f"pads {amounts}")
    left, right, top, bottom = [*amounts, 0, 0][:4]
    result, im.pads[node] = im.padded(source, (top, bottom, left, right))
    return result


def _mean(im: Translator, node: fx.Node, a: Arguments) -> Value:
    axes, source = {int(d) % a.rank("self") for d in a.get("dim") or ()}, a.node("self")
    if axes == {3} and [_mean_axes(user) for user in node.users] == [{2}] and a.get("keepdim"):
        # the first half of a mean over the width, then over the height
        return im.value(source)
    if axes == {2} and _mean_axes(source) == {3}:
        axes = {2, 3}
    if axes != {2, 3} or a.rank("self") != 4:
        raise im.unsupported(node, f"a mean over axes {sorted(axes)}; only height and width")
    return im.builder.add_op(Op("mean", place_of(node, im.name), (), 0), [im.value(source)])


def _mean_axes(node: fx.Node) -> set[int]:
    arguments = Arguments(node) if node.op == "call_function" else None
    if arguments is None or arguments.name != "mean" or not arguments.get("dim"):
        return set()
    return {int(d) % arguments.rank("self") for d in arguments.get("dim")}


def _adaptive_pool(im: Translator, node: fx.Node, a: Arguments) -> Value:
    out, source = square(a.get("output_size")), a.node("self")
    _, height, width, _ = im.builder.shape(im.value(source))
    if out == 1:
        return im.builder.add_op(Op("mean", place_of(node, im.name), (), 0), [im.value(source)])
    if out is None or height != width or height % out:
        raise im.unsupported(node, f"{height}x{width} px to {a.get('output_size')}")
    window = (height // out, height // out)
    op = Op("average_pool2d", place_of(node, im.name), (), 0, stride=window, kernel=window)
    return im.builder.add_op(op, [im.value(source)])


def _pool(im: Translator, node: fx.Node, a: Arguments) -> Value:
    kernel = square(a.get("kernel_size"))
    stride = square(a.get("stride") or a.get("kernel_size"))
    padding, source = square(a.get("padding", 0)), a.node("self")
    if kernel is None or stride is None or padding is None:
        raise im.unsupported(node, "only square windows")
    if square(a.get("dilation", 1)) != 1 or a.get("divisor_override") is not None:
        raise im.unsupported(node, "no dilation, no divisor of its own")
    value, pads = im.value(source), (padding,) * 4
    if a.get("ceil_mode", False):
        if padding:
            raise im.unsupported(node, "padding and rounding up together")
        _, height, width, _ = im.builder.shape(value)
        pads = (0, rounded_up_pad(height, kernel, stride), 0, rounded_up_pad(width, kernel, stride))
    name = place_of(node, im.name)
    maximum = a.name == "max_pool2d"
    if padding and not maximum and a.get("count_include_pad", True):
        # the graph's average leaves padding out, so it has to become real zeros
        value = im.builder.add_op(Op("pad", f"{name}.pad", (), 0, pads=pads), [value])
        pads = NO_PADS
    kind: OpKind = "max_pool2d" if maximum else "average_pool2d"
    return im.builder.add_op(
        Op(kind, name, (), 0, stride=(stride, stride), pads=pads, kernel=(kernel, kernel)),
        [value],
    )


def _reshape(im: Translator, node: fx.Node, a: Arguments) -> Value:
    """Flattening and its reverse change no stored byte where height and width are 1."""
    source = a.node("self")
    value = im.value(source)
    old, new = tuple(source.meta["val"].shape), tuple(node.meta["val"].shape)
    flattens = new[1:] == (int(np.prod(old[1:])),)
    restores = len(im.builder.shape(value)) == 4 and new == (*old[:2], 1, 1)
    if old != new and not flattens and not restores:
        raise im.unsupported(node, f"{old} to {new}")
    return value


def _same(im: Translator, node: fx.Node, a: Arguments) -> Value:
    source = a.first
    if source in im.pads:
        im.pads[node] = im.pads[source]
    return im.values[source]


def _softmax(im: Translator, node: fx.Node, a: Arguments) -> Value:
    if int(a.get("dim")) % a.rank("self") != 1 or a.rank("self") != 2:
        raise im.unsupported(node, "only over the classes")
    op = Op("softmax", place_of(node, im.name), (), 0)
    return im.builder.add_op(op, [im.value(a.node("self"))])


HANDLERS: Mapping[str, Handler] = {
    "conv2d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _hardtanh,
    "hardswish": _hardswish,
    "hardsigmoid": _hardsigmoid,
    "add": _binary,
    "mul": _binary,
    "div": _binary,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "mean": _mean,
    "adaptive_avg_pool2d": _adaptive_pool,
    "avg_pool2d": _pool,
    "max_pool2d": _pool,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "dropout": _same,
    "feature_dropout": _same,
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
    "alias": _same,
    "to": _same,
    "softmax": _softmax,
}
