"""The operators in float32."""

from __future__ import annotations

import numpy as np

from edgeofa.graph.ir import Activation, Array, Op
from edgeofa.graph.windows import (
    convolve,
    convolve_depthwise,
    pad_image,
    window_counts,
    windows,
)


def activate(x: Array, activation: Activation) -> Array:
    """Apply a fused activation, in place."""
    if activation == "relu":
        np.maximum(x, 0, out=x)
    elif activation == "relu6":
        np.clip(x, 0, 6, out=x)
    return x


def _linear(op: Op, x: Array) -> Array:
    weight, bias = op.linear
    weight = weight.astype(x.dtype, copy=False)
    if op.kind == "conv2d":
        out = convolve(x, weight, op.stride, op.pads)
    elif op.kind == "depthwise_conv2d":
        out = convolve_depthwise(x, weight, op.stride, op.pads)
    else:
        out = x.reshape(len(x), -1) @ weight.T
    out += bias
    return out


def _pool(op: Op, x: Array) -> Array:
    lowest = 0.0 if op.kind == "average_pool2d" else -np.inf
    view = windows(pad_image(x, op.pads, lowest), op.kernel, op.stride)
    if op.kind == "max_pool2d":
        return np.asarray(view.max(axis=(4, 5)))
    counts = window_counts(x.shape, op.kernel, op.stride, op.pads).astype(x.dtype)
    return np.asarray(view.sum(axis=(4, 5)) / counts)


def apply(op: Op, inputs: list[Array]) -> Array:
    """The operator's output for float32 (or float64) inputs."""
    x = inputs[0]
    match op.kind:
        case "conv2d" | "depthwise_conv2d" | "fully_connected":
            out = _linear(op, x)
        case "add":
            out = x + inputs[1]
        case "mul":
            out = x * inputs[1]
        case "mean":
            out = x.mean(axis=(1, 2), keepdims=True, dtype=x.dtype)
        case "average_pool2d" | "max_pool2d":
            out = _pool(op, x)
        case "pad":
            out = pad_image(x, op.pads)
        case "hard_swish":
            out = np.clip(x + 3, 0, 6)
            out *= x
            out *= x.dtype.type(1 / 6)
        case "softmax":
            out = np.exp(x - x.max(axis=-1, keepdims=True))
            out /= out.sum(axis=-1, keepdims=True)
    return activate(out, op.activation)
