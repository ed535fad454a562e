"""How a kernel walks over an image: bands of panels of rows of tiles; and over channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeofa.backends.tvm.emit import Emitter, Expr, larger, pieces, smaller
from edgeofa.backends.tvm.kernels import Kernel


@dataclass(frozen=True)
class Run:
    """``count`` equal tiles side by side, the first one at output column ``first``.

    ``low`` and ``high`` bound the input columns that are inside the image, counted from the first
    tap of a tile's first pixel.
    """

    first: int
    count: int
    pixels: int
    low: int
    high: int


@dataclass(frozen=True)
class Place:
    """Where a tile is: its row in the band, its first column, and the kernel rows that are inside
    the image (the first of them, and how many)."""

    run: Run
    line: Expr
    column: Expr
    tap: int | Expr
    taps: int | Expr


@dataclass(frozen=True)
class Band:
    """Rows that are walked alike.

    Attributes:
        panels: how many times ``rows`` rows come; every channel group walks through one panel
            before the next panel begins, so that a panel's inputs stay in the first-level cache.
        runs: a row's tiles.
        first: rows before the band.
        first_in, first_out: pixels before the band, in the input (padding does not count, so that
            it may be below 0) and in the output.
        step_in, step_out: pixels from one row to the next.
    """

    panels: int
    rows: int
    runs: tuple[Run, ...]
    first: int
    first_in: int
    first_out: int
    step_in: int
    step_out: int

    def places(self, e: Emitter, kernel: Kernel, panel: Expr) -> Iterator[Place]:
        """The tiles of a panel, inside its loops."""
        with e.loop(self.rows, "row") as row:
            line = e.value(panel * self.rows + row)
            tap, taps = _rows_inside(e, kernel, line + self.first)
            for run in self.runs:
                with e.loop(run.count, "tile") as number:
                    yield Place(run, line, number * run.pixels + run.first, tap, taps)


def _rows_inside(e: Emitter, kernel: Kernel, row: Expr) -> tuple[int | Expr, int | Expr]:
    top, bottom = kernel.pads[:2]
    size = kernel.window[0]
    if not top and not bottom:
        return 0, size
    start = e.value(row * kernel.stride[0] - top)
    low = e.value(larger(0 - start, 0))
    return low, e.value(smaller(kernel.input[0] - start, size) - low)


def _runs(kernel: Kernel, width: int, pixels: int) -> tuple[Run, ...]:
    """Tiles of a row: those that reach over a border one by one, the others together."""
    left = kernel.pads[2]
    found: list[Run] = []
    for first in range(0, width, pixels):
        count = min(pixels, width - first)
        start = first * kernel.stride[1] - left
        reach = (count - 1) * kernel.stride[1] + kernel.window[1]
        inside = max(-start, 0), min(kernel.input[1] - start, reach)
        run = Run(first, 1, count, *inside)
        if (
            found
            and inside == (0, reach)
            and (found[-1].pixels, found[-1].low, found[-1].high) == (count, 0, reach)
        ):
            found[-1] = replace(found[-1], count=found[-1].count + 1)
        else:
            found.append(run)
    return tuple(found)


def flat_bands(pixels: int, tile: int, tiles: int) -> tuple[Band, ...]:
    """An image without neighbourhood, as one line cut into panels of ``tiles`` tiles."""

    def line(width: int) -> tuple[Run, ...]:
        whole, rest = divmod(width, tile)
        runs = Run(0, whole, tile, 0, tile), Run(whole * tile, 1, rest, 0, rest)
        return tuple(run for run in runs if run.count * run.pixels)

    width = tile * tiles
    panels, rest = divmod(pixels, width)
    bands = []
    if panels:
        bands.append(Band(panels, 1, line(width), 0, 0, 0, width, width))
    if rest:
        first = panels * width
        bands.append(Band(1, 1, line(rest), 0, first, first, rest, rest))
    return tuple(bands)


def row_bands(kernel: Kernel, tile: int, rows: int) -> tuple[Band, ...]:
    """An image row by row."""
    height, width = kernel.output[:2]
    top, _, left, _ = kernel.pads
    step_in = kernel.stride[0] * kernel.input[1]
    rows = min(rows, height)
    panels, rest = divmod(height, rows)
    runs = _runs(kernel, width, tile)
    bands = []
    for first, count, lines in ((0, panels, rows), (panels * rows, 1, rest)):
        if count and lines:
            first_in = first * step_in - top * kernel.input[1] - left
            bands.append(Band(count, lines, runs, first, first_in, first * width, step_in, width))
    return tuple(bands)


@dataclass(frozen=True)
class Group:
    """Channels that are computed together: vectors of these ``widths``, ``repeats`` times."""

    first: int
    repeats: int
    widths: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Of one repeat."""
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
    widths = tuple(width for _, width in pieces(rest, lanes))
    if widths:
        groups.append(Group(repeats * whole, 1, widths))
    return tuple(groups)
