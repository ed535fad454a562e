"""Inner loops for cores with the DSP extension (Cortex-M4, M7, M33), written register by register.

A compiler keeps neither eight sums and two pointers in fourteen registers nor loads in groups, and
both decide the speed: a load costs two cycles, one when it directly follows another load. So the
generator writes the loops itself, shaped for one layer, and C around them does the rest.

Values are int16 pairs (SMLAD: two products a cycle), sums int32. Requantisation is TFLite's double
rounding in four instructions: with ``m' = 2 m - 2**32`` SMMLAR gives ``a + round(a m' / 2**32)``,
which is the doubling high product of ``a`` and ``m``; the shift by ``n`` is a rounded high product
with ``2**(32 - n)`` after 1 was taken from a negative number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.backends.firmware.shapes import ConvShape, DenseShape, DepthwiseShape, Output

SAVED = "push {r4-r11, lr}"
RETURN = "pop {r4-r11, pc}"
#: bytes that ``SAVED`` occupies, after which the fifth argument lies
SAVED_BYTES = 36
#: words of a channel's constants, before a depthwise channel's weights
CONSTANTS = 3


def add(register: str, source: str, value: int, spare: str) -> list[str]:
    """``register = source + value`` for any constant; ``spare`` may be overwritten."""
    if value == 0:
        return [] if register == source else [f"mov {register}, {source}"]
    if value < 4096:
        return [f"addw {register}, {source}, #{value}"]
    return [*constant(spare, value), f"add {register}, {source}, {spare}"]


def constant(register: str, value: int) -> list[str]:
    if -129 < value < 256:
        return [f"mov {register}, #{value}"]
    value &= 0xFFFFFFFF
    high = [f"movt {register}, #{value >> 16}"] if value >> 16 else []
    return [f"movw {register}, #{value & 0xFFFF}", *high]


def finish(
    output: Output, sums: Sequence[str], multiplier: str, power: str, zero: str
) -> list[str]:
    """Requantise and clamp the sums, interleaved so that a dual-issue core can overlap them."""
    lines = [f"smmlar {a}, {a}, {multiplier}, {a}" for a in sums]
    lines += [f"add {a}, {a}, {a}, asr #31" for a in sums]
    lines += [f"smmlar {a}, {a}, {power}, {zero}" for a in sums]
    lines += [f"ssat {a}, #8, {a}" for a in sums]
    if output.low > -128:
        for a in sums:
            lines += [f"cmp {a}, #{output.low}", "it lt", f"movlt {a}, #{output.low}"]
    if output.high < 127:
        for a in sums:
            lines += [f"cmp {a}, #{output.high}", "it gt", f"movgt {a}, #{output.high}"]
    return lines


def conv_kernel(shape: ConvShape) -> list[str]:
    """``f(x, w, quant, out, blocks)``: some blocks of pixels along a row, two output channels.

    Arguments: the first input word, the two channels' weights as int16 (for each pair of inputs
    the pair of channel 0, then of channel 1), their constants (bias, m', 2**(32-n)), the output.
    """
    pixels = shape.pixels
    # low registers for what is loaded: shorter instructions
    spare = [f"r{i}" for i in range(2, 14 - 2 * pixels)]
    sums = [*(f"r{i}" for i in range(2 + len(spare), 13)), "lr"]
    w0, w1 = spare[0], spare[1]
    chunks = shape.words // shape.chunk
    # stack: 0 x, 4 w, 8 quant, 12 out, 16 blocks, 20 end of this row of x, 24 end of w
    lines = [SAVED, "sub sp, sp, #28", "str r0, [sp, #0]", "str r1, [sp, #4]"]
    lines += ["str r2, [sp, #8]", "str r3, [sp, #12]", f"ldr r4, [sp, #{28 + SAVED_BYTES}]"]
    lines += ["str r4, [sp, #16]", *add("r4", "r1", 8 * shape.rows * shape.words, "r5")]
    lines += ["str r4, [sp, #24]", "1:", f"ldr {w0}, [sp, #8]", "ldr r0, [sp, #0]"]
    lines += ["ldr r1, [sp, #4]", f"ldr {sums[0]}, [{w0}, #0]", f"ldr {sums[pixels]}, [{w0}, #12]"]
    lines += [f"mov {sums[i]}, {sums[0]}" for i in range(1, pixels)]
    lines += [f"mov {sums[pixels + i]}, {sums[pixels]}" for i in range(1, pixels)]
    lines += ["2:"]
    if chunks > 1 and shape.rows > 1:
        lines += [*add(w0, "r0", 4 * shape.words, w1), f"str {w0}, [sp, #20]", "3:"]
    for i in range(shape.chunk * shape.group):
        row, word = divmod(i, shape.chunk)
        lines += _conv_pair(shape, row * shape.pitch + word, i, sums, spare)
    if chunks > 1 or shape.rows > shape.group:
        lines += [*add("r1", "r1", 8 * shape.chunk * shape.group, w0)]
    if chunks > 1:
        lines += [*add("r0", "r0", 4 * shape.chunk, w0)]
        end, pointer, label = ("#20", "r0", "3b") if shape.rows > 1 else ("#24", "r1", "2b")
        lines += [f"ldr {w0}, [sp, {end}]", f"cmp {pointer}, {w0}", f"bne {label}"]
    if shape.rows > shape.group:
        done = 0 if chunks == 1 else shape.words
        lines += [*add("r0", "r0", 4 * (shape.group * shape.pitch - done), w0)]
        lines += [f"ldr {w0}, [sp, #24]", f"cmp r1, {w0}", "bne 2b"]
    lines += _conv_store(shape, sums, spare)
    lines += ["str r1, [sp, #12]", "ldr r0, [sp, #0]", f"ldr {w1}, [sp, #16]"]
    lines += [*add("r0", "r0", 4 * shape.step * pixels, w0), "str r0, [sp, #0]"]
    lines += [f"subs {w1}, {w1}, #1", f"str {w1}, [sp, #16]", "bne 1b"]
    return [*lines, "add sp, sp, #28", RETURN]


def _conv_pair(
    shape: ConvShape, word: int, i: int, sums: Sequence[str], spare: Sequence[str]
) -> list[str]:
    """One pair of inputs of every pixel, at ``word``, times the i-th pair of both channels."""
    pixels, (w0, w1, *xs) = shape.pixels, spare
    lines: list[str] = []
    for first in range(0, pixels, len(xs)):
        group = range(first, min(first + len(xs), pixels))
        lines += [f"ldr {xs[p - first]}, [r0, #{4 * (p * shape.step + word)}]" for p in group]
        if first == 0:
            lines += [f"ldr {w0}, [r1, #{8 * i}]", f"ldr {w1}, [r1, #{8 * i + 4}]"]
        for p in group:
            for channel, w in enumerate((w0, w1)):
                a = sums[channel * pixels + p]
                lines.append(f"smlad {a}, {xs[p - first]}, {w}, {a}")
    return lines


def _conv_store(shape: ConvShape, sums: Sequence[str], spare: Sequence[str]) -> list[str]:
    """Write the block's sums; leaves the advanced output pointer in r1."""
    pixels, (multiplier, power, zero, *_) = shape.pixels, spare
    lines = ["ldr r1, [sp, #12]", "ldr r0, [sp, #8]"]
    channels = range(shape.channels)
    if shape.output is None:
        for channel in channels:
            lines += [
                f"str {sums[channel * pixels + p]}, [r1, #{4 * (p * shape.channels + channel)}]"
                for p in range(pixels)
            ]
        return [*lines, *add("r1", "r1", 4 * pixels * shape.channels, "r0")]
    for channel in channels:
        lines += [f"ldr {multiplier}, [r0, #{12 * channel + 4}]"]
        lines += [f"ldr {power}, [r0, #{12 * channel + 8}]"]
        if channel == 0:
            lines += constant(zero, shape.output.zero_point)
        mine = sums[channel * pixels : (channel + 1) * pixels]
        lines += finish(shape.output, mine, multiplier, power, zero)
        lines += [f"strb {a}, [r1, #{p * shape.out_step + channel}]" for p, a in enumerate(mine)]
    return [*lines, *add("r1", "r1", pixels * shape.out_step, multiplier)]


@dataclass(frozen=True)
class _Product:
    """``sums[sum] += x * w`` by one instruction; operands are (kind, row, word)."""

    mnemonic: str
    sum: int
    x: tuple[str, int, int]
    w: tuple[str, int, int]


def depthwise_words(width: int, stride: int) -> list[tuple[int, ...]]:
    """The words that a kernel row of ``width`` taps is stored as: pairs of taps, each (t, t + 1).

    An output at an even input column needs pairs that start at even taps, at an odd column, which
    odd strides have too, at odd ones. A tap without a partner is taken out of any word that holds
    it; one tap alone is ``(0,)``.
    """
    parities = (0, 1) if stride % 2 else (0,)
    pairs = [(t, t + 1) for parity in parities for t in range(parity, width - 1, 2)]
    held = {t for pair in pairs for t in pair}
    return [*pairs, *((t,) for t in range(width) if t not in held)]


def depthwise_halves(words: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, int]]:
    """For each tap a word that holds it, and its half: 0 low, 1 high."""
    numbered = [*enumerate(words)]
    return {t: (i, pair.index(t)) for i, pair in reversed(numbered) for t in pair}


