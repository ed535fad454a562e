"""Convolutions in float32: register tiles of output pixels times channels, channels innermost.

Weights are packed so that one group's taps follow each other in the order in which they are read.
Tiles at the left and right border leave out the taps that are outside, and so do rows at the top
and bottom: no padding is written anywhere, and no tile asks where it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, lane, load
from edgeofa.backends.tvm.float_finish import activate
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.sweep import Band, Group, Place, channel_groups, flat_bands, row_bands
from edgeofa.backends.tvm.templates import Call, Config, Knobs, Template
from edgeofa.graph.ir import Array

#: a loop over so few inputs is written out
_UNROLLED = 16
#: a prefetcher follows no more sequences of cache lines than these
_STREAMS = 31
_PANELS_KB = (4, 8, 16, 32, 64, 4096)


class _FloatConvolution(Template):
    """What both convolutions share: the walk over the image, bias and activation."""

    kinds: tuple[str, ...]
    reads_beyond = False

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:  # noqa: ARG002 - any machine
        return kernel.dtype == "float32" and kernel.kind in self.kinds

    def groups(self, kernel: Kernel, machine: Machine, config: Config) -> tuple[Group, ...]:
        return channel_groups(kernel.output[2], machine.lanes(4), int(config["vectors"]))

    @abstractmethod
    def weight_count(self, kernel: Kernel) -> int:
        """Weights of one output channel."""

    @abstractmethod
    def bands(self, kernel: Kernel, machine: Machine, config: Config) -> tuple[Band, ...]:
        """How the image is walked over."""

    @abstractmethod
    def accumulate(self, tile: Tile) -> None:
        """Add a tile's products to its accumulators."""

    def function(
        self,
        kernel: Kernel,
        machine: Machine,
        config: Config,
        statics: tuple[int, ...],  # noqa: ARG002
        name: str,
    ) -> Any:
        e = Emitter()
        channels = kernel.output[2]
        x = e.parameter("x", prod(kernel.input), "float32")
        other = None
        if kernel.residual is not None:
            other = e.parameter("other", prod(kernel.output), "float32")
        w = e.parameter("w", self.weight_count(kernel) * channels, "float32")
        bias = e.parameter("bias", channels, "float32")
        y = e.parameter("y", prod(kernel.output), "float32")
        groups = self.groups(kernel, machine, config)

        def write(band: Band, group: Group, repeat: Expr, place: Place) -> None:
            first = e.value(group.first + repeat * group.channels)
            line, column = place.line, place.column
            start_in = band.first_in + line * band.step_in + column * kernel.stride[1]
            start_out = band.first_out + line * band.step_out + column
            tile = Tile(
                e,
                kernel,
                machine,
                config,
                group,
                place,
                x=x,
                w=w,
                source=e.value(start_in * kernel.input[2]),
                weights=e.value(first * self.weight_count(kernel)),
                first=first,
            )
            tile.begin(bias)
            self.accumulate(tile)
            tile.finish(y, other, e.value(start_out * channels + first))

        for band in self.bands(kernel, machine, config):
            with e.loop(band.panels, "panel") as panel:
                if config["inner"] == "channels":
                    for place in band.places(e, kernel, panel):
                        for group in groups:
                            with e.loop(group.repeats, "group") as repeat:
                                write(band, group, repeat, place)
                else:
                    for group in groups:
                        with e.loop(group.repeats, "group") as repeat:
                            for place in band.places(e, kernel, panel):
                                write(band, group, repeat, place)
        return e.function(name)


