"""Depthwise convolutions in float32."""

from __future__ import annotations

from math import prod

from edgeofa.backends.tvm.emit import load
from edgeofa.backends.tvm.float_tile import Tile, TiledConvolution
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.sweep import Band, row_bands
from edgeofa.backends.tvm.templates import Config, Knobs, Template
from edgeofa.graph.ir import Array

#: a prefetcher follows no more sequences of cache lines than these
_STREAMS = 31


class FloatDepthwise(TiledConvolution):
    """Depthwise convolution: every column of a tile is loaded once for all pixels that it is under.

    Knobs: ``pixels`` and ``vectors`` are the register tile, ``rows`` those of a panel, ``inner``
    whether a panel's tiles or its channel groups are the inner loop.
    """

    kinds = ("depthwise_conv2d",)

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002
        return {
            "pixels": self.pixel_choices(machine),
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

    def taps(self, weight: Array) -> Array:
        return weight.reshape(-1, weight.shape[3])

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


TEMPLATES: tuple[Template, ...] = (FloatDepthwise(),)