def _products(shape: DepthwiseShape, row: int) -> list[_Product]:
    words = depthwise_words(shape.kernel_width, shape.stride)
    halves = depthwise_halves(words)
    found = []
    for q in range(shape.block):
        start, taps = q * shape.stride, shape.kernel_width
        for word in range(start // 2, (start + taps - 1) // 2 + 1):
            inside = [t for t in (2 * word - start, 2 * word + 1 - start) if 0 <= t < taps]
            x = ("x", row, word)
            if len(inside) == 2:
                found.append(_Product("smlad", q, x, ("w", row, words.index((*inside,)))))
            else:
                index, half = halves[inside[0]]
                side = (start + inside[0]) % 2
                mnemonic = f"smla{'bt'[side]}{'bt'[half]}"
                found.append(_Product(mnemonic, q, x, ("w", row, index)))
    return sorted(found, key=lambda p: (p.x[2], p.sum))


def _schedule(shape: DepthwiseShape, sums: Sequence[str], registers: Sequence[str]) -> list[str]:
    """Loads in groups as large as the registers allow, each followed by what it makes possible."""
    per_row = len(depthwise_words(shape.kernel_width, shape.stride))

    def load(register: str, token: tuple[str, int, int]) -> str:
        kind, row, word = token
        if kind == "x":
            return f"ldr {register}, [r0, #{4 * (row * shape.pitch + word)}]"
        return f"ldr {register}, [r1, #{4 * (CONSTANTS + row * per_row + word)}]"

    lines: list[str] = []
    resident: dict[tuple[str, int, int], str] = {}
    free = list(registers)
    waiting = [p for row in range(shape.kernel_height) for p in _products(shape, row)]
    while waiting:
        for product in waiting:
            missing = [t for t in (product.w, product.x) if t not in resident]
            if len(missing) > len(free):
                break
            for token in missing:
                resident[token] = free.pop(0)
                lines.append(load(resident[token], token))
        ready = [p for p in waiting if p.x in resident and p.w in resident]
        for p in ready:
            a = sums[p.sum]
            lines.append(f"{p.mnemonic} {a}, {resident[p.x]}, {resident[p.w]}, {a}")
        waiting = [p for p in waiting if not (p.x in resident and p.w in resident)]
        needed = {t for p in waiting for t in (p.x, p.w)}
        free += [resident.pop(t) for t in list(resident) if t not in needed]
        if not ready:
            # words kept for later fill every register: let go of all but the next product's
            keep = {waiting[0].x, waiting[0].w}
            free += [resident.pop(t) for t in list(resident) if t not in keep]
    return lines


def depthwise_kernel(shape: DepthwiseShape) -> list[str]:
    """``f(x, channel, out, rows)``: one channel of some rows of outputs.

    Arguments: the plane's first word, the channel's data (bias, m', 2**(32-n), then
    ``depthwise_words`` for each kernel row), the first output, the number of rows.
    """
    # low registers for what is loaded: shorter instructions
    sums = [f"r{12 - q}" for q in range(shape.block)]
    spare = [r for r in (*(f"r{i}" for i in range(4, 13)), "lr") if r not in sums]
    along = shape.block * shape.stride * 2
    lines = [SAVED]
    if shape.blocks > 1:
        lines += ["push {r3}", "1:", f"mov r3, #{shape.blocks}"]
    lines += ["2:", f"ldr {sums[0]}, [r1, #0]", *(f"mov {a}, {sums[0]}" for a in sums[1:])]
    lines += _schedule(shape, sums, spare)
    store = "str"
    if shape.output is not None:
        store, (multiplier, power, zero, *_) = "strb", spare
        lines += [f"ldr {multiplier}, [r1, #4]", f"ldr {power}, [r1, #8]"]
        lines += constant(zero, shape.output.zero_point)
        lines += finish(shape.output, sums, multiplier, power, zero)
    lines += [f"{store} {a}, [r2, #{q * shape.out_step}]" for q, a in enumerate(sums)]
    x_rest, out_rest = 4 * shape.row_step, shape.out_row
    if shape.blocks > 1:
        lines += [*add("r0", "r0", along, spare[0])]
        lines += [*add("r2", "r2", shape.block * shape.out_step, spare[0])]
        lines += ["subs r3, r3, #1", "bne 2b"]
        x_rest -= shape.blocks * along
        out_rest -= shape.blocks * shape.block * shape.out_step
        lines += [f"ldr {spare[1]}, [sp, #0]"]
    lines += [*add("r0", "r0", x_rest, spare[0]), *add("r2", "r2", out_rest, spare[0])]
    if shape.blocks > 1:
        lines += [f"subs {spare[1]}, {spare[1]}, #1", f"str {spare[1]}, [sp, #0]", "bne 1b"]
        return [*lines, "add sp, sp, #4", RETURN]
    return [*lines, "subs r3, r3, #1", "bne 2b", RETURN]


def dense_kernel(shape: DenseShape) -> list[str]:
    """``f(x, w, quant, out, quads)``: groups of four outputs of a dense layer.

    Arguments: the input as int16, the weights as int8 (for each pair of inputs a word of outputs
    0 and 1, then one of 2 and 3, each (o k, o' k, o k', o' k')), the outputs' constants (bias, m',
    2**(32-n)), the output. Weights are read once, so they stay where they are and are widened here.

    Where lanes are merged, the products of all lanes are ``s + 256 s'``: only the first weights are
    widened, for ``s``, and ``s'`` follows at the end, exactly, as long as it has no more than 24
    bits.
    """
    sums, (x, a, b, t, *_) = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
    # stack: 0 x, 4 quads, 8 end of x
    lines = [SAVED, "sub sp, sp, #12", "str r0, [sp, #0]", f"ldr r4, [sp, #{12 + SAVED_BYTES}]"]
    lines += ["str r4, [sp, #4]", *add("r4", "r0", 4 * shape.words, "r5"), "str r4, [sp, #8]"]
    # the bias of a merged output would be lost among the other's bits: it is added at the end
    starts = [i - i % 2 if shape.merged else i for i in range(len(sums))]
    lines += ["1:", "ldr r0, [sp, #0]"]
    lines += [f"ldr {s}, [r2, #{12 * i}]" for i, s in zip(starts, sums, strict=True)]
    lines += ["2:"]
    for i in range(shape.chunk):
        lines += [f"ldr {x}, [r0, #{4 * i}]", f"ldr {a}, [r1, #{8 * i}]"]
        lines += [f"ldr {b}, [r1, #{8 * i + 4}]"]
        for w, (even, odd) in ((a, sums[:2]), (b, sums[2:])):
            lines += [f"sxtb16 {t}, {w}"]
            lines += [] if shape.merged else [f"sxtb16 {w}, {w}, ror #8"]
            lines += [f"smlad {even}, {x}, {t}, {even}", f"smlad {odd}, {x}, {w}, {odd}"]
    lines += [*add("r0", "r0", 4 * shape.chunk, x), *add("r1", "r1", 8 * shape.chunk, x)]
    lines += [f"ldr {x}, [sp, #8]", f"cmp r0, {x}", "bne 2b"]
    lines += dense_finish(shape, sums, (a, b, "r12"))
    lines += [f"ldr {a}, [sp, #4]", f"subs {a}, {a}, #1"]
    return [*lines, f"str {a}, [sp, #4]", "bne 1b", "add sp, sp, #12", RETURN]


def dense_finish(shape: DenseShape, sums: Sequence[str], spare: tuple[str, str, str]) -> list[str]:
    """Write four outputs' sums, whose constants r2 points at, to r3; both move on."""
    a, b, zero = spare
    lines: list[str] = []
    if shape.merged:
        for i in (1, 3):
            lines += [f"ldr {a}, [r2, #{12 * i}]", f"sub {sums[i]}, {sums[i]}, {sums[i - 1]}"]
            lines += [f"add {sums[i]}, {a}, {sums[i]}, asr #8"]
    if shape.output is None:
        lines += [f"str {s}, [r3, #{4 * i}]" for i, s in enumerate(sums)]
        lines += ["add r3, r3, #16"]
    else:
        lines += constant(zero, shape.output.zero_point)
        for i, s in enumerate(sums):
            lines += [f"ldr {a}, [r2, #{12 * i + 4}]", f"ldr {b}, [r2, #{12 * i + 8}]"]
            lines += [*finish(shape.output, [s], a, b, zero), f"strb {s}, [r3, #{i}]"]
        lines += ["add r3, r3, #4"]
    return [*lines, "add r2, r2, #48"]
