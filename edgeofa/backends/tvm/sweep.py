"""How a kernel walks over an image: bands of panels of rows of tiles; and over channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeofa.backends.tvm.emit import Emitter, Expr
from edgeofa.backends.tvm.kernels import Kernel


@dataclass(frozen=True)
class Band:
    """Rows that are walked alike.

    Attributes:
        panels: how many times ``rows`` rows come; every channel group walks through one panel
            before the next panel begins, so that a panel's inputs stay in the first-level cache.
        runs: a row's tiles: (how many, pixels each).
        first_in, first_out: pixels before the band, in the input (as the kernel reads it) and in
            the output.
        step_in, step_out: pixels from one row to the next.
    """

    panels: int
    rows: int
    runs: tuple[tuple[int, int], ...]
    first_in: int
    first_out: int
    step_in: int
    step_out: int

    def tiles(self, e: Emitter, panel: Expr) -> Iterator[tuple[Expr, Expr, int]]:
        """(row of the band, column, pixels) of each tile of a panel, inside its loops."""
        with e.loop(self.rows, "row") as row:
            line = e.value(panel * self.rows + row)
            done = 0
            for count, pixels in self.runs:
                with e.loop(count, "tile") as number:
                    yield line, number * pixels + done, pixels
                done += count * pixels


def _runs(width: int, pixels: int) -> tuple[tuple[int, int], ...]:
    tiles, rest = divmod(width, pixels)
    return tuple(run for run in ((tiles, pixels), (1 if rest else 0, rest)) if run[0])


def flat_bands(pixels: int, tile: int, tiles: int) -> tuple[Band, ...]:
    """An image without neighbourhood, as one line cut into panels of ``tiles`` tiles."""
    width = tile * tiles
    panels, rest = divmod(pixels, width)
    bands = []
    if panels:
        bands.append(Band(panels, 1, _runs(width, tile), 0, 0, width, width))
    if rest:
        first = panels * width
        bands.append(Band(1, 1, _runs(rest, tile), first, first, rest, rest))
    return tuple(bands)


def row_bands(kernel: Kernel, tile: int, rows: int) -> tuple[Band, ...]:
    """An image row by row, out of the framed input and into the output with its margin."""
    height, width = kernel.output[:2]
    step_in = kernel.stride[0] * kernel.frame[1]
    step_out = kernel.output_frame[1]
    first_out = kernel.margin[0] * step_out + kernel.margin[2]
    rows = min(rows, height)
    panels, rest = divmod(height, rows)
    runs = _runs(width, tile)
    bands = [Band(panels, rows, runs, 0, first_out, step_in, step_out)]
    if rest:
        done = panels * rows
        start = first_out + done * step_out
        bands.append(Band(1, rest, runs, done * step_in, start, step_in, step_out))
    return tuple(bands)


@dataclass(frozen=True)
class Group:
    """Channels that are computed together: vectors of these ``widths``, ``repeats`` times."""

    first: int
    repeats: int
    widths: tuple[int, ...]

    @property
    def channels(self) -> int:
        return sum(self.widths)

    def vectors(self) -> Iterator[tuple[int, int]]:
        """(first channel within the group, width) of each vector."""
        at = 0
        for width in self.widths:
            yield at, width
            at += width


def channel_groups(channels: int, lanes: int, vectors: int) -> tuple[Group, ...]:
    """``channels`` as full groups of ``vectors`` registers of ``lanes``, and one of what is left,
    whose last registers are filled by halves."""
    whole = lanes * vectors
    repeats, rest = divmod(channels, whole)
    groups = []
    if repeats:
        groups.append(Group(0, repeats, (lanes,) * vectors))
    widths: list[int] = []
    width = lanes
    left = rest
    while left:
        while width > left:
            width //= 2
        widths.append(width)
        left -= width
    if widths:
        groups.append(Group(repeats * whole, 1, tuple(widths)))
    return tuple(groups)
