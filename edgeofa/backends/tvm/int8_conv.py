"""int8 convolutions as products of matrices: pointwise from the input itself, others from a tile
of pixels whose windows were copied beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray
from tvm.tirx import PrimFunc

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, constant, load, smaller, splat
from edgeofa.backends.tvm.int8_band import COPY, SLACK, advance, band_bytes, make_band
from edgeofa.backends.tvm.int8_constants import HEADER, Header
from edgeofa.backends.tvm.int8_isa import Ints, Isa, Mode, widen
from edgeofa.backends.tvm.kernels import Kernel

#: chunks of a reduction that stays a loop of its own
_LONG = 5


@dataclass(frozen=True)
class Tiling:
    """How a convolution is cut: ``pixels`` by ``blocks`` of output channels at a time.

    ``depth`` is the reduction as it is computed; ``gathered`` windows are copied first, which
    fills it up to whole chunks. Groups are ``blocks`` blocks; the last blocks are moved back so
    that they end with the last channel (the channels that overlap are computed twice).
    """

    pixels: int
    blocks: int
    groups: int
    depth: int
    channels: int
    block: int
    gathered: bool
    channels_outside: bool

    def start(self, group: int, block: int) -> int:
        """First channel of a block."""
        return min((group * self.blocks + block) * self.block, max(self.channels - self.block, 0))

    @property
    def regular(self) -> bool:
        """No block is moved back."""
        return self.channels == self.groups * self.blocks * self.block


def tiling(kernel: Kernel, isa: Isa, config: Mapping[str, int | str]) -> Tiling:
    """The cut that a configuration means for this kernel."""
    channels = kernel.output[-1]
    depth = prod(kernel.window) * kernel.input[-1]
    gathered = kernel.window != (1, 1) or any(kernel.pads) or depth < isa.least_depth
    if gathered:
        depth = ceil(depth / isa.tail) * isa.tail
    height, width = kernel.output[-3:-1]
    rows = kernel.is_flat and not gathered
    count = ceil(channels / isa.block)
    blocks = min(int(config["blocks"]), count)
    return Tiling(
        pixels=min(int(config["pixels"]), height * width if rows else width),
        blocks=blocks,
        groups=ceil(count / blocks),
        depth=depth,
        channels=channels,
        block=isa.block,
        gathered=gathered,
        channels_outside=rows and config["outer"] == "channels",
    )


def pack_weights(tile: Tiling, isa: Isa, weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights in the order that they are read; ``weight`` is (output channels, reduction)."""
    rows = np.zeros((max(tile.channels, tile.block), tile.depth), dtype=np.int8)
    rows[: len(weight), : weight.shape[1]] = weight
    whole, tails = isa.chunks(tile.depth)
    parts = []
    for group in range(tile.groups):
        blocks = [
            rows[tile.start(group, j) : tile.start(group, j) + tile.block]
            for j in range(tile.blocks)
        ]
        for k in range(whole):
            at = slice(k * isa.chunk, (k + 1) * isa.chunk)
            parts += [isa.pack_chunk(block[:, at]) for block in blocks]
        for place, new in tails:
            for block in blocks:
                piece = block[:, place : place + isa.tail].copy()
                piece[:, : isa.tail - new] = 0
                parts.append(isa.pack_chunk(piece))
    return np.concatenate(parts)


def pack_constants(
    tile: Tiling, isa: Isa, bias: Ints, multiplier: Ints, shift: Ints, mode: Mode
) -> NDArray[np.int32]:
    """Bias and rescaling of every block."""
    parts = []
    arrays = [bias, *isa.constants(multiplier, shift, mode)]
    for group in range(tile.groups):
        for j in range(tile.blocks):
            at = tile.start(group, j)
            for array in arrays:
                part = np.zeros(tile.block, dtype=np.int64)
                piece = array[at : at + tile.block]
                part[: len(piece)] = piece
                parts.append(part)
    return np.concatenate(parts).astype(np.int32)


def patch_bytes(tile: Tiling) -> int:
    """Room for one pixel's window."""
    return ceil(tile.depth / COPY) * COPY


def scratch_bytes(kernel: Kernel, tile: Tiling) -> int:
    """Memory for the band and the tile's windows."""
    if not tile.gathered:
        return 0
    return band_bytes(kernel, kernel.input[-1]) + tile.pixels * patch_bytes(tile) + SLACK


