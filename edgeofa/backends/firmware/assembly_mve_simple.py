"""Depthwise convolutions and dense layers for cores with the vector extension (see assembly_mve).

A depthwise convolution takes four neighbouring outputs of four rows at once: VMLA adds a vector of
inputs times one weight, so each input is loaded once for all rows that need it. A last column alone
is gathered from its four rows instead. A dense layer reads the weights that the DSP level reads.
"""

from __future__ import annotations

from edgeofa.backends.firmware.assembly import (
    CONSTANTS,
    RETURN,
    SAVED,
    SAVED_BYTES,
    add,
    constant,
    dense_finish,
    depthwise_halves,
    depthwise_words,
)
from edgeofa.backends.firmware.assembly_mve import signed
from edgeofa.backends.firmware.shapes import DenseShape, DepthwiseShape, Output

LANES, _ROWS = 4, 4
#: words of a dense layer's row that a vector holds
_VECTOR_WORDS = 4
#: registers for a column of weights: r4 to r11
_FIRST_TAP, _MOST_TAPS = 4, 8
_SUMS = ("q0", "q1", "q2", "q3")
#: a load's own step reaches so far: halfwords, words
_STEP_BYTES = {1: 254, 2: 508}


def depthwise_kernel_mve(shape: DepthwiseShape) -> list[str] | None:
    """The same function as :func:`depthwise_kernel`, on the same data; None for a kernel that is
    too high, or a stride above two.

    It may read up to ``OVERREAD_BYTES`` after the last row of the plane, whose values do not count.
    """
    if shape.kernel_height > _MOST_TAPS or shape.stride not in _STEP_BYTES:
        return None
    lines = [SAVED, "vpush {d8-d15}", "mov r12, r3", "mov r4, #0", "vidup.u32 q6, r4, #1"]
    lines += [*constant("r4", shape.out_step), "vmul.i32 q6, q6, r4"]
    if shape.output is not None:
        lines += [*constant("r4", shape.output.low), "vdup.32 q7, r4"]
        lines += [*constant("r4", shape.output.high), "vdup.32 q5, r4"]
    rest = shape.block * shape.blocks % LANES
    if rest:
        lines += [f"mov r4, #{rest}", "vctp.32 r4"]
    lines += ["1:", f"cmp r12, #{_ROWS}", "blt 3f", *_rows(shape, _ROWS), "b 1b"]
    return [
        *lines,
        "3:",
        "cmp r12, #0",
        "beq 4f",
        *_rows(shape, 1),
        "b 3b",
        "4:",
        "vpop {d8-d15}",
        RETURN,
    ]


#: what vectors may read after a plane: three more outputs, of two inputs each, and a half of a pair
OVERREAD_BYTES = 16


def _rows(shape: DepthwiseShape, rows: int) -> list[str]:
    """Some rows of outputs, and on to the next ones."""
    vectors, rest = divmod(shape.block * shape.blocks, LANES)
    along, out_along = 2 * LANES * shape.stride, LANES * shape.out_step
    lines: list[str] = []
    if vectors:
        lines += [*constant("lr", vectors), "2:", *_vectors(shape, rows, whole=True)]
        lines += [*add("r0", "r0", along, "r4"), *add("r2", "r2", out_along, "r4")]
        lines += ["subs lr, lr, #1", "bne 2b"]
    if rest == 1 and rows == _ROWS:
        lines += _last_column(shape)
    elif rest:
        lines += _vectors(shape, rows, whole=False)
    lines += signed("r0", 4 * shape.row_step * rows - vectors * along, "r4")
    lines += signed("r2", shape.out_row * rows - vectors * out_along, "r4")
    return [*lines, f"sub r12, r12, #{rows}"]


def _tap(shape: DepthwiseShape, register: str, row: int, column: int) -> str:
    """Load one weight."""
    words = depthwise_words(shape.kernel_width, shape.stride)
    word, half = depthwise_halves(words)[column]
    return f"ldrsh {register}, [r1, #{4 * (CONSTANTS + row * len(words) + word) + 2 * half}]"


def _vectors(shape: DepthwiseShape, rows: int, *, whole: bool) -> list[str]:
    """Four outputs of each row, of which only some are stored unless ``whole``."""
    sums, down = _SUMS[:rows], shape.row_step // shape.pitch
    lines = ["ldr r4, [r1, #0]", *(f"vdup.32 {a}, r4" for a in sums)]
    for column in range(shape.kernel_width):
        for row in range(shape.kernel_height):
            lines.append(_tap(shape, f"r{_FIRST_TAP + row}", row, column))
        # of a stride of two, words are loaded and their lower or upper halves taken
        first = 2 * column if shape.stride == 1 else column // 2 * 4
        lines += add("r3", "r0", first, "r3")
        for x in range((rows - 1) * down + shape.kernel_height):
            lines += _load_row(shape, column)
            for y, a in enumerate(sums):
                if 0 <= x - y * down < shape.kernel_height:
                    lines.append(f"vmla.s32 {a}, q4, r{_FIRST_TAP + x - y * down}")
    lines += ["mov r3, r2", *_finish(shape, sums)]
    for i, a in enumerate(sums):
        lines += [*(add("r3", "r3", shape.out_row, "r4") if i else [])]
        lines += _scatter(shape, a, "q6", whole)
    return lines