class Tile:
    """A few output pixels of one channel group, whose sums are in registers.

    Attributes:
        source: index of the first pixel's first input channel under the first tap.
        weights: index of the group's first weight.
        first: the group's first output channel.
    """

    def __init__(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,
        config: Config,
        group: Group,
        place: Place,
        *,
        x: Buffer,
        w: Buffer,
        source: Expr,
        weights: Expr,
        first: Expr,
    ):
        self.e, self.kernel, self.machine, self.config = e, kernel, machine, config
        self.group, self.place = group, place
        self.x, self.w = x, w
        self.source, self.weights, self.first = source, weights, first
        # a buffer for each: what is larger than 1 KiB would be taken from the heap
        self._sums = {(p, at): e.local(n, "float32") for p, at, n in self.sums()}

    @property
    def pixels(self) -> int:
        return self.place.run.pixels

    @contextmanager
    def kernel_rows(self) -> Iterator[Expr]:
        """A loop over the kernel rows that are inside the image."""
        with self.e.loop(self.place.taps, "ky") as ky:
            yield self.e.value(ky + self.place.tap)

    def under(self, column: int) -> list[tuple[int, int]]:
        """(pixel, kernel column) that see an input column, counted from the tile's first tap."""
        run, stride, width = self.place.run, self.kernel.stride[1], self.kernel.window[1]
        if not run.low <= column < run.high:
            return []
        taps = [(pixel, column - pixel * stride) for pixel in range(run.pixels)]
        return [(pixel, tap) for pixel, tap in taps if 0 <= tap < width]

    def sums(self) -> list[tuple[int, int, int]]:
        """(pixel, first channel in the group, width) of every accumulator."""
        return [(p, at, n) for p in range(self.pixels) for at, n in self.group.vectors()]

    def begin(self, bias: Buffer) -> None:
        """Every sum starts with its channel's bias."""
        biases = {
            at: self.e.bind(load(bias, self.first + at, width))
            for at, width in self.group.vectors()
        }
        for pixel, at, width in self.sums():
            self.e.store(self._sums[pixel, at], 0, biases[at], width)

    def add(self, pixel: int, at: int, width: int, product: Expr) -> None:
        """Add to one accumulator."""
        total = self._sums[pixel, at]
        self.e.store(total, 0, load(total, 0, width) + product, width)

    def pixel(self, number: int, row: int | Expr = 0, column: int | Expr = 0) -> Expr:
        """Index of the first input channel under a tap of a pixel of the tile."""
        kernel = self.kernel
        offset = row * kernel.input[1] + column + number * kernel.stride[1]
        return self.source + offset * kernel.input[2]

    def finish(self, y: Buffer, other: Buffer | None, target: Expr) -> None:
        """Activate, add the residual, store."""
        kernel, channels = self.kernel, self.kernel.output[2]
        for pixel, at, width in self.sums():
            value = load(self._sums[pixel, at], 0, width)
            value = activate(value, kernel.activation, width)
            place = target + (pixel * channels + at)
            if other is not None and kernel.residual is not None:
                value = activate(value + load(other, place, width), kernel.residual, width)
            self.e.store(y, place, value, width)


