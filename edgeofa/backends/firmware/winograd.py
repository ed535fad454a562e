"""3x3 convolutions of stride 1 by Winograd's F(2x2, 3x3): 16 products for four outputs, not 36.

In integers and exactly: with the weights' transform doubled in both directions (rows 2 0 0, 1 1 1,
1 -1 1, 0 0 2) every number is whole, the transformed inputs and weights fit int16, and the sums are
four times the convolution's, which divides without rest. So outputs stay bit for bit the same.

A pass takes some rows of 2x2 tiles: widened rows are transformed to 16 planes of (tile, channel),
the weights of two output channels likewise, the products are 16 pointwise convolutions, and their
sums are transformed back and requantised. (Lavin and Gray 2015, "Fast algorithms for convolutional
neural networks".)
"""

from __future__ import annotations

from edgeofa.backends.firmware.assembly import RETURN, SAVED, constant, finish
from edgeofa.backends.firmware.shapes import TileInputShape, TileOutputShape, TileWeightShape

_REACH_BYTES = 4095
_BANKS = ("r2", "r3", "r4", "r5"), ("r6", "r7", "r8", "r9"), ("r10", "r11", "r12", "lr")


def _move(register: str, distance: int) -> list[str]:
    """``register += distance`` by immediates alone."""
    lines, mnemonic, left = [], "addw" if distance > 0 else "subw", abs(distance)
    while left:
        step = min(left, _REACH_BYTES)
        lines.append(f"{mnemonic} {register}, {register}, #{step}")
        left -= step
    return lines


class _Cursor:
    """Stores at any distance from where r1 stands at a tile's start."""

    def __init__(self) -> None:
        self.base = 0

    def store(self, register: str, offset: int) -> list[str]:
        lines: list[str] = []
        if not 0 <= offset - self.base <= _REACH_BYTES:
            lines += self.to(offset)
        return [*lines, f"str {register}, [r1, #{offset - self.base}]"]

    def to(self, offset: int) -> list[str]:
        lines = _move("r1", offset - self.base)
        self.base = offset
        return lines


def _column(shape: TileInputShape, bank: tuple[str, ...], column: int) -> list[str]:
    """Load four rows of a column and transform them downwards."""
    a, b, c, d = bank
    lines = [
        f"ldr {r}, [r0, #{4 * (row * shape.pitch + column * shape.words)}]"
        for row, r in enumerate(bank)
    ]
    lines += [f"ssub16 {a}, {a}, {c}", f"ssub16 {d}, {b}, {d}", f"ssub16 {c}, {c}, {b}"]
    return [*lines, f"sadd16 {b}, {b}, {b}", f"sadd16 {b}, {b}, {c}"]


def tile_input_kernel(shape: TileInputShape) -> list[str]:
    """``f(x, v)``: a row of tiles of widened input to the 16 planes, for all channels.

    Two columns stay in registers from tile to tile; four pixels' rows are three banks of registers.
    """
    plane, (old, middle, new) = 4 * shape.plane, _BANKS
    # stack: 0 x, 4 v, 8 words, 12 tiles
    lines = [SAVED, "sub sp, sp, #16", "str r0, [sp, #0]", "str r1, [sp, #4]"]
    lines += [*constant("r2", shape.words), "str r2, [sp, #8]", "1:"]
    lines += [*constant("r2", shape.tiles), "str r2, [sp, #12]", "ldr r0, [sp, #0]"]
    lines += ["ldr r1, [sp, #4]", *_column(shape, old, 0), *_column(shape, middle, 1)]
    lines += [*_move("r0", 8 * shape.words), "2:", *_column(shape, new, 0)]
    cursor = _Cursor()
    for row, (a, b, c) in enumerate(zip(old, middle, new, strict=True)):
        first = 4 * row * plane
        lines += [f"ssub16 {a}, {a}, {c}", *cursor.store(a, first)]
        lines += [f"sadd16 {a}, {b}, {c}", *cursor.store(a, first + plane)]
        lines += [f"ssub16 {a}, {c}, {b}", *cursor.store(a, first + 2 * plane)]
    lines += _column(shape, old, 1)
    for row in reversed(range(4)):
        lines += [f"ssub16 {middle[row]}, {middle[row]}, {old[row]}"]
        lines += cursor.store(middle[row], (4 * row + 3) * plane)
    lines += [f"mov {to}, {source}" for to, source in zip(middle, old, strict=True)]
    lines += [f"mov {to}, {source}" for to, source in zip(old, new, strict=True)]
    lines += [*cursor.to(4 * shape.words), *_move("r0", 8 * shape.words)]
    lines += ["ldr lr, [sp, #12]", "subs lr, lr, #1", "str lr, [sp, #12]", "bne 2b"]
    lines += ["ldr r0, [sp, #0]", "ldr r1, [sp, #4]", "ldr r2, [sp, #8]", "add r0, r0, #4"]
    lines += ["add r1, r1, #4", "subs r2, r2, #1", "str r0, [sp, #0]", "str r1, [sp, #4]"]
    return [*lines, "str r2, [sp, #8]", "bne 1b", "add sp, sp, #16", RETURN]


