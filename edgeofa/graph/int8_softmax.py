"""int8 softmax, bit-exact with TFLite's reference kernel: gemmlowp's fixed-point exp and 1/(1+x).

Numbers are called by their integer bits: ``q5`` has 5 (26 fractional), ``q0`` none (31).
"""

from __future__ import annotations

import math

import numpy as np

from edgeofa.graph.fixed_point import (
    INT32_MAX,
    divide_by_power,
    high_multiply,
    multiply_by_power,
    quantize_multiplier,
)
from edgeofa.graph.ir import Array

_INPUT_INTEGER_BITS = 5
_SUM_INTEGER_BITS = 12
#: exp(-1/8) and 1/3 in q0
_EXP_MINUS_EIGHTH, _THIRD = 1895147668, 715827883
#: exp(-2**e) in q0 for e = -2 .. 4
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
#: 48/17 and -32/17 in q2: the start of Newton's division
C48_17, CM32_17 = 1515870810, -1010580540


def _exp_small(a: Array) -> Array:
    """exp of q0 numbers in [-1/4, 0): Taylor around -1/8."""
    x = a + (1 << 28)
    x2 = high_multiply(x, x)
    x3 = high_multiply(x2, x)
    x4 = high_multiply(x2, x2)
    tail = high_multiply(divide_by_power(x4, 2) + x3, _THIRD) + x2
    return _EXP_MINUS_EIGHTH + high_multiply(x + divide_by_power(tail, 1), _EXP_MINUS_EIGHTH)


def _exp_negative(a: Array) -> Array:
    """exp of q5 numbers up to 0, in q0."""
    quarter = 1 << 24
    small = (a & (quarter - 1)) - quarter
    out = _exp_small(multiply_by_power(small, _INPUT_INTEGER_BITS))
    rest = small - a
    for exponent, factor in zip(range(-2, 5), _EXP_POWERS, strict=True):
        out = np.where(rest & (1 << (26 + exponent)), high_multiply(out, factor), out)
    return np.where(a == 0, INT32_MAX, out)


def _reciprocal(total: Array) -> tuple[Array, Array]:
    """1 / total for q12 numbers: (q0 mantissa in [1/2, 1], bits by which total exceeds one)."""
    headroom = np.array([32 - int(t).bit_length() for t in total.ravel()], dtype=np.int64).reshape(
        total.shape
    )
    x = (total << headroom) - (1 << 31)
    half = (x + INT32_MAX + 1) // 2
    y = C48_17 + high_multiply(half, CM32_17)
    for _ in range(3):
        error = (1 << 29) - high_multiply(half, y)
        y = y + multiply_by_power(high_multiply(y, error), 2)
    return multiply_by_power(y, 1), _SUM_INTEGER_BITS - headroom


def _input_multiplier(scale: float) -> tuple[int, int, int]:
    """(multiplier, shift) to q5, and the radius: smaller differences count as nothing."""
    real = min(scale * (1 << (31 - _INPUT_INTEGER_BITS)), float(INT32_MAX))
    multiplier, shift = quantize_multiplier(real)
    radius = math.floor(
        ((1 << _INPUT_INTEGER_BITS) - 1) * (1 << (31 - _INPUT_INTEGER_BITS)) / (1 << shift)
    )
    return multiplier, shift, radius


def exp_table(scale: float) -> tuple[Array, int]:
    """exp of every difference of two stored values, in q0, from -255 to 0; and the radius."""
    multiplier, shift, radius = _input_multiplier(scale)
    difference = np.arange(-255, 1, dtype=np.int64)
    counted = np.where(difference >= -radius, difference, 0)
    return _exp_negative(high_multiply(counted << shift, multiplier)), radius


def softmax(x: Array, scale: float) -> Array:
    """Softmax over the last axis of stored int8 values; output has scale 1/256, zero point -128."""
    multiplier, shift, radius = _input_multiplier(scale)
    difference = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    counted = difference >= -radius
    # differences outside the radius are not used; 0 keeps them from overflowing
    exps = _exp_negative(high_multiply(np.where(counted, difference, 0) << shift, multiplier))
    parts = np.where(counted, divide_by_power(exps, _SUM_INTEGER_BITS), 0)
    mantissa, excess = _reciprocal(parts.sum(axis=-1, keepdims=True))
    out = divide_by_power(high_multiply(exps, mantissa), excess + 31 - 8) - 128
    return np.where(counted, np.clip(out, -128, 127), -128).astype(np.int8)
