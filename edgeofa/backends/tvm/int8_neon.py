"""int8 arithmetic of aarch64, with and without dot products."""

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
    high_half,
    instruction,
    larger,
    load,
    low_half,
    smaller,
    splat,
)
from edgeofa.backends.tvm.int8_isa import Ints, Isa, Mode


class Neon(Isa):
    """aarch64 without dot products: ``smull`` and ``smlal`` of 8 channels of the reduction into
    int16 (two products of int8 and [-127, 127] fit), ``sadalp`` into int32."""

    lanes, block, sums, chunk, tail = 4, 4, 4, 16, 8
    starts_with_products = True

    def pack_chunk(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        return weight.reshape(-1)

    def weights(self, e: Emitter, w: Buffer, index: Expr, size: int) -> list[Expr]:
        return [e.bind(load(w, index + 8 * i, 8), "w") for i in range(self.block * size // 8)]

    def inputs(self, e: Emitter, x: Buffer, index: Expr, size: int) -> list[Expr]:
        return [e.bind(load(x, index + 8 * i, 8), "x") for i in range(size // 8)]

    def multiply(
        self, e: Emitter, acc: Sequence[Buffer], xs: list[Expr], ws: list[Expr], is_first: bool
    ) -> None:
        for channel, sums in enumerate(acc):
            mine = ws[channel * len(xs) : (channel + 1) * len(xs)]
            product = self.products(e, xs, mine)
            pairs = instruction("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", product)
            e.store(sums, 0, pairs if is_first else load(sums, 0, 4) + pairs, 4)

    def products(self, e: Emitter, xs: Sequence[Expr], ws: Sequence[Expr]) -> Expr:
        """Sum of up to two products, int16."""
        total = None
        for x, w in zip(xs, ws, strict=True):
            product = instruction("int16x8", "llvm.aarch64.neon.smull.v8i16", x, w)
            total = product if total is None else total + product
        return e.bind(total, "t")

    def totals(self, e: Emitter, acc: Sequence[Buffer]) -> list[Expr]:
        def pairs(a: Expr, b: Expr) -> Expr:
            return instruction("int32x4", "llvm.aarch64.neon.addp.v4i32", a, b)

        a, b, c, d = (load(sums, 0, 4) for sums in acc)
        return [e.bind(pairs(pairs(a, b), pairs(c, d)), "sum")]

    def widened(self, e: Emitter, x: Buffer, at: Expr, vectors: int) -> list[Expr]:
        if vectors != 4:
            return super().widened(e, x, at, vectors)
        stored = e.bind(load(x, at, 16), "x")
        out = []
        for half in (low_half, high_half):
            words = e.bind(convert("int16x8", half("int8x8", stored)), "x")
            out += [convert("int32x4", part("int16x4", words)) for part in (low_half, high_half)]
        return [e.bind(value, "x") for value in out]

    def constants(self, multiplier: Ints, shift: Ints, mode: Mode) -> list[Ints]:
        if mode == "right":
            return [multiplier, shift, np.int64(1) << (31 + np.minimum(shift, 0))]
        if mode == "down":
            return [multiplier, shift]
        return [multiplier, np.minimum(shift, 0), np.maximum(shift, 0)]

    def rescale(
        self, e: Emitter, x: Expr, constants: Sequence[Expr], mode: Mode, turn: int = 0
    ) -> Expr:
        multiplier, right = constants[:2]
        if mode == "any":
            x = tirx.shift_left(x, constants[2])
        high = instruction("int32x4", "llvm.aarch64.neon.sqrdmulh.v4i32", x, multiplier)
        high = e.bind(high, "h")
        # ties away from zero: one less where the number is negative and will be shifted
        sign = high if mode == "right" else tirx.bitwise_and(high, right)
        nudged = high + tirx.shift_right(sign, splat(31, 4))
        name, by = "llvm.aarch64.neon.srshl.v4i32", right
        if mode == "right" and turn % 2:
            # a multiplication with a power of two rounds in the same way, in the other pipe
            name, by = "llvm.aarch64.neon.sqrdmulh.v4i32", constants[2]
        return e.bind(instruction("int32x4", name, nudged, by), "r")

    def finish(
        self,
        e: Emitter,
        y: Buffer,
        items: Sequence[tuple[Expr, Sequence[Expr]]],
        limits: Sequence[Expr],
    ) -> None:
        flat = [(place, 4 * i, v) for place, values in items for i, v in enumerate(values)]
        start = 0
        while start < len(flat):
            count = 4 if len(flat) - start >= 4 else 2 if len(flat) - start >= 2 else 1
            group = flat[start : start + count]
            out = self._narrow(e, [value for _, _, value in group], limits)
            self._store(e, y, [(p, offset) for p, offset, _ in group], out)
            start += count

    def _store(self, e: Emitter, y: Buffer, places: Sequence[tuple[Expr, int]], out: Expr) -> None:
        """Store the four bytes of each place, neighbours together."""
        lanes = max(4 * len(places), 8)
        i = 0
        while i < len(places):
            place, offset = places[i]
            run = 1
            while i + run < len(places) and places[i + run][0] is place:
                run += 1
            run = run if run in (1, 2, 4) and i % run == 0 else 1
            part = out
            if run == 2 and lanes == 16:
                part = (low_half if i == 0 else high_half)("int8x8", out)
            elif run == 1:
                words = bits(f"int32x{lanes // 4}", out)
                part = bits("int8x4", tirx.Shuffle([words], [i]))
            e.store(y, place + offset, part, 4 * run)
            i += run

    def _narrow(self, e: Emitter, values: Sequence[Expr], limits: Sequence[Expr]) -> Expr:
        """8 or 16 stored values of one, two or four vectors."""
        words = [instruction("int16x4", "llvm.aarch64.neon.sqxtn.v4i16", v) for v in values]
        if len(words) == 1:
            words.append(words[0])
        zero = splat(convert("int16", limits[0]), 8)
        parts = []
        for a, b in zip(words[::2], words[1::2], strict=True):
            both = tirx.vectorcombine("int16x8", a, b)
            shifted = instruction("int16x8", "llvm.aarch64.neon.sqadd.v8i16", both, zero)
            parts.append(instruction("int8x8", "llvm.aarch64.neon.sqxtn.v8i8", shifted))
        out = parts[0] if len(parts) == 1 else tirx.vectorcombine("int8x16", *parts)
        low, high = (splat(convert("int8", limit), 8 * len(parts)) for limit in limits[1:])
        return e.bind(smaller(larger(out, low), high), "out")


class NeonDot(Neon):
    """aarch64 with ``sdot``: four products of each of four channels at once."""

    sums, chunk, tail = 1, 16, 4
    starts_with_products = False

    def pack_chunk(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        return weight.reshape(4, -1, 4).transpose(1, 0, 2).reshape(-1)

    def weights(self, e: Emitter, w: Buffer, index: Expr, size: int) -> list[Expr]:
        return [e.bind(load(w, index + 16 * i, 16), "w") for i in range(size // 4)]

    def inputs(self, e: Emitter, x: Buffer, index: Expr, size: int) -> list[Expr]:
        words = bits(f"int32x{size // 4}" if size > 4 else "int32", load(x, index, size))
        words = e.bind(words, "x")
        lanes = [words] if size == 4 else [tirx.Shuffle([words], [i]) for i in range(size // 4)]
        return [bits("int8x16", tirx.Broadcast(lane, 4)) for lane in lanes]

    def multiply(
        self,
        e: Emitter,
        acc: Sequence[Buffer],
        xs: list[Expr],
        ws: list[Expr],
        is_first: bool,  # noqa: ARG002 - the sums are clear
    ) -> None:
        for x, w in zip(xs, ws, strict=True):
            name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
            e.store(acc[0], 0, instruction("int32x4", name, load(acc[0], 0, 4), w, x), 4)

    def totals(self, e: Emitter, acc: Sequence[Buffer]) -> list[Expr]:
        return [e.bind(load(acc[0], 0, 4), "sum")]
