"""The operators in int8, bit-exact with TFLite's reference kernels as tflite-micro builds them.

Formulas follow tensorflow/lite/kernels/internal/reference (and integer_ops) and the parameter
preparation of tensorflow/lite/micro/kernels: which products are taken in float and which in double
decides the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.fixed_point import (
    divide_by_power,
    high_multiply,
    quantize_multiplier,
    quantize_multipliers,
    rescale,
)
from edgeofa.graph.int8_softmax import softmax
from edgeofa.graph.ir import Activation, Array, Op, Quantization
from edgeofa.graph.windows import (
    convolve,
    convolve_depthwise,
    pad_image,
    window_counts,
    windows,
)

#: partial sums of integers in float32 are exact below this
_EXACT_FLOAT32 = 1 << 24
#: ADD rescales its inputs with this many extra bits
_ADD_LEFT_SHIFT = 20


def activation_range(activation: Activation, q: Quantization) -> tuple[int, int]:
    """Smallest and largest stored value that a fused activation lets through."""
    low, high = -128, 127
    if activation != "none":
        low = max(low, q.zero_point)
    if activation == "relu6":
        six = np.float32(6.0) / np.float32(q.scale)
        high = min(high, q.zero_point + int(np.floor(six + np.float32(0.5))))
    return low, high


def _finish(acc: Array, activation: Activation, q: Quantization) -> Array:
    """Add the zero point, clamp, store."""
    acc += q.zero_point
    low, high = activation_range(activation, q)
    np.clip(acc, low, high, out=acc)
    return np.asarray(acc, dtype=np.int8)


def linear_multipliers(op: Op, qx: Quantization, qy: Quantization) -> tuple[Array, Array]:
    """Multipliers and shifts that take an operator's sums to its output, one or one per channel."""
    if op.weight_scale is None:
        raise UsageError("an int8 operator needs weight scales", where=op.name)
    if op.kind == "fully_connected" and len(op.weight_scale) == 1:
        # a dense layer of one scale takes the per-tensor path, whose product is a float's
        product = float(np.float32(qx.scale) * op.weight_scale[0])
        return quantize_multipliers(np.array([product / qy.scale]))
    return quantize_multipliers(qx.scale * op.weight_scale.astype(np.float64) / qy.scale)


def _linear(op: Op, x: Array, qx: Quantization, qy: Quantization) -> Array:
    weight, bias = op.linear
    taps = tuple(i for i in range(weight.ndim) if i != (3 if op.kind == "depthwise_conv2d" else 0))
    largest_input = max(127 - qx.zero_point, qx.zero_point + 128)
    bound = int(np.abs(weight.astype(np.int64)).sum(axis=taps).max()) * largest_input
    dtype = np.dtype(np.float32 if bound < _EXACT_FLOAT32 else np.float64)
    real: Array = x.astype(dtype)
    np.subtract(real, qx.zero_point, out=real)
    w: Array = weight.astype(dtype)
    if op.kind == "conv2d":
        sums = convolve(real, w, op.stride, op.pads)
    elif op.kind == "depthwise_conv2d":
        sums = convolve_depthwise(real, w, op.stride, op.pads)
    else:
        sums = real.reshape(len(x), -1) @ w.T
    acc = sums.astype(np.int64)
    acc += bias
    return _finish(rescale(acc, *linear_multipliers(op, qx, qy)), op.activation, qy)


@dataclass(frozen=True)
class AddMultipliers:
    """(multiplier, shift) of ADD's inputs and of their sum."""

    inputs: tuple[tuple[int, int], ...]
    output: tuple[int, int]


def add_multipliers(qs: Sequence[Quantization], qy: Quantization) -> AddMultipliers:
    """What ADD multiplies its inputs and their sum by, its left shift of 20 bits taken off."""
    twice_max = 2.0 * max(qs[0].scale, qs[1].scale)
    return AddMultipliers(
        tuple(quantize_multiplier(q.scale / twice_max) for q in qs),
        quantize_multiplier(twice_max / ((1 << _ADD_LEFT_SHIFT) * qy.scale)),
    )


def _add(op: Op, inputs: list[Array], qs: list[Quantization], qy: Quantization) -> Array:
    multipliers = add_multipliers(qs, qy)
    total = np.zeros(1, dtype=np.int64)
    for x, q, multiplier in zip(inputs, qs, multipliers.inputs, strict=True):
        shifted = (x.astype(np.int64) - q.zero_point) << _ADD_LEFT_SHIFT
        total = total + rescale(shifted, *multiplier)
    return _finish(rescale(total, *multipliers.output), op.activation, qy)


