"""Loops beside the products: channels to planes for a depthwise convolution, and ADD."""

from __future__ import annotations

from edgeofa.backends.firmware.assembly import RETURN, SAVED, add, constant, finish
from edgeofa.backends.firmware.shapes import AddShape, SplitShape

_UNROLLED_WORDS = 8
#: bytes that an immediate offset may reach
_REACH_BYTES = 4095
#: of an add, unrolled
_LANES = 4


def _split_word(shape: SplitShape, word: int, first: int, base: int) -> list[str]:
    """One word of each plane: of pixels ``first`` and the next, of which some are padding.

    r0 points at pixel ``base``, r1 and r4 to r6 at the planes, r3 holds the offset.
    """
    inside = [base <= x < shape.width for x in (first, first + 1)]
    lines = []
    for register, x, real in (("r7", first, inside[0]), ("r8", first + 1, inside[1])):
        if real:
            lines.append(f"ldr {register}, [r0, #{(x - base) * shape.channels}]")
    names = [("r9", "r7"), ("r10", "r8")]
    for (low, source), real in zip(names, inside, strict=True):
        if real:
            lines += [f"sxtab16 {low}, r3, {source}", f"sxtab16 {source}, r3, {source}, ror #8"]
    planes = ("r1", "r4", "r5", "r6")
    if not any(inside):
        lines.append("mov r9, #0")
        return [*lines, *(f"str r9, [{p}, #{4 * word}]" for p in planes)]
    if not inside[0]:
        lines += ["lsl r11, r10, #16", "lsl r12, r8, #16", "bfc r10, #0, #16", "bfc r8, #0, #16"]
        stored = ("r11", "r12", "r10", "r8")
    elif not inside[1]:
        lines += ["uxth r11, r9", "uxth r12, r7", "lsr r9, r9, #16", "lsr r7, r7, #16"]
        stored = ("r11", "r12", "r9", "r7")
    else:
        lines += ["pkhbt r11, r9, r10, lsl #16", "pkhbt r12, r7, r8, lsl #16"]
        lines += ["pkhtb r9, r10, r9, asr #16", "pkhtb r7, r8, r7, asr #16"]
        stored = ("r11", "r12", "r9", "r7")
    return [*lines, *(f"str {r}, [{p}, #{4 * word}]" for r, p in zip(stored, planes, strict=True))]


def split_kernel(shape: SplitShape) -> list[str]:
    """``f(in, planes, rows)``: rows of four channels to four planes of int16, padding included."""
    lines = [SAVED, *constant("r3", shape.offset)]
    for previous, register in (("r1", "r4"), ("r4", "r5"), ("r5", "r6")):
        lines += add(register, previous, 4 * shape.plane, "lr")
    lines += ["1:"]
    firsts = [2 * i - shape.left for i in range(shape.pitch)]
    whole = [i for i, x in enumerate(firsts) if x >= 0 and x + 1 < shape.width]
    count = len(whole)
    unrolled = count <= _UNROLLED_WORDS and shape.width * shape.channels <= _REACH_BYTES
    base = moved = 0
    for i, x in enumerate(firsts):
        if unrolled or i not in whole:
            lines += _split_word(shape, i - moved, x, base)
        elif i == whole[0]:
            start = x * shape.channels
            lines += [*add("r0", "r0", start, "lr"), *constant("lr", count), "2:"]
            body = _split_word(shape, i, x, x)
            step = 2 * shape.channels
            lines += [*body, *add("r0", "r0", step, "r7")]
            lines += [f"add {p}, {p}, #4" for p in ("r1", "r4", "r5", "r6")]
            lines += ["subs lr, lr, #1", "bne 2b"]
            base, moved = x + 2 * count, count
    rest = (shape.width - base) * shape.channels
    lines += add("r0", "r0", rest, "r7")
    advance = 4 * (shape.pitch - moved)
    lines += [line for p in ("r1", "r4", "r5", "r6") for line in add(p, p, advance, "r7")]
    return [*lines, "subs r2, r2, #1", "bne 1b", RETURN]


def _add_value(shape: AddShape, pair: tuple[str, str], high: bool, place: int) -> list[str]:
    """One output from the lower or upper halves of two words of pairs; into byte ``place``."""
    a, b = pair
    lines = []
    if high:
        lines += [f"asr {a}, {a}, #16", f"asr {b}, {b}, #16"]
    lines += [f"add lr, r3, {a}, lsl #21"]
    if shape.shift:
        # the first input's product is shifted, with its second rounding
        lines += ["smmulr lr, lr, r5", "add lr, lr, lr, asr #31"]
        lines += [f"add lr, lr, #{1 << (shape.shift - 1)}", f"asr lr, lr, #{shape.shift}"]
        lines += ["add lr, lr, r4", f"add lr, lr, {b}, lsl #19"]
    else:
        lines += ["smmulr lr, lr, r5", "add lr, lr, r4", f"add lr, lr, {b}, lsl #19"]
    lines += finish(shape.output, ["lr"], "r6", "r7", "r8")
    return [*lines, f"strb lr, [r2, #{place}]"]


def add_kernel(shape: AddShape) -> list[str]:
    """``f(a, b, out, quads)``: ADD of four values at a time.

    ``b`` is the input of the larger scale: its factor is one half exactly, a shift. The other one's
    product is taken of 2**21 times its value, which saves the doubling.
    """
    lines = [SAVED, "push {r3}", *constant("r3", -shape.zero_points[0] * (1 << 21))]
    lines += constant("r4", -shape.zero_points[1] * (1 << 19))
    lines += [*constant("r5", shape.multiplier), *constant("r6", shape.out_multiplier)]
    lines += [*constant("r7", shape.out_power), *constant("r8", shape.output.zero_point), "1:"]
    lines += ["ldr r9, [r0, #0]", "ldr r10, [r1, #0]", "sxtb16 r11, r9", "sxtb16 r12, r10"]
    lines += ["sxtb16 r9, r9, ror #8", "sxtb16 r10, r10, ror #8"]
    for place, (pair, high) in enumerate(
        (p, h) for h in (False, True) for p in (("r11", "r12"), ("r9", "r10"))
    ):
        lines += _add_value(shape, pair, high, place)
    lines += ["ldr lr, [sp, #0]", *(f"add {r}, {r}, #{_LANES}" for r in ("r0", "r1", "r2"))]
    return [*lines, "subs lr, lr, #1", "str lr, [sp, #0]", "bne 1b", "add sp, sp, #4", RETURN]