class _Writer:
    """State of one function that is written."""

    def __init__(self, kernel: Kernel, isa: Isa, tile: Tiling, mode: Mode):
        self.kernel, self.isa, self.tile, self.mode = kernel, isa, tile, mode
        self.e = e = Emitter()
        self.x = e.parameter("x", prod(kernel.input), "int8")
        self.other = None
        if kernel.residual is not None:
            self.other = e.parameter("other", prod(kernel.output), "int8")
        per_group = tile.blocks * tile.block * self._packed_depth()
        self.w = e.parameter("w", tile.groups * per_group, "int8")
        self.per_group = per_group
        # where the reduction is short, LLVM unrolls it, and the multiplier is what is busy there
        self.turns = int(isa.chunks(tile.depth)[0] >= _LONG)
        self.arrays = 1 + isa.count(mode)
        size = HEADER + tile.groups * tile.blocks * self.arrays * tile.block
        self.c = e.parameter("c", size, "int32")
        self.scratch = None
        if tile.gathered:
            self.scratch = e.parameter("scratch", scratch_bytes(kernel, tile), "int8")
        self.y = e.parameter("y", prod(kernel.output), "int8")
        self.header = Header(e, isa, self.c)

    def _packed_depth(self) -> int:
        whole, tails = self.isa.chunks(self.tile.depth)
        return whole * self.isa.chunk + len(tails) * self.isa.tail

    def channel(self, group: Expr, block: int) -> Expr:
        """First channel of a block."""
        tile = self.tile
        at = (group * tile.blocks + block) * tile.block
        last = max(tile.channels - tile.block, 0)
        return at if tile.regular else smaller(at, last)

    def write_tile(self, source: Buffer, bases: list[Expr], pixel: Expr, group: Expr) -> None:
        """The outputs of ``pixels`` pixels from ``pixel`` on, for one group of channels."""
        e, isa, tile = self.e, self.isa, self.tile
        vectors = isa.sums * tile.blocks
        acc = [[e.local(isa.lanes, "int32") for _ in range(vectors)] for _ in bases]
        peeled = isa.starts_with_products and isa.chunks(tile.depth)[0] != 2
        if not peeled:
            for row in acc:
                for sums in row:
                    e.store(sums, 0, splat(0, isa.lanes), isa.lanes)
        start = e.bind(group * self.per_group, "wg")
        whole, tails = isa.chunks(tile.depth)
        step = tile.blocks * tile.block * isa.chunk
        done = 0
        if whole and peeled:
            self._chunk(source, acc, bases, constant(0), start, isa.chunk, is_first=True)
            done = 1
        if whole > done:
            with e.loop(whole - done, "k") as k:
                at = start + (k + done) * step
                self._chunk(source, acc, bases, (k + done) * isa.chunk, at, isa.chunk)
        for i, (place, _) in enumerate(tails):
            at = start + whole * step + i * tile.blocks * tile.block * isa.tail
            first = peeled and not whole and i == 0
            self._chunk(source, acc, bases, constant(place), at, isa.tail, is_first=first)
        self._finish(acc, pixel, group)

    def _chunk(
        self,
        source: Buffer,
        acc: list[list[Buffer]],
        bases: list[Expr],
        place: Expr,
        weights_at: Expr,
        size: int,
        *,
        is_first: bool = False,
    ) -> None:
        e, isa = self.e, self.isa
        stride = self.tile.block * size
        ws = [
            isa.weights(e, self.w, weights_at + j * stride, size) for j in range(self.tile.blocks)
        ]
        for row, base in zip(acc, bases, strict=True):
            xs = isa.inputs(e, source, base + place, size)
            for j, mine in enumerate(ws):
                isa.multiply(e, row[j * isa.sums : (j + 1) * isa.sums], xs, mine, is_first)

    def _finish(self, acc: list[list[Buffer]], pixel: Expr, group: Expr) -> None:
        e, isa, tile = self.e, self.isa, self.tile
        channels = self.kernel.output[-1]
        places = [e.bind((pixel + p) * channels, "o") for p in range(len(acc))]
        starts = [self.channel(group, j) for j in range(tile.blocks)]
        staged = channels < tile.block
        results: list[list[Expr]] = [[] for _ in acc]
        for j, start in enumerate(starts):
            at = HEADER + (group * tile.blocks + j) * self.arrays * tile.block
            constants = [
                e.bind(load(self.c, at + i * tile.block, isa.lanes), "c")
                for i in range(self.arrays)
            ]
            for p, row in enumerate(acc):
                (total,) = isa.totals(e, row[j * isa.sums : (j + 1) * isa.sums])
                value = isa.rescale(
                    e, total + constants[0], constants[1:], self.mode, p * self.turns
                )
                if self.other is not None:
                    stored = self._other(places[p] + start, staged)
                    value = self.header.add_residual(value, stored)
                results[p].append(value)
        self._store(results, places, starts, staged)

    def _other(self, place: Expr, staged: bool) -> Expr:
        e, lanes = self.e, self.isa.lanes
        if not staged:
            return widen(load(self.other, place, lanes), lanes)
        stage = e.local(lanes, "int8", "stage")
        for c in range(self.tile.channels):
            e.store(stage, c, load(self.other, place + c))
        return widen(load(stage, 0, lanes), lanes)

    def _store(
        self, results: list[list[Expr]], places: list[Expr], starts: list[Expr], staged: bool
    ) -> None:
        e, isa, tile = self.e, self.isa, self.tile
        limits = self.header.limits()
        if staged:
            stage = e.local(len(results) * tile.block, "int8", "stage")
            isa.finish(
                e, stage, [(constant(p * tile.block), r) for p, r in enumerate(results)], limits
            )
            for p, place in enumerate(places):
                for c in range(tile.channels):
                    e.store(self.y, place + c, load(stage, p * tile.block + c))
        elif tile.regular:
            first = starts[0]
            items = [(e.bind(q + first, "o"), r) for q, r in zip(places, results, strict=True)]
            isa.finish(e, self.y, items, limits)
        else:
            items = [
                (q + start, [value])
                for q, row in zip(places, results, strict=True)
                for start, value in zip(starts, row, strict=True)
            ]
            isa.finish(e, self.y, items, limits)

    # ---- where pixels come from ----

    def write_flat(self) -> None:
        """Pointwise, stride 1: pixels as they lie."""
        tile, pixels = self.tile, prod(self.kernel.output[-3:-1])
        depth = self.kernel.input[-1]

        def body(first: Expr, count: int, group: Expr) -> None:
            self.write_tile(self.x, self._bases(first, count, depth), first, group)

        e = self.e
        if tile.channels_outside:
            with e.loop(tile.groups, "g") as group:
                e.tiles(pixels, tile.pixels, lambda first, count: body(first, count, group))
            return

        def all_groups(first: Expr, count: int) -> None:
            with e.loop(tile.groups, "g") as group:
                body(first, count, group)

        e.tiles(pixels, tile.pixels, all_groups)

    def _bases(self, first: Expr, count: int, stride: int, offset: Expr | int = 0) -> list[Expr]:
        return [self.e.bind(offset + (first + p) * stride, "b") for p in range(count)]

    def write_strided(self) -> None:
        """Pointwise with a stride: pixels of every so many rows and columns."""
        e, kernel, tile = self.e, self.kernel, self.tile
        channels, width_in = kernel.input[-1], kernel.input[-2]
        width = kernel.output[-2]

        with e.loop(kernel.output[-3], "oy") as oy:
            offset = e.bind(oy * (kernel.stride[0] * width_in * channels), "row")

            def body(first: Expr, count: int) -> None:
                bases = self._bases(first, count, kernel.stride[1] * channels, offset)
                with e.loop(tile.groups, "g") as group:
                    self.write_tile(self.x, bases, oy * width + first, group)

            e.tiles(width, tile.pixels, body)

    def write_gathered(self) -> None:
        """Any window: its pixels are copied beside each other, a tile at a time."""
        e, kernel, tile = self.e, self.kernel, self.tile
        width, channels = kernel.output[-2], kernel.input[-1]
        padding = e.bind(self.header.padding, "padding")
        scratch = self.scratch
        band = make_band(e, kernel, scratch, padding, channels)
        stride, patch = patch_bytes(tile), band_bytes(kernel, channels)
        span = kernel.window[1] * channels
        with e.loop(kernel.output[-3], "oy") as oy:
            advance(e, band, kernel, self.x, padding, oy)
            rows = [band.row(e, oy * kernel.stride[0] + ky) for ky in range(kernel.window[0])]

            def body(first: Expr, count: int) -> None:
                for p in range(count):
                    column = (first + p) * (kernel.stride[1] * channels)
                    for ky, row in enumerate(rows):
                        source, to = row + column, patch + p * stride + ky * span
                        # what is copied too much is overwritten, or multiplied with zero
                        for i in range(0, span, COPY):
                            e.store(scratch, to + i, load(scratch, source + i, COPY), COPY)
                bases = [constant(patch + p * stride) for p in range(count)]
                with e.loop(tile.groups, "g") as group:
                    self.write_tile(scratch, bases, oy * width + first, group)

            e.tiles(width, tile.pixels, body)


def build(
    kernel: Kernel, isa: Isa, config: Mapping[str, int | str], mode: Mode, name: str
) -> PrimFunc:
    """The function: (input, [other summand], weights, constants, [scratch], output)."""
    tile = tiling(kernel, isa, config)
    writer = _Writer(kernel, isa, tile, mode)
    write: Callable[[], None]
    if tile.gathered:
        write = writer.write_gathered
    elif kernel.is_flat:
        write = writer.write_flat
    else:
        write = writer.write_strided
    write()
    return writer.e.function(name)
