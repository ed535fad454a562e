"""Blocks of channels of an int8 depthwise convolution, in the registers of one machine.

Arm sums two products of int8 in int16 before they are widened. x86 interleaves the rows of a
column, so that one dot product adds up to four rows of a window; the order of channels that this
makes is undone where results are packed, and weights are packed in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

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
from edgeofa.backends.tvm.int8_isa import Ints, Isa
from edgeofa.backends.tvm.int8_neon import Neon
from edgeofa.backends.tvm.int8_x86 import Madd, Vnni
from edgeofa.backends.tvm.kernels import Kernel

Int8s = NDArray[np.int8]


class Channels(ABC):
    """A block of neighbouring channels in the registers of one machine.

    Sums lie in ``vectors`` vectors of ``isa.lanes``; lane ``j`` of vector ``i`` belongs to channel
    ``order[i, j]`` of the block.
    """

    isa: Isa
    size: int
    order: NDArray[np.int64]

    @property
    def vectors(self) -> int:
        """How many hold the block's sums."""
        return len(self.order)

    def arrange(self, values: Ints) -> Ints:
        """Numbers of the block's channels in the order of its lanes."""
        return values[self.order.reshape(-1)]

    @abstractmethod
    def pack(self, weight: Int8s) -> Int8s:
        """A block's weights, from (height, width, channels)."""

    @abstractmethod
    def sums(self, e: Emitter, view: Window, w: Buffer, at: Expr, acc: list[list[Buffer]]) -> None:
        """Add the products of every window to the sums of its pixel."""

    @abstractmethod
    def finish(
        self,
        e: Emitter,
        y: Buffer,
        places: Sequence[Expr],
        results: Sequence[list[Expr]],
        limits: Sequence[Expr],
    ) -> None:
        """Add the zero point, clamp, store."""


@dataclass(frozen=True, eq=False)
class Window:
    """Where the windows of a row of pixels lie: ``rows`` start at the first pixel's channels."""

    source: Buffer
    rows: list[Expr]
    pixel_bytes: int
    kernel: Kernel
    pixels: int

    @property
    def columns(self) -> int:
        """Input columns that the windows cover together."""
        return (self.pixels - 1) * self.kernel.stride[1] + self.kernel.window[1]

    def users(self, column: int) -> list[tuple[int, int]]:
        """(pixel, column of its window) of the windows that a column belongs to."""
        step, width = self.kernel.stride[1], self.kernel.window[1]
        return [
            (p, column - p * step) for p in range(self.pixels) if 0 <= column - p * step < width
        ]


class NeonChannels(Channels):
    """Eight channels: products of two taps in int16, then in int32."""

    size = 8
    order = np.arange(8).reshape(2, 4)

    def __init__(self, isa: Neon):
        self.isa, self._neon = isa, isa

    def pack(self, weight: Int8s) -> Int8s:
        return weight.reshape(-1)

    def sums(self, e: Emitter, view: Window, w: Buffer, at: Expr, acc: list[list[Buffer]]) -> None:
        pending: list[tuple[list[Expr], list[Expr]]] = [([], []) for _ in acc]
        step = view.kernel.stride[1]
        height, width = view.kernel.window
        for ky in range(height):
            xs = [
                e.bind(load(view.source, view.rows[ky] + j * view.pixel_bytes, 8), "x")
                if view.users(j)
                else None
                for j in range(view.columns)
            ]
            for kx in range(width):
                tap = e.bind(load(w, at + (ky * width + kx) * 8, 8), "w")
                is_last = (ky, kx) == (height - 1, width - 1)
                for p, sums in enumerate(acc):
                    pending[p][0].append(xs[p * step + kx])
                    pending[p][1].append(tap)
                    if len(pending[p][0]) == 2 or is_last:
                        self._add(e, sums, *pending[p])
                        pending[p] = ([], [])

    def _add(self, e: Emitter, sums: list[Buffer], xs: list[Expr], ws: list[Expr]) -> None:
        product = self._neon.products(e, xs, ws)
        for half, total in zip((low_half, high_half), sums, strict=True):
            wide = convert("int32x4", half("int16x4", product))
            e.store(total, 0, load(total, 0, 4) + wide, 4)

    def finish(
        self,
        e: Emitter,
        y: Buffer,
        places: Sequence[Expr],
        results: Sequence[list[Expr]],
        limits: Sequence[Expr],
    ) -> None:
        self.isa.finish(e, y, list(zip(places, results, strict=True)), limits)


def _unpacked(a: Expr, b: Expr, lanes: int, per_lane: int, is_high: bool) -> Expr:
    """``vpunpckl`` or ``vpunpckh``: elements of a and b by turns, within each 128 bits."""
    half = per_lane // 2
    indices = []
    for start in range(0, lanes, per_lane):
        first = start + (half if is_high else 0)
        for i in range(first, first + half):
            indices += [i, lanes + i]
    return tirx.Shuffle([a, b], indices)


