"""The convolution's inner loop for cores with the vector extension (MVE; Cortex-M55, M85).

VMLADAVA adds sixteen int8 products to a core register, which must be an even one: four pixels times
two channels take them all, and pointers live in the odd ones. Inputs stay as they are, the zero
point is in the bias that the runtime hands over, and padding is made of it. Requantisation is done
for the four pixels of a channel at once, and scattered to them.
"""

from __future__ import annotations

from edgeofa.backends.firmware.assembly import RETURN, SAVED, SAVED_BYTES, add, constant
from edgeofa.backends.firmware.shapes import ConvShape

#: pairs of int8 that a vector holds; rows of weights are padded to whole vectors
VECTOR_PAIRS, VECTOR_BYTES = 8, 16
_LARGEST_CHUNK = 8
#: vectors of a whole kernel that are unrolled instead
_LARGEST_UNROLLED = 18
_SUMS = ("r0", "r2", "r4", "r6"), ("r8", "r10", "r12", "lr")
_POINTERS = ("r1", "r3", "r5", "r7")
#: of the stack, below the saved registers: x, w, quant, out, blocks, rows
_FRAME, _VECTORS = 24, 64


def signed(register: str, value: int, spare: str) -> list[str]:
    """``register += value``, which may be negative."""
    if -4096 < value < 0:
        return [f"subw {register}, {register}, #{-value}"]
    return add(register, register, value, spare)


def _group(shape: ConvShape) -> list[str]:
    """Sixteen inputs of every pixel, times both channels' weights; all pointers move on."""
    lines = ["vldrw.32 q4, [r9], #16", "vldrw.32 q5, [r9], #16"]
    for p in range(shape.pixels):
        lines += [f"vldrb.8 q{p}, [{_POINTERS[p]}], #16"]
        lines += [f"vmladava.s8 {_SUMS[c][p]}, q{p}, q{4 + c}" for c in range(2)]
    return lines


def _store(shape: ConvShape) -> list[str]:
    """Requantise and write the sums; leaves the advanced output pointer in r3."""
    pixels, output = shape.pixels, shape.output
    lines = ["ldr r1, [sp, #8]", "ldr r3, [sp, #12]"]
    if output is None:
        for c in range(shape.channels):
            lines += [
                f"str {_SUMS[c][p]}, [r3, #{4 * (p * shape.channels + c)}]" for p in range(pixels)
            ]
        return [*lines, *add("r3", "r3", 4 * pixels * shape.channels, "r1")]
    lines += [*constant("r11", output.high), "vdup.32 q3, r11"]
    lines += constant("r11", output.zero_point)
    for c in range(shape.channels):
        a = _SUMS[c]
        lines += [f"vmov q0[2], q0[0], {a[0]}, {a[2]}", f"vmov q0[3], q0[1], {a[1]}, {a[3]}"]
        lines += [f"ldr r5, [r1, #{12 * c + 4}]", f"ldr r7, [r1, #{12 * c + 8}]"]
        lines += ["vqrdmulh.s32 q0, q0, r5", "vshr.s32 q1, q0, #31", "vadd.i32 q0, q0, q1"]
        lines += ["vrshl.s32 q0, r7", "vadd.i32 q0, q0, r11"]
        lines += ["vmax.s32 q0, q0, q7", "vmin.s32 q0, q0, q3"]
        if pixels < len(_POINTERS):
            lines += [f"mov r5, #{pixels}", "vctp.32 r5", "vpst", "vstrbt.32 q0, [r3, q6]"]
        else:
            lines += ["vstrb.32 q0, [r3, q6]"]
        if c + 1 < shape.channels:
            lines += ["add r3, r3, #1"]
    return [*lines, *add("r3", "r3", pixels * shape.out_step - (shape.channels - 1), "r1")]


def conv_kernel_mve(shape: ConvShape) -> list[str]:
    """The same function as :func:`conv_kernel`; inputs are pairs of int8, and weights lie in
    vectors: of each row of each channel sixteen, then the other channel's, the last ones zero. A
    channel's constants are (bias, m, -n)."""
    pixels = shape.pixels
    groups = -(-shape.words // VECTOR_PAIRS)
    lines = [SAVED, "vpush {d8-d15}", f"sub sp, sp, #{_FRAME}", "str r0, [sp, #0]"]
    lines += ["str r1, [sp, #4]", "str r2, [sp, #8]", "str r3, [sp, #12]"]
    lines += [f"ldr r4, [sp, #{_FRAME + _VECTORS + SAVED_BYTES}]", "str r4, [sp, #16]"]
    if shape.output is not None:
        lines += ["mov r4, #0", "vidup.u32 q6, r4, #1", *constant("r4", shape.out_step)]
        lines += ["vmul.i32 q6, q6, r4", *constant("r4", shape.output.low), "vdup.32 q7, r4"]
    lines += ["1:", "ldr r9, [sp, #8]", "ldr r1, [sp, #0]", "ldr r0, [r9, #0]"]
    lines += ["ldr r8, [r9, #12]", "ldr r9, [sp, #4]"]
    for first, *others in _SUMS:
        lines += [f"mov {a}, {first}" for a in others[: pixels - 1]]
    for p in range(1, pixels):
        lines += add(_POINTERS[p], _POINTERS[p - 1], 2 * shape.step, "r11")
    if shape.rows * groups <= _LARGEST_UNROLLED:
        for row in range(shape.rows):
            lines += [*(_next_row(shape, groups) if row else []), *_group(shape) * groups]
    else:
        lines += _loops(shape, groups)
    lines += [*_store(shape), "str r3, [sp, #12]", "ldr r5, [sp, #0]"]
    lines += [*add("r5", "r5", 2 * shape.step * pixels, "r7"), "str r5, [sp, #0]"]
    lines += ["ldr r5, [sp, #16]", "subs r5, r5, #1", "str r5, [sp, #16]", "bne 1b"]
    return [*lines, f"add sp, sp, #{_FRAME}", "vpop {d8-d15}", RETURN]


def _gap(shape: ConvShape, groups: int) -> int:
    """Bytes from where the pointers stand after a row to where the next one starts."""
    return 2 * shape.pitch - VECTOR_BYTES * groups


def _far(shape: ConvShape, groups: int) -> bool:
    """Whether moving on by :func:`_gap` takes r11."""
    return abs(_gap(shape, groups)) >= 4096


def _next_row(shape: ConvShape, groups: int) -> list[str]:
    gap = _gap(shape, groups)
    return [line for p in range(shape.pixels) for line in signed(_POINTERS[p], gap, "r11")]


def _loops(shape: ConvShape, groups: int) -> list[str]:
    """The products of all rows, by a loop over rows and one over chunks of a row."""
    chunk = max(n for n in range(1, _LARGEST_CHUNK + 1) if groups % n == 0)
    lines: list[str] = []
    if shape.rows > 1:
        lines += [*constant("r11", shape.rows), "2:"]
        if groups > chunk:
            lines += ["str r11, [sp, #20]"]
    if groups > chunk:
        lines += [*constant("r11", groups // chunk), "3:"]
    lines += _group(shape) * chunk
    if groups > chunk:
        lines += ["subs r11, r11, #1", "bne 3b"]
    if shape.rows > 1:
        if groups > chunk:
            lines += ["ldr r11, [sp, #20]"]
        if _far(shape, groups):
            lines += ["str r11, [sp, #20]"]
        lines += _next_row(shape, groups)
        if _far(shape, groups):
            lines += ["ldr r11, [sp, #20]"]
        lines += ["subs r11, r11, #1", "bne 2b"]
    return lines