def _load_row(shape: DepthwiseShape, column: int) -> list[str]:
    step = 4 * shape.pitch
    load = "vldrh.s32" if shape.stride == 1 else "vldrw.32"
    if step <= _STEP_BYTES[shape.stride]:
        lines = [f"{load} q4, [r3], #{step}"]
    else:
        lines = [f"{load} q4, [r3]", f"addw r3, r3, #{step}"]
    if shape.stride == 2:
        lines.append(f"vmovl{'bt'[column % 2]}.s16 q4, q4")
    return lines


def _last_column(shape: DepthwiseShape) -> list[str]:
    """One output of each of four rows, a vector together."""
    lines = ["ldr r4, [r1, #0]", "vdup.32 q0, r4", "mov r4, #0", "vidup.u32 q2, r4, #1"]
    lines += [*constant("r4", 4 * shape.row_step), "vmul.i32 q1, q2, r4"]
    for row in range(shape.kernel_height):
        lines += add("r3", "r0", 4 * row * shape.pitch, "r3")
        for column in range(shape.kernel_width):
            lines += [_tap(shape, "r4", row, column)]
            lines += ["vldrh.s32 q4, [r3, q1]", "vmla.s32 q0, q4, r4"]
            lines += ["add r3, r3, #2"] if column + 1 < shape.kernel_width else []
    lines += [*constant("r4", shape.out_row), "vmul.i32 q1, q2, r4", "mov r3, r2"]
    return [*lines, *_finish(shape, ("q0",)), *_scatter(shape, "q0", "q1", whole=True)]


def _finish(shape: DepthwiseShape, sums: tuple[str, ...]) -> list[str]:
    """Requantise vectors; the constants are those of all levels (see :func:`conv_kernel_mve`)."""
    output: Output | None = shape.output
    if output is None:
        return []
    # back from m' to m, and from 2**(32 - n) to -n
    lines = ["ldr r4, [r1, #4]", "ldr r5, [r1, #8]", "lsr r4, r4, #1", "clz r5, r5", "mvn r5, r5"]
    lines += constant("r6", output.zero_point)
    lines += [f"vqrdmulh.s32 {a}, {a}, r4" for a in sums]
    for a in sums:
        lines += [f"vshr.s32 q4, {a}, #31", f"vadd.i32 {a}, {a}, q4", f"vrshl.s32 {a}, r5"]
        lines += [f"vadd.i32 {a}, {a}, r6", f"vmax.s32 {a}, {a}, q7", f"vmin.s32 {a}, {a}, q5"]
    return lines


def _scatter(shape: DepthwiseShape, values: str, offsets: str, whole: bool) -> list[str]:
    store = "vstrw" if shape.output is None else "vstrb"
    if whole:
        return [f"{store}.32 {values}, [r3, {offsets}]"]
    return ["vpst", f"{store}t.32 {values}, [r3, {offsets}]"]


def dense_kernel_mve(shape: DenseShape) -> list[str] | None:
    """The same function as :func:`dense_kernel`, on the same data; None where vectors do not fill
    a row."""
    vectors, rest = divmod(shape.words, _VECTOR_WORDS)
    if rest:
        return None
    # the sums of four outputs; vectors add to even registers only
    sums = ("r4", "r6", "r8", "r10")
    lines = [SAVED, "vpush {d8-d15}", "sub sp, sp, #8", "str r0, [sp, #0]"]
    lines += [f"ldr r12, [sp, #{8 + 64 + SAVED_BYTES}]", "1:", "ldr r0, [sp, #0]"]
    starts = [i - i % 2 if shape.merged else i for i in range(len(sums))]
    lines += [f"ldr {s}, [r2, #{12 * i}]" for i, s in zip(starts, sums, strict=True)]
    lines += [*constant("r5", vectors), "2:", "vldrw.32 q2, [r0], #16"]
    # words of the first two outputs to q0, of the other two to q1
    lines += ["vld20.32 {q0, q1}, [r1]", "vld21.32 {q0, q1}, [r1]!"]
    for q, (even, odd) in (("q0", sums[:2]), ("q1", sums[2:])):
        lines += [f"vmovlb.s8 q3, {q}", f"vmladava.s16 {even}, q2, q3"]
        lines += [] if shape.merged else [f"vmovlt.s8 {q}, {q}"]
        lines += [f"vmladava.s16 {odd}, q2, {q}"]
    lines += ["subs r5, r5, #1", "bne 2b", *dense_finish(shape, sums, ("r5", "r7", "r9"))]
    return [*lines, "subs r12, r12, #1", "bne 1b", "add sp, sp, #8", "vpop {d8-d15}", RETURN]