class _X86Channels(Channels):
    """``together`` rows of a column in each int32 of one dot product."""

    together: int

    def __init__(self, isa: Isa):
        self.isa = isa
        self.size = self.together * isa.lanes
        # what unpacking within 128 bits leaves of the order
        dword = np.arange(isa.lanes)
        self.order = np.stack(
            [
                dword // 4 * 4 * self.together + vector * 4 + dword % 4
                for vector in range(self.together)
            ]
        )

    def pack(self, weight: Int8s) -> Int8s:
        height, width, _ = weight.shape
        groups = ceil(height / self.together)
        rows = np.zeros((groups * self.together, width, self.size), dtype=np.int8)
        rows[:height] = weight
        # (group, column, vector, lane, row of the group)
        grouped = rows.reshape(-1, self.together, width, self.size)[..., self.order]
        return np.ascontiguousarray(grouped.transpose(0, 2, 3, 4, 1)).reshape(-1)

    def sums(self, e: Emitter, view: Window, w: Buffer, at: Expr, acc: list[list[Buffer]]) -> None:
        height, width = view.kernel.window
        lanes, together = self.isa.lanes, self.together
        for column in range(view.columns):
            users = view.users(column)
            if not users:
                continue
            rows = [
                self.row(e, load(view.source, row + column * view.pixel_bytes, self.size))
                for row in view.rows
            ]
            for group in range(ceil(height / together)):
                # the weights of rows beyond the last are zero
                several = [rows[min(together * group + i, height - 1)] for i in range(together)]
                for q, x in enumerate(self.interleaved(e, several)):
                    for p, kx in users:
                        place = at + ((group * width + kx) * together + q) * self.size
                        total = load(acc[p][q], 0, lanes)
                        total = self.dot(total, x, load(w, place, self.size))
                        e.store(acc[p][q], 0, total, lanes)

    @abstractmethod
    def row(self, e: Emitter, stored: Expr) -> Expr:
        """Stored inputs as they are multiplied."""

    @abstractmethod
    def interleaved(self, e: Emitter, rows: list[Expr]) -> Iterable[Expr]:
        """Vectors whose int32 hold one channel's values of all rows, in the order of sums."""

    @abstractmethod
    def dot(self, total: Expr, x: Expr, weights: Expr) -> Expr:
        """``total`` plus the products of an interleaved vector with stored weights."""


class VnniChannels(_X86Channels):
    """Four rows of a column in each int32, ``vpdpbusd``: 64, 32 or 16 channels."""

    together = 4

    def __init__(self, lanes: int):
        self._vnni = Vnni(lanes)
        super().__init__(self._vnni)

    def row(self, e: Emitter, stored: Expr) -> Expr:
        # with the offset that makes it unsigned
        flip = splat(tirx.IntImm("int8", -128), self.size)
        return e.bind(tirx.bitwise_xor(stored, flip), "x")

    def dot(self, total: Expr, x: Expr, weights: Expr) -> Expr:
        return self._vnni.dot(total, x, weights)

    def interleaved(self, e: Emitter, rows: list[Expr]) -> list[Expr]:
        size, out = self.size, []
        for is_high in (False, True):
            first = e.bind(_unpacked(rows[0], rows[1], size, 16, is_high), "u")
            second = e.bind(_unpacked(rows[2], rows[3], size, 16, is_high), "u")
            pairs = [bits(f"int16x{size // 2}", v) for v in (first, second)]
            for upper in (False, True):
                words = _unpacked(pairs[0], pairs[1], size // 2, 8, upper)
                out.append(e.bind(bits(f"int8x{size}", words), "u"))
        return out

    def finish(
        self,
        e: Emitter,
        y: Buffer,
        places: Sequence[Expr],
        results: Sequence[list[Expr]],
        limits: Sequence[Expr],
    ) -> None:
        size, width = self.size, 32 * self.isa.lanes
        names = {512: "avx512.{}.512", 256: "avx2.{}", 128: "sse2.{}.128"}
        name = "llvm.x86." + names[width]
        zero = splat(convert("int16", limits[0]), size // 2)
        low, high = (splat(convert("int8", limit), size) for limit in limits[1:])
        for place, values in zip(places, results, strict=True):
            words = []
            for a, b in zip(values[::2], values[1::2], strict=True):
                word = instruction(f"int16x{size // 2}", name.format("packssdw"), a, b)
                sat = f"llvm.sadd.sat.v{size // 2}i16"
                words.append(instruction(f"int16x{size // 2}", sat, word, zero))
            packed = instruction(f"int8x{size}", name.format("packsswb"), *words)
            e.store(y, place, smaller(larger(packed, low), high), size)


class MaddChannels(_X86Channels):
    """Two rows of a column in each int32, ``vpmaddwd``: 32 or 16 channels."""

    together = 2

    def __init__(self, lanes: int):
        self._madd = Madd(lanes)
        super().__init__(self._madd)

    def row(self, e: Emitter, stored: Expr) -> Expr:
        return e.bind(convert(f"int16x{self.size}", stored))

    def interleaved(self, e: Emitter, rows: list[Expr]) -> Iterator[Expr]:
        first, second = rows
        # one at a time: its products are written before the next one takes registers
        for is_high in (False, True):
            yield e.bind(_unpacked(first, second, self.size, 8, is_high), "u")

    def dot(self, total: Expr, x: Expr, weights: Expr) -> Expr:
        return total + self._madd.pairs(x, convert(f"int16x{self.size}", weights))

    def finish(
        self,
        e: Emitter,
        y: Buffer,
        places: Sequence[Expr],
        results: Sequence[list[Expr]],
        limits: Sequence[Expr],
    ) -> None:
        size, name = self.size, "llvm.x86.avx512.packssdw.512"
        if self.isa.lanes == 8:
            name = "llvm.x86.avx2.packssdw"
        zero, low, high = (splat(convert("int16", limit), size) for limit in limits)
        for place, values in zip(places, results, strict=True):
            word = instruction(f"int16x{size}", name, *values)
            word = instruction(f"int16x{size}", f"llvm.sadd.sat.v{size}i16", word, zero)
            e.store(y, place, convert(f"int8x{size}", smaller(larger(word, low), high)), size)
