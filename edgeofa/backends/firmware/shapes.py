"""What the inner loops of one layer look like: the constants that are compiled into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: an immediate offset of a Thumb-2 load reaches this far
_REACH_BYTES = 4095
#: pairs of inputs that an unrolled chunk may hold. A longer one saves up to 2%, but the loop over
#: blocks around it then leaves 1 KiB, the instruction cache in front of an STM32L4+'s flash
_LARGEST_CHUNK = 8
#: cycles around an unrolled chunk of a convolution, and for each pair in it (4 pixels, 2 channels)
_CHUNK_CYCLES, _PAIR_CYCLES = 8, 16


@dataclass(frozen=True)
class Output:
    """How sums become int8: zero point and clamp; per-channel constants come with the data."""

    zero_point: int
    low: int
    high: int


@dataclass(frozen=True)
class ConvShape:
    """A convolution's loop over ``pixels`` outputs and two channels; ``output`` None: raw sums.

    Attributes:
        rows: kernel rows. words: pairs of int16 inputs in one, padded to whole chunks.
        chunk: pairs of a row that are unrolled. group: rows that are, where whole rows are.
        pitch: words between rows of the input. step: words between neighbouring outputs' inputs.
        channels: 1 where the second channel does not exist and is not stored.
        out_step: bytes between neighbouring outputs.
        level: the only one that uses it, or ``all``: tiles are for DSP, patches for vectors.
    """

    pixels: int
    rows: int
    words: int
    chunk: int
    group: int
    pitch: int
    step: int
    channels: int
    out_step: int
    output: Output | None
    level: Literal["all", "dsp", "mve"] = "all"


@dataclass(frozen=True)
class DepthwiseShape:
    """A depthwise convolution's loop over one channel's plane; ``output`` None: raw sums.

    Attributes:
        block: outputs at once. blocks: of them along a row.
        stride: columns of the input between outputs.
        pitch: words between rows of the plane. row_step: words between the rows of two outputs.
        out_step: bytes between neighbouring outputs. out_row: bytes between rows of outputs.
    """

    block: int
    blocks: int
    kernel_height: int
    kernel_width: int
    stride: int
    pitch: int
    row_step: int
    out_step: int
    out_row: int
    output: Output | None


@dataclass(frozen=True)
class DenseShape:
    """A dense layer's loop, four outputs at once; ``words`` is a whole number of chunks.

    ``merged``: the two weights of an int16 lane add up to ``w + 256 w'``, so that a product with
    the lane gives both outputs' sums at once.
    """

    words: int
    chunk: int
    merged: bool
    output: Output | None


@dataclass(frozen=True)
class SplitShape:
    """Channels to planes: ``pitch`` words of a plane's row, ``plane`` words from plane to plane,
    ``offset`` a pair that takes the zero point off."""

    width: int
    channels: int
    left: int
    pitch: int
    plane: int
    offset: int


@dataclass(frozen=True)
class AddShape:
    """ADD: zero points of the input with the smaller scale and of the other, whose factor is one
    half; the first one's multiplier and right shift; the sum's constants."""

    zero_points: tuple[int, int]
    multiplier: int
    shift: int
    out_multiplier: int
    out_power: int
    output: Output


@dataclass(frozen=True)
class TileInputShape:
    """Widened rows to planes of tiles: ``tiles`` in a row of them, ``words`` of a pixel's channels,
    ``pitch`` words of a widened row, ``plane`` words of a plane."""

    tiles: int
    words: int
    pitch: int
    plane: int


@dataclass(frozen=True)
class TileWeightShape:
    """Weights to places: ``pairs`` of input channels, ``words`` of a packed kernel row."""

    pairs: int
    words: int


@dataclass(frozen=True)
class TileOutputShape:
    """Sums of tiles to outputs: ``tiles`` in a row of them, ``all_tiles`` that a place's sums are
    of, ``channels`` of a pixel and ``row_bytes`` of a row of the output."""

    tiles: int
    all_tiles: int
    channels: int
    row_bytes: int
    output: Output


def chunked(words: int) -> tuple[int, int]:
    """(padded words, chunk) for a row of that many pairs: the cheapest way to unroll it."""

    def cycles(chunk: int) -> int:
        return -(-words // chunk) * (chunk * _PAIR_CYCLES + _CHUNK_CYCLES)

    chunk = min(range(min(words, _LARGEST_CHUNK), 0, -1), key=cycles)
    return -(-words // chunk) * chunk, chunk


def grouped(rows: int, words: int, chunk: int) -> int:
    """How many kernel rows are unrolled together: as many whole ones as a chunk may hold."""
    if words > chunk:
        return 1
    fitting = range(1, min(rows, max(_LARGEST_CHUNK // words, 1)) + 1)
    return max(n for n in fitting if rows % n == 0)


def conv_pixels(words_per_step: int, unrolled: int, out_step: int) -> int:
    """How many pixels a convolution's loop takes at once: 4 where its offsets reach them.

    Args:
        unrolled: words that the unrolled code reaches for one pixel.
    """
    for pixels in (4, 3, 2):
        reach = 4 * ((pixels - 1) * words_per_step + unrolled)
        if reach <= _REACH_BYTES and (pixels - 1) * out_step + 1 <= _REACH_BYTES:
            return pixels
    return 1


def depthwise_blocks(width: int, channels: int) -> tuple[tuple[int, int], ...]:
    """(outputs at once, blocks) along a row of ``width`` outputs: whole blocks, then the rest.

    A block starts at an even column of the input, as words do.
    """
    largest = 4
    while (largest - 1) * channels > _REACH_BYTES and largest > 2:
        largest -= 2
    if width in (largest + 1, largest) or width < largest:
        return ((width, 1),)
    blocks, rest = divmod(width, largest)
    return ((largest, blocks), (rest, 1)) if rest else ((largest, blocks),)