class FloatConv(_FloatConvolution):
    """Convolution and fully connected layer.

    Knobs: ``pixels`` and ``vectors`` are the register tile, ``panel`` how many kB of input and
    output a panel may hold, ``depth`` how many steps over the input channels are written out,
    ``inner`` whether a panel's tiles or its channel groups are the inner loop.
    """

    kinds = ("conv2d", "fully_connected")

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002
        return {
            "pixels": tuple(range(1, 15 if machine.registers == 32 else 8)),
            "vectors": (1, 2, 3, 4, 6),
            "panel": _PANELS_KB,
            "depth": (1, 2, 4),
            "inner": ("tiles", "channels"),
        }

    def default(self, kernel: Kernel, machine: Machine) -> Config:
        lanes, columns = machine.lanes(4), _line(kernel)
        needed = -(-kernel.output[2] // lanes)
        # the end of one tile and the beginning of the next overlap only where both are short
        terms = self.weight_count(kernel)
        sums = machine.registers
        if machine.lane_multiply and terms < 64:
            sums = 8 if terms <= 16 else 16
        best: tuple[float, int, int] | None = None
        knobs = self.knobs(kernel, machine)
        for vectors in (v for v in knobs["vectors"] if isinstance(v, int)):
            for pixels in (p for p in knobs["pixels"] if isinstance(p, int)):
                tile = min(pixels, columns)
                # weights, and (with lanes) the inputs, are in registers beside the sums
                spare = vectors + (tile if machine.lane_multiply else 1)
                if vectors > needed or tile * vectors + spare > machine.registers:
                    continue
                if tile * vectors > sums or tile > sums // 2:
                    continue
                loads = 1 / tile + (0.25 if machine.lane_multiply else 0.5) / vectors
                waste = (-(-columns // tile) * tile / columns) * (
                    -(-needed // vectors) * vectors / needed
                )
                few = max(1.0, 8 / (tile * vectors))
                score = (1 + loads) * waste * few
                if best is None or score < best[0]:
                    best = (score, pixels, vectors)
        _, pixels, vectors = best or (0.0, 1, 1)
        # weights that stay in the first-level cache are read for every tile, others for every panel
        weights = 4 * self.weight_count(kernel) * kernel.output[2]
        inner = "channels" if weights <= machine.l1_bytes * 3 // 4 else "tiles"
        return {"pixels": pixels, "vectors": vectors, "panel": 16, "depth": 1, "inner": inner}

    def weight_count(self, kernel: Kernel) -> int:
        return prod(kernel.window) * kernel.input[2]

    def bands(self, kernel: Kernel, machine: Machine, config: Config) -> tuple[Band, ...]:  # noqa: ARG002
        size = int(config["panel"]) * 1024 // (4 * (kernel.input[2] + kernel.output[2]))
        pixels = min(int(config["pixels"]), _line(kernel))
        if _is_flat(kernel):
            return flat_bands(_line(kernel), pixels, max(1, size // pixels))
        return row_bands(kernel, pixels, max(1, size // (kernel.input[1] * kernel.stride[0])))

    def accumulate(self, tile: Tile) -> None:
        e, kernel, group = tile.e, tile.kernel, tile.group
        depth = kernel.input[2]
        step = tile.machine.lanes(4) if tile.machine.lane_multiply else 1
        step *= int(tile.config["depth"])
        run, columns = tile.place.run, kernel.window[1]
        is_inside = (run.low, run.high) == (0, (run.pixels - 1) * kernel.stride[1] + columns)

        def products(ky: Expr, kx: int | Expr, pixels: list[int]) -> None:
            tap = (ky * columns + kx) * (depth * group.channels)
            taps = e.value(tile.weights + tap)
            starts = {p: e.value(tile.pixel(p, ky, kx)) for p in pixels}
            whole = depth // step if depth > _UNROLLED else 0
            if whole:
                with e.loop(whole, "c") as c:
                    _products(tile, starts, taps, c * step, step)
            if whole * step < depth:
                _products(tile, starts, taps, whole * step, depth - whole * step)

        with tile.kernel_rows() as ky:
            if is_inside:
                with e.loop(columns, "kx") as kx:
                    products(ky, kx, list(range(run.pixels)))
            else:
                for kx in range(columns):
                    at = {p: p * kernel.stride[1] + kx for p in range(run.pixels)}
                    pixels = [p for p, column in at.items() if run.low <= column < run.high]
                    if pixels:
                        products(ky, kx, pixels)

    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:
        weight, bias = call.op.linear
        matrix = weight.reshape(weight.shape[0], -1).T
        groups = self.groups(call.kernel, machine, config)
        return _packed(matrix, groups), bias


def _products(
    tile: Tile, starts: dict[int, Expr], taps: Expr, first: int | Expr, count: int
) -> None:
    """Products of ``count`` input channels, from ``first`` on, with their weights."""
    e, group = tile.e, tile.group
    lanes = tile.machine.lanes(4) if tile.machine.lane_multiply else 1
    done = 0
    while done < count:
        width = min(lanes, count - done)
        while width & (width - 1):
            width &= width - 1
        inputs = {
            pixel: e.bind(load(tile.x, start + (first + done), width))
            for pixel, start in starts.items()
        }
        for part in range(width):
            at = taps + (first + (done + part)) * group.channels
            weights = [
                (offset, n, e.bind(load(tile.w, at + offset, n))) for offset, n in group.vectors()
            ]
            for pixel, value in inputs.items():
                for offset, n, weight in weights:
                    tile.add(pixel, offset, n, lane(value, part, width, n) * weight)
        done += width


class FloatDepthwise(_FloatConvolution):
    """Depthwise convolution: every column of a tile is loaded once for all pixels that it is under.

    Knobs: ``pixels`` and ``vectors`` are the register tile, ``rows`` those of a panel, ``inner``
    whether a panel's tiles or its channel groups are the inner loop.
    """

    kinds = ("depthwise_conv2d",)

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002
        return {
            "pixels": tuple(range(1, 15 if machine.registers == 32 else 8)),
            "vectors": (1, 2, 3, 4),
            "rows": (1, 2, 4, 1024),
            "inner": ("tiles", "channels"),
        }

    def default(self, kernel: Kernel, machine: Machine) -> Config:
        width, lanes = kernel.output[1], machine.lanes(4)
        vectors = 2 if kernel.output[2] >= 2 * lanes else 1
        most = min((machine.registers - 4) // (2 * vectors), width)
        fitting = [p for p in range(1, most + 1) if self._streams(kernel, machine, p) <= _STREAMS]
        inner = "channels"
        if max(fitting, default=0) < min(3, width):
            # whole cache lines of a few channels, then
            inner, vectors = "tiles", max(1, min(64 // (4 * lanes), kernel.output[2] // lanes))
            fitting = list(range(1, min(4, most) + 1))
        # as few pixels as possible in a last tile that is not full, then as large as possible
        large = [p for p in fitting if p >= max(fitting) // 2]
        pixels = min(large, key=lambda p: (-width % p, -p))
        return {"pixels": pixels, "vectors": vectors, "rows": 1024, "inner": inner}

    def _streams(self, kernel: Kernel, machine: Machine, pixels: int) -> int:
        """Sequences of cache lines that are fetched or written at a time, if a tile's channels are
        walked over: one for each input column and row that is not in the first-level cache yet."""
        height, columns = kernel.window
        channels = kernel.output[2]
        near = 4 * (height * kernel.input[1] + prod(kernel.window)) * channels
        rows = kernel.stride[0] if near <= machine.l1_bytes else height
        wide = min((pixels - 1) * kernel.stride[1] + columns, kernel.input[1])
        return rows * wide + pixels

    def weight_count(self, kernel: Kernel) -> int:
        return prod(kernel.window)

    def bands(self, kernel: Kernel, machine: Machine, config: Config) -> tuple[Band, ...]:  # noqa: ARG002
        pixels = min(int(config["pixels"]), kernel.output[1])
        return row_bands(kernel, pixels, int(config["rows"]))

    def accumulate(self, tile: Tile) -> None:
        e, kernel, group = tile.e, tile.kernel, tile.group
        width, depth = kernel.window[1], kernel.input[2]
        with tile.kernel_rows() as ky:
            taps = e.value(tile.weights + ky * (width * group.channels))
            start = e.value(tile.pixel(0, ky) + tile.first)
            for offset, n in group.vectors():
                weights = [
                    e.bind(load(tile.w, taps + (kx * group.channels + offset), n))
                    for kx in range(width)
                ]
                for column in range(tile.place.run.high):
                    under = tile.under(column)
                    if not under:
                        continue
                    value = e.bind(load(tile.x, start + (column * depth + offset), n))
                    for pixel, kx in under:
                        tile.add(pixel, offset, n, value * weights[kx])

    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:
        weight, bias = call.op.linear
        matrix = weight.reshape(-1, weight.shape[3])
        return _packed(matrix, self.groups(call.kernel, machine, config)), bias


def _is_flat(kernel: Kernel) -> bool:
    return kernel.window == (1, 1) and kernel.stride == (1, 1) and not any(kernel.pads)


def _line(kernel: Kernel) -> int:
    """Output pixels in a row, or in all where rows do not matter."""
    height, width = kernel.output[:2]
    return height * width if _is_flat(kernel) else width


def _packed(matrix: Array, groups: Sequence[Group]) -> Array:
    """Weights (taps, channels) group by group, one repeat after the other."""
    parts = []
    for group in groups:
        for repeat in range(group.repeats):
            first = group.first + repeat * group.channels
            parts.append(matrix[:, first : first + group.channels].ravel())
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


TEMPLATES: tuple[Template, ...] = (FloatConv(), FloatDepthwise())
