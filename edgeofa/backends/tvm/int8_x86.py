"""int8 arithmetic of x86-64: AVX2, AVX-512, VNNI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from edgeofa.backends.tvm.emit import (
    Buffer,
    Emitter,
    Expr,
    bits,
    convert,
    instruction,
    larger,
    load,
    smaller,
    splat,
)
from edgeofa.backends.tvm.int8_isa import Ints, Isa, Mode


class X86(Isa):
    """What the x86-64 machines share: the products' high halves by ``vpmuldq`` on even and odd
    lanes."""

    sums = 1

    def __init__(self, lanes: int):
        self.lanes = self.block = lanes

    def totals(self, e: Emitter, acc: Sequence[Buffer]) -> list[Expr]:
        return [e.bind(load(acc[0], 0, self.lanes), "sum")]

    def constants(self, multiplier: Ints, shift: Ints, mode: Mode) -> list[Ints]:
        right = np.maximum(-shift, 0)
        half = (np.int64(1) << right) >> 1
        arrays = [multiplier, right, half]
        return arrays if mode != "any" else [*arrays, np.maximum(shift, 0)]

    def rescale(
        self,
        e: Emitter,
        x: Expr,
        constants: Sequence[Expr],
        mode: Mode,
        turn: int = 0,  # noqa: ARG002 - one way is the best
    ) -> Expr:
        multiplier, right, half = constants[:3]
        lanes = self.lanes
        if mode == "any":
            x = tirx.shift_left(x, constants[3])
        high = e.bind(self._high(e, e.bind(x), multiplier), "h")
        # ties away from zero: one less where the number is negative and will be shifted
        sign = high if mode == "right" else tirx.bitwise_and(high, splat(0, lanes) - right)
        nudged = high + tirx.shift_right(sign, splat(31, lanes)) + half
        return e.bind(tirx.shift_right(nudged, right), "r")

    def _high(self, e: Emitter, x: Expr, multiplier: Expr) -> Expr:
        """SaturatingRoundingDoublingHighMul; no multiplier is negative, so nothing saturates."""
        pairs = self.lanes // 2
        wide = f"int64x{pairs}"

        def of(value: int) -> Expr:
            return tirx.Broadcast(tirx.IntImm("int64", value), pairs)

        a, m = e.bind(bits(wide, x)), e.bind(bits(wide, multiplier))
        nudge, word = of(1 << 30), of(32)

        def low(value: Expr) -> Expr:
            return tirx.shift_right(tirx.shift_left(value, word), word)

        even = low(a) * low(m) + nudge
        odd = tirx.shift_right(a, word) * tirx.shift_right(m, word) + nudge
        mask = of(0xFFFFFFFF)
        first = tirx.bitwise_and(tirx.shift_right(even, of(31)), mask)
        second = tirx.bitwise_and(tirx.shift_left(odd, of(1)), of(-(1 << 32)))
        return bits(f"int32x{self.lanes}", tirx.bitwise_or(first, second))

    def finish(
        self,
        e: Emitter,
        y: Buffer,
        items: Sequence[tuple[Expr, Sequence[Expr]]],
        limits: Sequence[Expr],
    ) -> None:
        zero, low, high = (splat(limit, self.lanes) for limit in limits)
        for place, values in items:
            for i, value in enumerate(values):
                out = convert(f"int8x{self.lanes}", smaller(larger(value + zero, low), high))
                e.store(y, place + i * self.lanes, out, self.lanes)


class Vnni(X86):
    """``vpdpbusd``: four products of unsigned inputs and signed weights into each int32."""

    chunk = tail = 4
    input_offset = 128

    def pack_chunk(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        return weight.reshape(-1)

    def weights(self, e: Emitter, w: Buffer, index: Expr, size: int) -> list[Expr]:
        lanes = self.lanes
        return [e.bind(load(w, index, lanes * size), "w")]

    def inputs(self, e: Emitter, x: Buffer, index: Expr, size: int) -> list[Expr]:
        word = splat(bits("int32", load(x, index, size)), self.lanes)
        flip = splat(tirx.IntImm("int32", -0x7F7F7F80), self.lanes)
        x = bits(f"int8x{4 * self.lanes}", tirx.bitwise_xor(word, flip))
        return [e.bind(x, "x")]

    def multiply(
        self,
        e: Emitter,
        acc: Sequence[Buffer],
        xs: list[Expr],
        ws: list[Expr],
        is_first: bool,  # noqa: ARG002 - the sums are clear
    ) -> None:
        e.store(acc[0], 0, self.dot(load(acc[0], 0, self.lanes), xs[0], ws[0]), self.lanes)

    def dot(self, total: Expr, x: Expr, w: Expr) -> Expr:
        """``total`` plus four products in each lane; bytes of ``x`` are unsigned."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return instruction(f"int32x{self.lanes}", name, total, x, w)


class Madd(X86):
    """``vpmaddwd``: two products of int16 into each int32; stored int8 is widened on the way."""

    chunk = tail = 2

    def pack_chunk(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        return weight.reshape(-1)

    def weights(self, e: Emitter, w: Buffer, index: Expr, size: int) -> list[Expr]:
        count = self.lanes * size
        return [e.bind(convert(f"int16x{count}", load(w, index, count)), "w")]

    def inputs(self, e: Emitter, x: Buffer, index: Expr, size: int) -> list[Expr]:
        count = self.lanes * size
        pair = splat(bits("int16", load(x, index, size)), self.lanes)
        return [e.bind(convert(f"int16x{count}", bits(f"int8x{count}", pair)), "x")]

    def multiply(
        self,
        e: Emitter,
        acc: Sequence[Buffer],
        xs: list[Expr],
        ws: list[Expr],
        is_first: bool,  # noqa: ARG002 - the sums are clear
    ) -> None:
        total = load(acc[0], 0, self.lanes) + self.pairs(xs[0], ws[0])
        e.store(acc[0], 0, total, self.lanes)

    def pairs(self, x: Expr, w: Expr) -> Expr:
        """Sums of two neighbouring products of int16."""
        name = "llvm.x86.avx512.pmaddw.d.512" if self.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        return instruction(f"int32x{self.lanes}", name, x, w)
