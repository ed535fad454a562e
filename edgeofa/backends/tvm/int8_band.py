"""The rows of the input that a row of outputs reads, copied once with their padding.

The rows lie in a ring: a row is copied when it first becomes visible and stays until the window
has passed it. What is copied is the stored input, padding the stored zero point.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, convert, load, splat
from edgeofa.backends.tvm.kernels import Kernel

#: what vector loads may read beyond the last pixel
SLACK = 128
#: elements that are copied at a time
COPY = 16


@dataclass(frozen=True, eq=False)
class Band:
    """The beginning of ``buffer`` holds ``rows`` rows; bytes of a row and of a pixel."""

    buffer: Buffer
    rows: int
    row_bytes: int
    pixel_bytes: int

    def row(self, e: Emitter, number: Expr) -> Expr:
        """Where a row of the padded input lies."""
        return e.bind(tirx.truncmod(number, self.rows) * self.row_bytes, "row")


def band_bytes(kernel: Kernel, pixel_bytes: int) -> int:
    """Size of a band, whole copies."""
    width = kernel.input[-2] + kernel.pads[2] + kernel.pads[3]
    return -(-(kernel.window[0] * width * pixel_bytes + SLACK) // COPY) * COPY


def make_band(e: Emitter, kernel: Kernel, scratch: Buffer, padding: Expr, pixel_bytes: int) -> Band:
    """Fill the room for the rows of a window with padding."""
    width = kernel.input[-2] + kernel.pads[2] + kernel.pads[3]
    band = Band(scratch, kernel.window[0], width * pixel_bytes, pixel_bytes)
    fill_run(e, scratch, padding, band_bytes(kernel, pixel_bytes))
    return band


def advance(e: Emitter, band: Band, kernel: Kernel, x: Buffer, padding: Expr, oy: Expr) -> None:
    """Copy the rows that output row ``oy`` sees first."""
    step, rows = kernel.stride[0], kernel.window[0]
    fresh = min(step, rows)
    with e.when(oy == 0), e.loop(rows - fresh, "r") as r:
        _copy_row(e, band, kernel, x, padding, r)
    with e.loop(fresh, "r") as r:
        _copy_row(e, band, kernel, x, padding, oy * step + (rows - fresh) + r)


def _copy_row(
    e: Emitter, band: Band, kernel: Kernel, x: Buffer, padding: Expr, number: Expr
) -> None:
    """Row ``number`` of the padded input."""
    height, width, channels = kernel.input[-3:]
    top, _, left, _ = kernel.pads
    slot = band.row(e, number) + left * band.pixel_bytes
    y = e.bind(number - top, "y")
    inside = tirx.all(y >= 0, y < height) if any(kernel.pads[:2]) else None
    size = width * channels

    def copy() -> None:
        if band.pixel_bytes == channels:
            copy_run(e, band.buffer, slot, x, y * size, size)
            return
        with e.loop(width, "p") as p:
            for c in range(channels):
                value = load(x, y * size + p * channels + c)
                e.store(band.buffer, slot + p * band.pixel_bytes + c, value)

    if inside is None:
        copy()
        return
    with e.when(inside):
        copy()
    with e.when(tirx.Not(inside)), e.loop(width * band.pixel_bytes, "i") as i:
        e.store(band.buffer, slot + i, convert("int8", padding))


def fill_run(e: Emitter, to: Buffer, value: Expr, size: int) -> None:
    """Set the first ``size`` elements to an int32 scalar."""
    if size < COPY:
        for i in range(size):
            e.store(to, i, convert("int8", value))
        return
    fill = e.bind(splat(convert("int8", value), COPY), "fill")
    with e.loop(size // COPY, "i") as i:
        e.store(to, i * COPY, fill, COPY)
    if size % COPY:
        e.store(to, size - COPY, fill, COPY)


def copy_run(e: Emitter, to: Buffer, place: Expr, source: Buffer, start: Expr, size: int) -> None:
    """Copy ``size`` neighbouring elements."""
    if size < COPY:
        for i in range(size):
            e.store(to, place + i, load(source, start + i))
        return
    with e.loop(size // COPY, "i") as i:
        e.store(to, place + i * COPY, load(source, start + i * COPY, COPY), COPY)
    if size % COPY:
        last = size - COPY
        e.store(to, place + last, load(source, start + last, COPY), COPY)