def tile_output_kernel(shape: TileOutputShape) -> list[str]:
    """``f(m, quant, out)``: the sums of a row of tiles to outputs of two channels.

    ``m``: for each of the 16 places (tile, channel); ``quant``: both channels' constants.
    """
    sums, (a, b, c, d) = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
    upper_left, upper_right, lower_left, lower_right = sums
    lines = [SAVED, *constant("r3", shape.tiles), *constant("r12", shape.output.zero_point), "1:"]
    for channel in range(2):
        for column in range(4):
            lines += [
                f"ldr {r}, [r0, #{8 * (4 * row + column) * shape.all_tiles + 4 * channel}]"
                for row, r in enumerate((a, b, c, d))
            ]
            # downwards: the first and the second row of outputs
            lines += [f"add {a}, {a}, {b}", f"sub {b}, {b}, {c}"]
            upper, lower = {0: (upper_left, lower_left), 1: (upper_right, lower_right)}.get(
                column, (a, b)
            )
            lines += [f"add {upper}, {a}, {c}", f"sub {lower}, {b}, {d}"]
            if column == 1:
                lines += [f"add {upper_left}, {upper_left}, {upper_right}"]
                lines += [f"add {lower_left}, {lower_left}, {lower_right}"]
            if column == 2:
                lines += [f"add {upper_left}, {upper_left}, {a}"]
                lines += [f"add {lower_left}, {lower_left}, {b}"]
            if column > 1:
                lines += [f"sub {upper_right}, {upper_right}, {a}"]
                lines += [f"sub {lower_right}, {lower_right}, {b}"]
        lines += [f"ldr {r}, [r1, #{12 * channel + 4 * i}]" for i, r in enumerate((a, b, c))]
        lines += [f"add {s}, {a}, {s}, asr #2" for s in sums]
        lines += finish(shape.output, sums, b, c, "r12")
        places = (0, shape.channels, shape.row_bytes, shape.row_bytes + shape.channels)
        lines += [f"strb {s}, [r2, #{p + channel}]" for s, p in zip(sums, places, strict=True)]
    lines += ["add r0, r0, #8", *_move("r2", 2 * shape.channels)]
    return [*lines, "subs r3, r3, #1", "bne 1b", RETURN]


def _taps(column: tuple[str, ...]) -> list[str]:
    """Three taps in the first registers to the four of a transformed column, in order 0 2 3 1."""
    a, b, c, d = column
    # the last one is twice the sum of the outer taps, less the difference in the second
    lines = [f"sadd16 {d}, {a}, {c}", f"sadd16 {a}, {a}, {a}", f"sadd16 {c}, {c}, {c}"]
    return [*lines, f"ssub16 {b}, {d}, {b}", f"sadd16 {d}, {d}, {d}", f"ssub16 {d}, {d}, {b}"]


def tile_weight_kernel(shape: TileWeightShape) -> list[str]:
    """``f(from, u)``: the 3x3 weights of two output channels to the 16 places.

    At each place, for each pair of input channels, the pair of one output channel, then of the
    other.
    """
    place = 8 * shape.pairs
    lines = [SAVED, *constant("r2", shape.pairs), "push {r2}", "1:"]
    for odd in range(2):
        for x, column in enumerate(_BANKS):
            lines += [
                f"ldr {column[y]}, [r0, #{4 * (y * shape.words + x * shape.pairs)}]"
                for y in range(3)
            ]
            turn = ", ror #8" if odd else ""
            lines += [f"sxtb16 {r}, {r}{turn}" for r in column[:3]]
            lines += _taps(column)
        cursor = _Cursor()
        for row, index in enumerate((0, 3, 1, 2)):
            a, b, c = (column[index] for column in _BANKS)
            first = 4 * row * place + 4 * odd
            lines += [f"sadd16 {a}, {a}, {a}", *cursor.store(a, first)]
            lines += [f"sadd16 {c}, {c}, {c}", f"shadd16 {a}, {a}, {c}"]
            lines += [f"sadd16 {b}, {a}, {b}", *cursor.store(b, first + place)]
            # twice the sum of the outer ones, less what was just stored
            lines += [f"sadd16 {a}, {a}, {a}", f"ssub16 {a}, {a}, {b}"]
            lines += [*cursor.store(a, first + 2 * place), *cursor.store(c, first + 3 * place)]
        lines += cursor.to(0)
    lines += ["ldr r2, [sp, #0]", "add r0, r0, #4", "add r1, r1, #8", "subs r2, r2, #1"]
    return [*lines, "str r2, [sp, #0]", "bne 1b", "add sp, sp, #4", RETURN]
