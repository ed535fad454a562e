"""What convolutions in float32 share: register tiles of output pixels times channels, and the walk
of such tiles over an image, channels innermost.

Weights are packed so that one group's taps follow each other in the order in which they are read.
Tiles at the left and right border leave out the taps that are outside, and so do rows at the top
and bottom: no padding is written anywhere, and no tile asks where it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, load
from edgeofa.backends.tvm.float_finish import activate
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.sweep import Band, Group, Place, channel_groups
from edgeofa.backends.tvm.templates import Call, Config, Template
from edgeofa.graph.ir import Array

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


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
        """Output pixels side by side."""
        return self.place.run.pixels

    @property
    def depth_step(self) -> int:
        """Input channels of a pixel that one load brings."""
        return self.machine.lanes(4) if self.machine.lane_multiply else 1

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


class TiledConvolution(Template):
    """What both convolutions share: the walk over the image, bias and activation."""

    kinds: tuple[str, ...]
    reads_beyond = False

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:  # noqa: ARG002 - any machine
        return kernel.dtype == "float32" and kernel.kind in self.kinds

    def pixel_choices(self, machine: Machine) -> tuple[int, ...]:
        """Values of the knob ``pixels``: each takes a sum and an input at least, and weights need
        registers too."""
        return tuple(range(1, 15 if machine.registers == 32 else 8))

    def groups(self, kernel: Kernel, machine: Machine, config: Config) -> tuple[Group, ...]:
        """The output channels, as the register tiles take them."""
        return channel_groups(kernel.output[2], machine.lanes(4), int(config["vectors"]))

    @abstractmethod
    def weight_count(self, kernel: Kernel) -> int:
        """Weights of one output channel."""

    @abstractmethod
    def taps(self, weight: Array) -> Array:
        """The weights of one output channel in each column."""

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
    ) -> PrimFunc:
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

    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:
        weight, bias = call.op.linear
        taps = self.taps(weight)
        parts = [
            taps[:, first : first + group.channels].ravel()
            for group in self.groups(call.kernel, machine, config)
            for first in range(
                group.first, group.first + group.repeats * group.channels, group.channels
            )
        ]
        return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32), bias
