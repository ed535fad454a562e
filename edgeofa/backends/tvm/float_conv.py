"""Dense convolutions and fully connected layers in float32."""

from __future__ import annotations

from math import prod

from edgeofa.backends.tvm.emit import Expr, lane, load, pieces
from edgeofa.backends.tvm.float_tile import Tile, TiledConvolution
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.sweep import Band, flat_bands, row_bands
from edgeofa.backends.tvm.templates import Config, Knobs, Template
from edgeofa.graph.ir import Array

#: a loop over so few inputs is written out
_UNROLLED = 16
#: up to twice a usual first-level cache, and what makes any image one panel
_PANELS_KB = (4, 8, 16, 32, 64, 4096)


class FloatConv(TiledConvolution):
    """Convolution and fully connected layer.

    Knobs: ``pixels`` and ``vectors`` are the register tile, ``panel`` how many kB of input and
    output a panel may hold, ``depth`` how many steps over the input channels are written out,
    ``inner`` whether a panel's tiles or its channel groups are the inner loop.
    """

    kinds = ("conv2d", "fully_connected")

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002
        return {
            "pixels": self.pixel_choices(machine),
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

    def taps(self, weight: Array) -> Array:
        return weight.reshape(weight.shape[0], -1).T

    def bands(self, kernel: Kernel, machine: Machine, config: Config) -> tuple[Band, ...]:  # noqa: ARG002
        size = int(config["panel"]) * 1024 // (4 * (kernel.input[2] + kernel.output[2]))
        pixels = min(int(config["pixels"]), _line(kernel))
        if kernel.is_flat:
            return flat_bands(_line(kernel), pixels, max(1, size // pixels))
        return row_bands(kernel, pixels, max(1, size // (kernel.input[1] * kernel.stride[0])))

    def accumulate(self, tile: Tile) -> None:
        e, kernel, group = tile.e, tile.kernel, tile.group
        depth = kernel.input[2]
        step = tile.depth_step * int(tile.config["depth"])
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


def _products(
    tile: Tile, starts: dict[int, Expr], taps: Expr, first: int | Expr, count: int
) -> None:
    """Products of ``count`` input channels, from ``first`` on, with their weights."""
    e, group = tile.e, tile.group
    for done, width in pieces(count, tile.depth_step):
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


def _line(kernel: Kernel) -> int:
    """Output pixels in a row, or in all where rows do not matter."""
    height, width = kernel.output[:2]
    return height * width if kernel.is_flat else width


TEMPLATES: tuple[Template, ...] = (FloatConv(),)
