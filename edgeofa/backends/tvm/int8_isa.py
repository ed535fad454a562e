"""The int8 arithmetic of each machine: products summed into int32, requantisation, narrowing.

``mode`` says what a rescaling must reckon with: ``right`` where every shift is to the right by at
least one bit, which is what layers nearly always have, ``down`` where none is to the left, ``any``
for the rest.

A tile's products are taken in *chunks* of the reduction: ``chunk`` elements at a time, then tails
of ``tail`` elements, the last of which may overlap what was summed already (its weights are zero
there), so that nothing is ever read beyond the input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

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

Ints = NDArray[np.int64]
Mode = Literal["right", "down", "any"]


class Isa(ABC):
    """One instruction set. ``lanes`` int32 values make a vector; ``block`` output channels are
    summed in ``sums`` such vectors."""

    lanes: int
    block: int
    sums: int
    chunk: int
    tail: int
    #: the first products become the sums, which need not be cleared then
    starts_with_products: bool = False
    #: what is added to stored inputs before they are multiplied (unsigned dot products)
    input_offset: int = 0

    # ---- the reduction ----

    def chunks(self, depth: int) -> tuple[int, list[tuple[int, int]]]:
        """How often the whole chunk fits, and the (place, elements new there) of each tail."""
        whole, place = depth // self.chunk, depth - depth % self.chunk
        tails = []
        while place < depth:
            new = min(self.tail, depth - place)
            tails.append((place + new - self.tail, new))
            place += new
        return whole, tails

    @property
    def least_depth(self) -> int:
        """Shorter reductions are copied and filled up first."""
        return self.tail

    @abstractmethod
    def pack_chunk(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        """Bytes of one chunk or tail, flat, in the order of loading; from (block, elements)."""

    @abstractmethod
    def weights(self, e: Emitter, w: Buffer, index: Expr, size: int) -> list[Expr]:
        """One block's weights of a chunk or tail."""

    @abstractmethod
    def inputs(self, e: Emitter, x: Buffer, index: Expr, size: int) -> list[Expr]:
        """One pixel's inputs of a chunk or tail."""

    @abstractmethod
    def multiply(
        self, e: Emitter, acc: Sequence[Buffer], xs: list[Expr], ws: list[Expr], is_first: bool
    ) -> None:
        """Add the products of a chunk or tail to the sums of one pixel and block.

        Args:
            is_first: the products become the sums, where ``starts_with_products``.
        """

    @abstractmethod
    def totals(self, e: Emitter, acc: Sequence[Buffer]) -> list[Expr]:
        """The block's sums, ``block / lanes`` vectors in the order of channels."""

    # ---- requantisation ----

    @abstractmethod
    def constants(self, multiplier: Ints, shift: Ints, mode: Mode) -> list[Ints]:
        """What :meth:`rescale` reads, one array for each of its vectors."""

    @abstractmethod
    def rescale(
        self, e: Emitter, x: Expr, constants: Sequence[Expr], mode: Mode, turn: int = 0
    ) -> Expr:
        """MultiplyByQuantizedMultiplier with its two roundings, lane by lane.

        Args:
            turn: counts the vectors of a tile: where two ways cost different units of the core,
                they take turns.
        """

    @abstractmethod
    def finish(
        self,
        e: Emitter,
        y: Buffer,
        items: Sequence[tuple[Expr, Sequence[Expr]]],
        limits: Sequence[Expr],
    ) -> None:
        """Add the zero point, clamp and store as int8.

        Args:
            items: place in ``y`` and the neighbouring vectors that go there.
            limits: zero point, smallest and largest stored value, as int32 scalars.
        """

    def widened(self, e: Emitter, x: Buffer, at: Expr, vectors: int) -> list[Expr]:
        """Neighbouring int8 values as int32 vectors."""
        lanes = self.lanes
        return [e.bind(widen(load(x, at + i * lanes, lanes), lanes)) for i in range(vectors)]

    def count(self, mode: Mode) -> int:
        """How many arrays :meth:`constants` gives."""
        one = np.zeros(1, dtype=np.int64)
        return len(self.constants(one, one, mode))


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
        return e.bind(tirx.Min(tirx.Max(out, low), high), "out")


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


def widen(x: Expr, lanes: int) -> Expr:
    """int8 lanes as int32."""
    return convert(f"int32x{lanes}", x)
