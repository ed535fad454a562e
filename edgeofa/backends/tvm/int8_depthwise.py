"""int8 depthwise convolutions: channels in vectors, a row of output pixels at a time.

Arm sums two products of int8 in int16 before they are widened. x86 interleaves the rows of a
column, so that one dot product adds up to four rows of a window; the order of channels that this
makes is undone where results are packed, and weights are packed in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.tirx import PrimFunc

from edgeofa.backends.tvm.emit import (
    Buffer,
    Emitter,
    Expr,
    constant,
    convert,
    high_half,
    instruction,
    larger,
    load,
    low_half,
    smaller,
    splat,
)
from edgeofa.backends.tvm.int8_band import advance, band_bytes, make_band
from edgeofa.backends.tvm.int8_constants import HEADER, Header
from edgeofa.backends.tvm.int8_isa import Ints, Isa, Madd, Mode, Neon, Vnni
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


class VnniChannels(Channels):
    """Four rows of a column in each int32, ``vpdpbusd``: 64, 32 or 16 channels."""

    def __init__(self, lanes: int):
        self.isa = self._vnni = Vnni(lanes)
        self.size = 4 * lanes
        dword = np.arange(lanes)
        self.order = np.stack([dword // 4 * 16 + q * 4 + dword % 4 for q in range(4)])

    def pack(self, weight: Int8s) -> Int8s:
        height, width, _ = weight.shape
        rows = np.zeros((ceil(height / 4) * 4, width, self.size), dtype=np.int8)
        rows[:height] = weight
        # (group, column, vector, lane, row of the group)
        grouped = rows.reshape(-1, 4, width, self.size)[..., self.order]
        return np.ascontiguousarray(grouped.transpose(0, 2, 3, 4, 1)).reshape(-1)

    def sums(self, e: Emitter, view: Window, w: Buffer, at: Expr, acc: list[list[Buffer]]) -> None:
        height, width = view.kernel.window
        lanes = self.isa.lanes
        for column in range(view.columns):
            users = view.users(column)
            if not users:
                continue
            rows = [self._row(e, view, ky, column) for ky in range(height)]
            for group in range(ceil(height / 4)):
                four = [rows[min(4 * group + i, height - 1)] for i in range(4)]
                for q, x in enumerate(self._interleaved(e, four)):
                    for p, kx in users:
                        place = at + ((group * width + kx) * 4 + q) * self.size
                        total = self._vnni.dot(
                            load(acc[p][q], 0, lanes), x, load(w, place, self.size)
                        )
                        e.store(acc[p][q], 0, total, lanes)

    def _row(self, e: Emitter, view: Window, ky: int, column: int) -> Expr:
        stored = load(view.source, view.rows[ky] + column * view.pixel_bytes, self.size)
        flip = splat(tirx.IntImm("int8", -128), self.size)
        return e.bind(tirx.bitwise_xor(stored, flip), "x")

    def _interleaved(self, e: Emitter, rows: list[Expr]) -> list[Expr]:
        """Four vectors whose int32 are one channel's four rows."""
        size, out = self.size, []
        for is_high in (False, True):
            first = e.bind(_unpacked(rows[0], rows[1], size, 16, is_high), "u")
            second = e.bind(_unpacked(rows[2], rows[3], size, 16, is_high), "u")
            pairs = [tirx.reinterpret(f"int16x{size // 2}", v) for v in (first, second)]
            for upper in (False, True):
                words = _unpacked(pairs[0], pairs[1], size // 2, 8, upper)
                out.append(e.bind(tirx.reinterpret(f"int8x{size}", words), "u"))
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
            e.store(y, place, tirx.Min(tirx.Max(packed, low), high), size)


class MaddChannels(Channels):
    """Two rows of a column in each int32, ``vpmaddwd``: 32 or 16 channels."""

    def __init__(self, lanes: int):
        self.isa = self._madd = Madd(lanes)
        self.size = 2 * lanes
        dword = np.arange(lanes)
        self.order = np.stack([dword // 4 * 8 + q * 4 + dword % 4 for q in range(2)])

    def pack(self, weight: Int8s) -> Int8s:
        height, width, _ = weight.shape
        rows = np.zeros((ceil(height / 2) * 2, width, self.size), dtype=np.int8)
        rows[:height] = weight
        grouped = rows.reshape(-1, 2, width, self.size)[..., self.order]
        return np.ascontiguousarray(grouped.transpose(0, 2, 3, 4, 1)).reshape(-1)

    def sums(self, e: Emitter, view: Window, w: Buffer, at: Expr, acc: list[list[Buffer]]) -> None:
        height, width = view.kernel.window
        lanes, wide = self.isa.lanes, f"int16x{self.size}"
        for column in range(view.columns):
            users = view.users(column)
            if not users:
                continue
            rows = [
                e.bind(convert(wide, load(view.source, row + column * view.pixel_bytes, self.size)))
                for row in view.rows
            ]
            for group in range(ceil(height / 2)):
                a, b = (rows[min(2 * group + i, height - 1)] for i in range(2))
                for q in range(2):
                    x = e.bind(_unpacked(a, b, self.size, 8, q == 1), "u")
                    for p, kx in users:
                        place = at + ((group * width + kx) * 2 + q) * self.size
                        weights = convert(wide, load(w, place, self.size))
                        total = load(acc[p][q], 0, lanes) + self._madd.pairs(x, weights)
                        e.store(acc[p][q], 0, total, lanes)

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


@dataclass(frozen=True, eq=False)
class Run:
    """``count`` equal blocks of channels from ``start`` on; the first is block ``first``."""

    channels: Channels
    start: int
    count: int
    first: int


def _sizes(isa: Isa) -> list[Channels]:
    """Blocks that a machine has, the widest first."""
    if isinstance(isa, Neon):
        return [NeonChannels(isa)]
    if isinstance(isa, Vnni):
        return [VnniChannels(lanes) for lanes in (16, 8, 4) if lanes <= isa.lanes]
    return [MaddChannels(lanes) for lanes in (16, 8) if lanes <= isa.lanes]


def runs(kernel: Kernel, isa: Isa) -> list[Run]:
    """All channels in blocks; the last block is moved back to end with the last channel."""
    count = kernel.output[-1]
    found: list[Run] = []
    start = blocks = 0
    sizes = _sizes(isa)
    for channels in sizes:
        whole = (count - start) // channels.size
        if whole:
            found.append(Run(channels, start, whole, blocks))
            start, blocks = start + whole * channels.size, blocks + whole
    if start < count:
        least = sizes[-1]
        found.append(Run(least, max(count - least.size, 0), 1, blocks))
    return found


def pixel_bytes(kernel: Kernel, isa: Isa) -> int:
    """Bytes of a pixel as it is read: at least a whole block."""
    return max(kernel.output[-1], _sizes(isa)[-1].size)


def is_copied(kernel: Kernel, isa: Isa) -> bool:
    """Rows are copied with their padding first."""
    return any(kernel.pads) or pixel_bytes(kernel, isa) != kernel.output[-1]


def scratch_bytes(kernel: Kernel, isa: Isa) -> int:
    """Memory for copied rows."""
    return band_bytes(kernel, pixel_bytes(kernel, isa)) if is_copied(kernel, isa) else 0


def _block(values: NDArray[Any], run: Run, number: int) -> NDArray[Any]:
    """A block's part of an array whose last axis is channels, zeros beyond the last one."""
    size = run.channels.size
    start = run.start + number * size
    out = np.zeros((*values.shape[:-1], size), dtype=values.dtype)
    part = values[..., start : start + size]
    out[..., : part.shape[-1]] = part
    return out


def pack_weights(kernel: Kernel, isa: Isa, weight: Int8s) -> Int8s:
    """Weights in the order that they are read; ``weight`` is (height, width, channels)."""
    parts = [
        run.channels.pack(_block(weight, run, i))
        for run in runs(kernel, isa)
        for i in range(run.count)
    ]
    return np.concatenate(parts)


def pack_constants(
    kernel: Kernel, isa: Isa, bias: Ints, multiplier: Ints, shift: Ints, mode: Mode
) -> NDArray[np.int32]:
    """Bias and rescaling of every block."""
    arrays = [bias, *isa.constants(multiplier, shift, mode)]
    parts = [
        run.channels.arrange(_block(array, run, i))
        for run in runs(kernel, isa)
        for i in range(run.count)
        for array in arrays
    ]
    return np.concatenate(parts).astype(np.int32)


def build(
    kernel: Kernel, isa: Isa, config: Mapping[str, int | str], mode: Mode, name: str
) -> PrimFunc:
    """The function: (input, weights, constants, [scratch], output)."""
    e = Emitter()
    channels, width = kernel.output[-1], kernel.output[-2]
    pixels = min(int(config["pixels"]), width)
    bytes_of_pixel = pixel_bytes(kernel, isa)
    all_runs = runs(kernel, isa)
    weights = [
        run.channels.pack(np.zeros((*kernel.window, run.channels.size), np.int8)).size
        for run in all_runs
    ]
    arrays = 1 + isa.count(mode)
    x = e.parameter("x", prod(kernel.input), "int8")
    size = sum(r.count * n for r, n in zip(all_runs, weights, strict=True))
    w = e.parameter("w", size, "int8")
    total = sum(run.count * run.channels.size for run in all_runs)
    c = e.parameter("c", HEADER + total * arrays, "int32")
    copied = is_copied(kernel, isa)
    scratch = e.parameter("scratch", scratch_bytes(kernel, isa), "int8") if copied else None
    y = e.parameter("y", prod(kernel.output), "int8")
    header = Header(e, isa, c)
    padding = e.bind(header.padding, "padding")
    band = make_band(e, kernel, scratch, padding, bytes_of_pixel) if copied else None
    limits = [e.bind(limit, "limit") for limit in header.limits()]
    with e.loop(kernel.output[-3], "oy") as oy:
        if band is None:
            row_bytes = kernel.input[-2] * channels
            rows = [
                e.bind((oy * kernel.stride[0] + ky) * row_bytes) for ky in range(kernel.window[0])
            ]
        else:
            advance(e, band, kernel, x, padding, oy)
            rows = [band.row(e, oy * kernel.stride[0] + ky) for ky in range(kernel.window[0])]
        weights_at, constants_at = 0, HEADER
        for run, weight_size in zip(all_runs, weights, strict=True):
            block_constants = arrays * run.channels.size
            with e.loop(run.count, "b") as b:
                _write_row(
                    e,
                    kernel,
                    run,
                    mode,
                    pixels,
                    (x if scratch is None else scratch, rows, bytes_of_pixel),
                    (w, weights_at + b * weight_size),
                    (c, constants_at + b * block_constants),
                    (y, oy * width, run.start + b * run.channels.size),
                    limits,
                )
            weights_at += run.count * weight_size
            constants_at += run.count * block_constants
    return e.function(name)


def _write_row(
    e: Emitter,
    kernel: Kernel,
    run: Run,
    mode: Mode,
    pixels: int,
    source: tuple[Buffer, list[Expr], int],
    weights: tuple[Buffer, Expr],
    constants: tuple[Buffer, Expr],
    output: tuple[Buffer, Expr, Expr],
    limits: list[Expr],
) -> None:
    """One block of channels of a row of outputs."""
    block, isa = run.channels, run.channels.isa
    buffer, rows, bytes_of_pixel = source
    y, first_pixel, first_channel = output
    width, channels = kernel.output[-2], kernel.output[-1]
    arrays = 1 + isa.count(mode)
    numbers = [
        [
            e.bind(
                load(constants[0], constants[1] + (i * block.vectors + q) * isa.lanes, isa.lanes)
            )
            for q in range(block.vectors)
        ]
        for i in range(arrays)
    ]

    def tile(ox: Expr, count: int) -> None:
        offset = ox * (kernel.stride[1] * bytes_of_pixel) + first_channel
        starts = [e.bind(row + offset, "row") for row in rows]
        view = Window(buffer, starts, bytes_of_pixel, kernel, count)
        acc = [[e.local(isa.lanes, "int32") for _ in range(block.vectors)] for _ in range(count)]
        for row in acc:
            for q, sums in enumerate(row):
                e.store(sums, 0, numbers[0][q], isa.lanes)
        block.sums(e, view, weights[0], weights[1], acc)
        results = [
            [
                isa.rescale(e, load(sums, 0, isa.lanes), [n[q] for n in numbers[1:]], mode)
                for q, sums in enumerate(row)
            ]
            for row in acc
        ]
        places = [
            e.bind((first_pixel + ox + p) * channels + first_channel, "o") for p in range(count)
        ]
        if channels >= block.size:
            block.finish(e, y, places, results, limits)
            return
        stage = e.local(count * block.size, "int8", "stage")
        inside = [constant(p * block.size) for p in range(count)]
        block.finish(e, stage, inside, results, limits)
        for p, place in enumerate(places):
            for i in range(channels):
                e.store(y, place + i, load(stage, p * block.size + i))

    whole, rest = divmod(width, pixels)
    if whole:
        with e.loop(whole, "t") as t:
            tile(e.bind(t * pixels, "ox"), pixels)
    if rest:
        tile(constant(whole * pixels), rest)