def mul_multiplier(qs: Sequence[Quantization], qy: Quantization) -> tuple[int, int]:
    """Multiplier and shift of MUL's product."""
    return quantize_multiplier(qs[0].scale * qs[1].scale / qy.scale)


def _mul(op: Op, inputs: list[Array], qs: list[Quantization], qy: Quantization) -> Array:
    a, b = (x.astype(np.int64) - q.zero_point for x, q in zip(inputs, qs, strict=True))
    return _finish(rescale(a * b, *mul_multiplier(qs, qy)), op.activation, qy)


def mean_multiplier(count: int, qx: Quantization, qy: Quantization) -> tuple[int, int]:
    """Multiplier and shift that take a sum over ``count`` pixels to their mean."""
    multiplier, shift = quantize_multiplier(qx.scale / qy.scale)
    # 1 / count is put into the multiplier, keeping as many bits as fit
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << extra) // count, shift - extra


def _mean(x: Array, qx: Quantization, qy: Quantization) -> Array:
    count = prod(x.shape[1:3])
    sums = x.sum(axis=(1, 2), keepdims=True, dtype=np.int64) - qx.zero_point * count
    return _finish(rescale(sums, *mean_multiplier(count, qx, qy)), "none", qy)


def _pool(op: Op, x: Array, qy: Quantization) -> Array:
    low, high = activation_range(op.activation, qy)
    if op.kind == "max_pool2d":
        out = windows(pad_image(x, op.pads, -128), op.kernel, op.stride).max(axis=(4, 5))
        return np.asarray(np.clip(out, low, high))
    padded = pad_image(x.astype(np.int64), op.pads)
    sums = windows(padded, op.kernel, op.stride).sum(axis=(4, 5))
    counts = window_counts(x.shape, op.kernel, op.stride, op.pads)
    # round half away from zero; the division truncates
    magnitude = (np.abs(sums) + counts // 2) // counts
    return np.asarray(np.clip(np.where(sums > 0, magnitude, -magnitude), low, high), np.int8)


def _narrow(multiplier: int) -> int:
    """DownScaleInt32ToInt16Multiplier."""
    return 32767 if multiplier >= (1 << 31) - 1 - (1 << 15) else (multiplier + (1 << 15)) >> 16


def _saturating_shift(x: Array, amount: int) -> Array:
    return np.asarray(np.clip(x << amount, -32768, 32767))


def hard_swish_table(qx: Quantization, qy: Quantization) -> Array:
    """Output for each of the 256 inputs, index ``stored value + 128``; 16-bit fixed point."""
    scale, out_scale = np.float32(qx.scale), np.float32(qy.scale)
    fine = np.float32(1 / 128) * scale
    out_multiplier, out_shift = quantize_multiplier(float(fine / out_scale))
    gate_multiplier, gate_shift = quantize_multiplier(float(fine / np.float32(3 / 32768)))
    if out_shift > 0:
        raise UsageError(f"hard_swish cannot rescale from {scale} to {out_scale}")
    x = (np.arange(-128, 128, dtype=np.int64) - qx.zero_point) << 7
    on_output_scale = high_multiply(x, _narrow(out_multiplier), 16)
    gate = _saturating_shift(x, gate_shift - 1) if gate_shift > 0 else x
    gate = high_multiply(gate, _narrow(gate_multiplier), 16)
    if gate_shift > 0:
        gate = _saturating_shift(gate, 1)
    elif gate_shift < 0:
        gate = divide_by_power(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    product = gate * on_output_scale
    # this product alone is rounded towards zero
    product = np.sign(product) * (np.abs(product) >> 15)
    return _finish(divide_by_power(product, -out_shift), "none", qy)


def apply(op: Op, inputs: list[Array], qs: list[Quantization], qy: Quantization) -> Array:
    """The operator's stored int8 output.

    Args:
        inputs: stored int8 values.
        qs: quantisation of each input.
        qy: quantisation of the output.
    """
    x = inputs[0]
    match op.kind:
        case "conv2d" | "depthwise_conv2d" | "fully_connected":
            return _linear(op, x, qs[0], qy)
        case "add":
            return _add(op, inputs, qs, qy)
        case "mul":
            return _mul(op, inputs, qs, qy)
        case "mean":
            return _mean(x, qs[0], qy)
        case "average_pool2d" | "max_pool2d":
            return _pool(op, x, qy)
        case "pad":
            return pad_image(x, op.pads, qs[0].zero_point)
        case "hard_swish":
            return np.asarray(hard_swish_table(qs[0], qy)[x.astype(np.int64) + 128])
        case "softmax":
            return softmax(x, qs[0].scale)
