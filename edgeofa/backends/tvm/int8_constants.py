"""The numbers of a quantised kernel, which travel beside its weights: one int32 array.

Code does not depend on scales, so layers of one shape share a function and its tuning record. The
array is a header of scalars, then what each block of output channels needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, larger, load, smaller, splat
from edgeofa.backends.tvm.int8_isa import Isa, Mode
from edgeofa.errors import UnsupportedOperator

Int32 = NDArray[np.int32]
#: padding, 3 limits, 3 of the residual, then up to 4 numbers for each of 3 rescalings
HEADER = 32
_LIMITS, _INNER, _RESIDUAL_ZERO, _RESCALES = 1, 4, 6, 8
_PER_RESCALE = 4


@dataclass(frozen=True)
class Residual:
    """What a fused sum does: limits of the convolution's output relative to its zero point, zero
    point of the other summand, (multiplier, shift) of the two summands and of their sum."""

    low: int
    high: int
    zero_point: int
    rescales: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def header(
    isa: Isa,
    padding: int,
    limits: tuple[int, int, int],
    residual: Residual | None = None,
    rescales: Sequence[tuple[int, int]] = (),
    inner: Sequence[int] = (),
    mode: Mode = "down",
) -> Int32:
    """The scalars.

    Args:
        limits: zero point, smallest and largest stored value of the output.
        rescales: (multiplier, shift) in the order that the kernel counts them, for ``mode``.
        inner: up to three numbers of the kernel's own, where a residual has its.
    """
    out = np.zeros(HEADER, dtype=np.int64)
    out[0] = padding
    out[_LIMITS : _LIMITS + 3] = limits
    if residual is not None:
        out[_INNER : _INNER + 2] = residual.low, residual.high
        out[_RESIDUAL_ZERO] = residual.zero_point
        rescales = residual.rescales
    out[_INNER : _INNER + len(inner)] = inner
    for i, (multiplier, shift) in enumerate(rescales):
        if shift > 0 and mode == "down":
            raise UnsupportedOperator(f"a sum whose scales lie {shift} bits too far apart")
        values = isa.constants(np.array([multiplier]), np.array([shift]), mode)
        place = _RESCALES + _PER_RESCALE * i
        out[place : place + len(values)] = [int(v[0]) for v in values]
    return out.astype(np.int32)


class Header:
    """The scalars as a kernel reads them."""

    def __init__(self, e: Emitter, isa: Isa, c: Buffer):
        self._e, self._isa, self._c = e, isa, c

    def scalar(self, place: int) -> Expr:
        """One int32."""
        return load(self._c, place)

    @property
    def padding(self) -> Expr:
        """The stored value that stands for zero in the input."""
        return self.scalar(0)

    def limits(self) -> list[Expr]:
        """Zero point, smallest and largest value of the output."""
        return [self.scalar(_LIMITS + i) for i in range(3)]

    def inner(self, number: int) -> Expr:
        """One of the kernel's own numbers, in every lane."""
        return splat(self.scalar(_INNER + number), self._isa.lanes)

    def rescale(self, number: int, x: Expr, mode: Mode = "down") -> Expr:
        """One of the scalar rescalings."""
        isa = self._isa
        place = _RESCALES + _PER_RESCALE * number
        constants = [splat(self.scalar(place + i), isa.lanes) for i in range(isa.count(mode))]
        return isa.rescale(self._e, x, constants, mode)

    def add_residual(self, x: Expr, other: Expr) -> Expr:
        """The fused sum of an operator's output (without zero point) and stored values, rescaled.

        Args:
            x, other: int32 vectors.
        """
        low, high, zero = (self.inner(i) for i in range(3))
        mine = smaller(larger(x, low), high)
        return self.sum_of(mine, other - zero)

    def sum_of(self, a: Expr, b: Expr) -> Expr:
        """ADD of two int32 vectors whose zero points are off, before the output's."""
        lanes = self._isa.lanes
        left = splat(20, lanes)
        parts = [self.rescale(i, v << left) for i, v in enumerate((a, b))]
        return self.rescale(2, parts[0] + parts[1])


def rescaling_mode(shifts: NDArray[np.int64]) -> Mode:
    """What a kernel must reckon with that has these shifts."""
    return "right" if int(shifts.max()) <= -1 else "any"
