"""int8 depthwise convolutions: channels in blocks, a row of output pixels at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.tirx import PrimFunc

from edgeofa.backends.tvm.emit import Emitter, Expr, constant, load
from edgeofa.backends.tvm.int8_band import advance, band_bytes, make_band
from edgeofa.backends.tvm.int8_channels import (
    Channels,
    Int8s,
    MaddChannels,
    NeonChannels,
    VnniChannels,
    Window,
)
from edgeofa.backends.tvm.int8_constants import HEADER, Header
from edgeofa.backends.tvm.int8_isa import Ints, Isa, Mode
from edgeofa.backends.tvm.int8_neon import Neon
from edgeofa.backends.tvm.int8_x86 import Vnni
from edgeofa.backends.tvm.kernels import Kernel


@dataclass(frozen=True, eq=False)
class Run:
    """``count`` equal blocks of channels from ``start`` on."""

    channels: Channels
    start: int
    count: int


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
    start = 0
    sizes = _sizes(isa)
    for channels in sizes:
        whole = (count - start) // channels.size
        if whole:
            found.append(Run(channels, start, whole))
            start += whole * channels.size
    if start < count:
        least = sizes[-1]
        found.append(Run(least, max(count - least.size, 0), 1))
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


class _Writer:
    """State of one function that is written."""

    def __init__(self, kernel: Kernel, isa: Isa, pixels: int, mode: Mode):
        self.kernel, self.isa, self.mode = kernel, isa, mode
        self.pixels = min(pixels, kernel.output[-2])
        self.runs = runs(kernel, isa)
        self.arrays = 1 + isa.count(mode)
        self.e = e = Emitter()
        self.x = e.parameter("x", prod(kernel.input), "int8")
        self.w = e.parameter("w", sum(r.count * self._weights(r) for r in self.runs), "int8")
        self.c = e.parameter(
            "c", HEADER + sum(r.count * self._numbers(r) for r in self.runs), "int32"
        )
        self.scratch = None
        if is_copied(kernel, isa):
            self.scratch = e.parameter("scratch", scratch_bytes(kernel, isa), "int8")
        self.y = e.parameter("y", prod(kernel.output), "int8")
        header = Header(e, isa, self.c)
        self.padding = e.bind(header.padding, "padding")
        self.band = None
        if self.scratch is not None:
            self.band = make_band(e, kernel, self.scratch, self.padding, pixel_bytes(kernel, isa))
        self.limits = [e.bind(limit, "limit") for limit in header.limits()]

    def _weights(self, run: Run) -> int:
        """Bytes of a block's weights."""
        empty = np.zeros((*self.kernel.window, run.channels.size), np.int8)
        return run.channels.pack(empty).size

    def _numbers(self, run: Run) -> int:
        """Elements of a block's bias and rescaling."""
        return self.arrays * run.channels.size

    def write(self) -> None:
        """Row by row, and of each row block by block."""
        e = self.e
        with e.loop(self.kernel.output[-3], "oy") as oy:
            rows = self._rows(oy)
            weights, constants = 0, HEADER
            for run in self.runs:
                block_weights, block_constants = self._weights(run), self._numbers(run)
                with e.loop(run.count, "b") as b:
                    self._write_row(
                        run.channels,
                        rows,
                        first_pixel=oy * self.kernel.output[-2],
                        first_channel=run.start + b * run.channels.size,
                        weights=weights + b * block_weights,
                        constants=constants + b * block_constants,
                    )
                weights += run.count * block_weights
                constants += run.count * block_constants

    def _rows(self, oy: Expr) -> list[Expr]:
        """Where the input rows under a row of outputs begin."""
        e, kernel = self.e, self.kernel
        height = kernel.window[0]
        if self.band is None:
            row_bytes = kernel.input[-2] * kernel.input[-1]
            return [e.bind((oy * kernel.stride[0] + ky) * row_bytes) for ky in range(height)]
        advance(e, self.band, kernel, self.x, self.padding, oy)
        return [self.band.row(e, oy * kernel.stride[0] + ky) for ky in range(height)]

    def _write_row(
        self,
        block: Channels,
        rows: list[Expr],
        *,
        first_pixel: Expr,
        first_channel: Expr,
        weights: Expr,
        constants: Expr,
    ) -> None:
        """One block of channels of a row of outputs."""
        e, kernel, isa = self.e, self.kernel, block.isa
        channels, bytes_of_pixel = kernel.output[-1], pixel_bytes(kernel, self.isa)
        source = self.x if self.scratch is None else self.scratch
        numbers = [
            [
                e.bind(load(self.c, constants + (i * block.vectors + q) * isa.lanes, isa.lanes))
                for q in range(block.vectors)
            ]
            for i in range(self.arrays)
        ]

        def tile(ox: Expr, count: int) -> None:
            offset = ox * (kernel.stride[1] * bytes_of_pixel) + first_channel
            starts = [e.bind(row + offset, "row") for row in rows]
            view = Window(source, starts, bytes_of_pixel, kernel, count)
            acc = [
                [e.local(isa.lanes, "int32") for _ in range(block.vectors)] for _ in range(count)
            ]
            for row in acc:
                for q, sums in enumerate(row):
                    e.store(sums, 0, numbers[0][q], isa.lanes)
            block.sums(e, view, self.w, weights, acc)
            results = [
                [
                    isa.rescale(e, load(sums, 0, isa.lanes), [n[q] for n in numbers[1:]], self.mode)
                    for q, sums in enumerate(row)
                ]
                for row in acc
            ]
            places = [
                e.bind((first_pixel + ox + p) * channels + first_channel, "o") for p in range(count)
            ]
            self._store(block, places, results)

        e.tiles(kernel.output[-2], self.pixels, tile, "ox")

    def _store(self, block: Channels, places: list[Expr], results: list[list[Expr]]) -> None:
        """A tile's outputs; of a block that is wider than the image only the channels there are."""
        e, channels = self.e, self.kernel.output[-1]
        if channels >= block.size:
            block.finish(e, self.y, places, results, self.limits)
            return
        stage = e.local(len(places) * block.size, "int8", "stage")
        inside = [constant(p * block.size) for p in range(len(places))]
        block.finish(e, stage, inside, results, self.limits)
        for p, place in enumerate(places):
            for i in range(channels):
                e.store(self.y, place + i, load(stage, p * block.size + i))


def build(
    kernel: Kernel, isa: Isa, config: Mapping[str, int | str], mode: Mode, name: str
) -> PrimFunc:
    """The function: (input, weights, constants, [scratch], output)."""
    writer = _Writer(kernel, isa, int(config["pixels"]), mode)
    writer.write()
    return writer.e.function(name)
