"""Fixed-point arithmetic of TFLite's int8 kernels, vectorised over int64 arrays.

The functions and their roundings are gemmlowp's (fixedpoint/fixedpoint.h) as TFLite uses them with
double rounding, which is how tflite-micro is built: a product is rounded to 31 fractional bits,
then shifted right with a second rounding, ties away from zero.
"""

from __future__ import annotations

import math

import numpy as np

from edgeofa.graph.ir import Array

INT32_MAX = (1 << 31) - 1
INT32_MIN = -(1 << 31)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """``real`` (at least 0) as (Q31 multiplier, shift): ``multiplier * 2**(shift - 31)``.

    TFLite's QuantizeMultiplier; values below 2**-32 become 0.
    """
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def quantize_multipliers(reals: Array) -> tuple[Array, Array]:
    """:func:`quantize_multiplier` of each element, as two int64 arrays."""
    pairs = [quantize_multiplier(float(real)) for real in reals]
    return (
        np.array([m for m, _ in pairs], dtype=np.int64),
        np.array([s for _, s in pairs], dtype=np.int64),
    )


def high_multiply(a: Array, b: Array | int, bits: int = 32) -> Array:
    """SaturatingRoundingDoublingHighMul: ``round(a * b / 2**(bits - 1))``, ties upwards.

    ``bits`` is the width of the operands' type. gemmlowp divides with truncation after a nudge
    that depends on the sign; both signs together equal this arithmetic shift.
    """
    out: Array = a * b
    out += 1 << (bits - 2)
    out >>= bits - 1
    # only the square of the most negative number leaves the type
    np.minimum(out, (1 << (bits - 1)) - 1, out=out)
    return out


def divide_by_power(x: Array, exponent: Array | int) -> Array:
    """RoundingDivideByPOT: ``round(x / 2**exponent)``, ties away from zero."""
    mask = np.left_shift(np.int64(1), exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    out: Array = x >> exponent
    out += (x & mask) > threshold
    return out


def multiply_by_power(x: Array, exponent: int) -> Array:
    """SaturatingRoundingMultiplyByPOT for a positive exponent, 32 bits."""
    return np.asarray(np.clip(x << exponent, INT32_MIN, INT32_MAX))


def rescale(x: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """MultiplyByQuantizedMultiplier: ``x * multiplier * 2**(shift - 31)`` with two roundings.

    Args:
        x: int64 array of int32 values; ``multiplier`` and ``shift`` broadcast on its last axis.
    """
    left = np.maximum(shift, 0)
    if np.any(left):
        # the kernels shift an int32, which wraps
        x = (x << left).astype(np.int32).astype(np.int64)
    return divide_by_power(high_multiply(x, multiplier), np.maximum(np.negative(shift), 0))
