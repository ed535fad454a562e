"""int8 operators without weights: sums, products, means, pools, padding, hard-swish, softmax."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
from tvm import tirx

from edgeofa.backends.tvm.emit import (
    Buffer,
    Emitter,
    Expr,
    constant,
    convert,
    instruction,
    larger,
    load,
    smaller,
    splat,
)
from edgeofa.backends.tvm.int8_band import copy_run, fill_run
from edgeofa.backends.tvm.int8_constants import HEADER, Header, header
from edgeofa.backends.tvm.int8_isa import Isa
from edgeofa.backends.tvm.int8_machine import activation_limits, isa_of, quantizations
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call, Config, Knobs, Template
from edgeofa.graph.int8_kernels import (
    add_multipliers,
    hard_swish_table,
    mean_multiplier,
    mul_multiplier,
)
from edgeofa.graph.int8_softmax import C48_17, CM32_17, exp_table
from edgeofa.graph.ir import Array

#: of a pool's window, in pixels: the float32 quotients of larger ones could be off by one
_LARGEST_WINDOW = 4096
_UNROLLED = 8


class _Simple(Template):
    """An operator with one obvious way to be computed: no knobs."""

    kinds: tuple[str, ...]
    constant_count = HEADER

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:  # noqa: ARG002 - any machine
        return kernel.dtype == "int8" and kernel.kind in self.kinds and kernel.residual is None

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002 - there are none
        return {}

    def default(self, kernel: Kernel, machine: Machine) -> Config:  # noqa: ARG002
        return {}

    def function(
        self,
        kernel: Kernel,
        machine: Machine,
        config: Config,  # noqa: ARG002 - there are no knobs
        statics: tuple[int, ...],  # noqa: ARG002 - nor statics
        name: str,
    ) -> Any:
        e = Emitter()
        inputs = [e.parameter("x", prod(kernel.input), "int8")]
        if kernel.other != "none":
            counts = {"same": prod(kernel.input), "channel": kernel.input[-1], "scalar": 1}
            inputs.append(e.parameter("other", counts[kernel.other], "int8"))
        c = e.parameter("c", self.constant_count, "int32")
        y = e.parameter("y", prod(kernel.output), "int8")
        self.write(e, kernel, isa_of(machine), inputs, c, y)
        return e.function(name)

    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:  # noqa: ARG002
        return (self.numbers(call, isa_of(machine)),)

    @abstractmethod
    def numbers(self, call: Call, isa: Isa) -> Array:
        """What the function reads, int32."""

    @abstractmethod
    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        isa: Isa,
        inputs: list[Buffer],
        c: Buffer,
        y: Buffer,
    ) -> None:
        """The function's statements."""


def _cover(
    e: Emitter,
    isa: Isa,
    y: Buffer,
    base: Expr,
    count: int,
    limits: list[Expr],
    values: Callable[[Expr, int], list[Expr]],
) -> None:
    """Store ``count`` elements from ``base`` on: four vectors at a time, the last ones moved back.

    Args:
        values: of so many vectors from an element on, before the zero point.
    """
    lanes, wide = isa.lanes, 4 * isa.lanes

    def one(at: Expr, vectors: int) -> None:
        isa.finish(e, y, [(e.bind(base + at, "o"), values(at, vectors))], limits)

    if count >= wide:
        with e.loop(count // wide) as i:
            one(e.bind(i * wide, "at"), 4)
        if count % wide:
            one(constant(count - wide), 4)
    elif count >= lanes:
        for i in range(ceil(count / lanes)):
            one(constant(min(i * lanes, count - lanes)), 1)
    else:
        stage = e.local(lanes, "int8", "stage")
        isa.finish(e, stage, [(constant(0), values(constant(0), 1))], limits)
        for i in range(count):
            e.store(y, base + i, load(stage, i))


class Elementwise(_Simple):
    """ADD and MUL; the other operand may be one number for each channel, or one in all."""

    kinds = ("add", "mul")

    def numbers(self, call: Call, isa: Isa) -> Array:
        a, b = call.quantizations
        result = quantizations(call)[2]
        limits = activation_limits(call.kernel.activation, result)
        zeros = (a.zero_point, b.zero_point)
        if call.kernel.kind == "add":
            numbers = add_multipliers((a, b), result)
            rescales = (*numbers.inputs, numbers.output)
            return header(isa, 0, limits, rescales=rescales, inner=zeros)
        one = mul_multiplier((a, b), result)
        return header(isa, 0, limits, rescales=(one,), inner=zeros, mode="any")

    def write(
        self, e: Emitter, kernel: Kernel, isa: Isa, inputs: list[Buffer], c: Buffer, y: Buffer
    ) -> None:
        numbers = Header(e, isa, c)
        limits = numbers.limits()
        x, other = inputs

        def second(at: Expr, vectors: int) -> list[Expr]:
            if kernel.other == "scalar":
                return [splat(convert("int32", load(other, 0)), isa.lanes)] * vectors
            return isa.widened(e, other, at, vectors)

        def combine(a: Expr, b: Expr) -> Expr:
            a, b = a - numbers.inner(0), b - numbers.inner(1)
            if kernel.kind == "add":
                return numbers.sum_of(a, b)
            return numbers.rescale(0, a * b, "any")

        def cover(base: Expr, count: int, by_channel: bool) -> None:
            def values(at: Expr, vectors: int) -> list[Expr]:
                first = isa.widened(e, x, base + at, vectors)
                others = second(at if by_channel else base + at, vectors)
                return [combine(a, b) for a, b in zip(first, others, strict=True)]

            _cover(e, isa, y, base, count, limits, values)

        if kernel.other == "channel":
            channels = kernel.input[-1]
            with e.loop(prod(kernel.input) // channels, "p") as p:
                cover(e.bind(p * channels, "base"), channels, True)
        else:
            cover(constant(0), prod(kernel.input), False)


class Mean(_Simple):
    """Sums over all pixels, rescaled once."""

    kinds = ("mean",)

    def numbers(self, call: Call, isa: Isa) -> Array:
        source, _, result = quantizations(call)
        count = prod(call.kernel.input[:-1])
        return header(
            isa,
            0,
            activation_limits("none", result),
            rescales=(mean_multiplier(count, source, result),),
            inner=(source.zero_point * count,),
            mode="any",
        )

    def write(
        self, e: Emitter, kernel: Kernel, isa: Isa, inputs: list[Buffer], c: Buffer, y: Buffer
    ) -> None:
        numbers = Header(e, isa, c)
        channels, lanes = kernel.input[-1], isa.lanes

        def values(at: Expr, vectors: int) -> list[Expr]:
            sums = [e.local(lanes, "int32") for _ in range(vectors)]
            for total in sums:
                e.store(total, 0, splat(0, lanes), lanes)
            with e.loop(prod(kernel.input[:-1]), "p") as p:
                stored = isa.widened(e, inputs[0], p * channels + at, vectors)
                for total, value in zip(sums, stored, strict=True):
                    e.store(total, 0, load(total, 0, lanes) + value, lanes)
            return [
                numbers.rescale(0, load(total, 0, lanes) - numbers.inner(0), "any")
                for total in sums
            ]

        _cover(e, isa, y, constant(0), channels, numbers.limits(), values)


class Pool(_Simple):
    """Largest or average value under a window; pixels outside do not count."""

    kinds = ("average_pool2d", "max_pool2d")

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:
        return super().accepts(kernel, machine) and prod(kernel.window) <= _LARGEST_WINDOW

    def numbers(self, call: Call, isa: Isa) -> Array:
        # the stored values themselves are averaged: nothing is added at the end
        _, low, high = activation_limits(call.kernel.activation, quantizations(call)[2])
        return header(isa, 0, (0, low, high))

    def write(
        self, e: Emitter, kernel: Kernel, isa: Isa, inputs: list[Buffer], c: Buffer, y: Buffer
    ) -> None:
        height, width, channels = kernel.input
        limits = [e.bind(limit, "limit") for limit in Header(e, isa, c).limits()]

        def bounds(number: Expr, axis: int, before: int, size: int) -> tuple[Expr, Expr]:
            first = number * kernel.stride[axis] - before
            last = smaller(first + kernel.window[axis], constant(size))
            return e.bind(larger(first, constant(0)), "low"), e.bind(last, "high")

        with e.loop(kernel.output[0], "oy") as oy, e.loop(kernel.output[1], "ox") as ox:
            rows = bounds(oy, 0, kernel.pads[0], height)
            columns = bounds(ox, 1, kernel.pads[2], width)
            base = e.bind((oy * kernel.output[1] + ox) * channels, "base")
            count = e.bind((rows[1] - rows[0]) * (columns[1] - columns[0]), "count")

            def values(at: Expr, vectors: int) -> list[Expr]:
                found = self._under(e, kernel, isa, inputs[0], rows, columns, at, vectors)
                if kernel.kind == "max_pool2d":
                    return found
                return [_average(e, isa, total, count) for total in found]

            _cover(e, isa, y, base, channels, limits, values)

    def _under(
        self,
        e: Emitter,
        kernel: Kernel,
        isa: Isa,
        x: Buffer,
        rows: tuple[Expr, Expr],
        columns: tuple[Expr, Expr],
        at: Expr,
        vectors: int,
    ) -> list[Expr]:
        """Sums or largest values of a window's pixels."""
        is_max, lanes = kernel.kind == "max_pool2d", isa.lanes
        found = [e.local(lanes, "int32") for _ in range(vectors)]
        for total in found:
            e.store(total, 0, splat(-128 if is_max else 0, lanes), lanes)
        with e.loop(rows[1] - rows[0], "ky") as ky, e.loop(columns[1] - columns[0], "kx") as kx:
            pixel = (rows[0] + ky) * kernel.input[1] + columns[0] + kx
            stored = isa.widened(e, x, e.bind(pixel * kernel.input[2] + at, "i"), vectors)
            for total, value in zip(found, stored, strict=True):
                old = load(total, 0, lanes)
                e.store(total, 0, larger(old, value) if is_max else old + value, lanes)
        return [e.bind(load(total, 0, lanes), "found") for total in found]


def _average(e: Emitter, isa: Isa, total: Expr, count: Expr) -> Expr:
    """``total / count`` rounded, ties away from zero.

    The quotient of whole numbers is taken half a step above a whole multiple, where float32 cannot
    cross into the next.
    """
    lanes = isa.lanes
    floats = f"float32x{lanes}"
    one = tirx.FloatImm("float32", 1.0)
    inverse = e.bind(one / convert("float32", count), "inverse")
    halved = tirx.shift_right(count, constant(1))
    magnitude = larger(total, splat(0, lanes) - total) + splat(halved, lanes)
    shifted = convert(floats, magnitude) + tirx.Broadcast(tirx.FloatImm("float32", 0.5), lanes)
    quotient = convert(f"int32x{lanes}", shifted * tirx.Broadcast(inverse, lanes))
    sign = e.bind(tirx.shift_right(total, splat(31, lanes)), "sign")
    return e.bind(tirx.bitwise_xor(quotient, sign) - sign, "average")


class Pad(_Simple):
    """The stored zero around an image."""

    kinds = ("pad",)

    def numbers(self, call: Call, isa: Isa) -> Array:
        return header(isa, quantizations(call)[0].zero_point, (0, -128, 127))

    def write(
        self, e: Emitter, kernel: Kernel, isa: Isa, inputs: list[Buffer], c: Buffer, y: Buffer
    ) -> None:
        height, width, channels = kernel.input
        top, _, left, _ = kernel.pads
        fill_run(e, y, Header(e, isa, c).padding, prod(kernel.output))
        with e.loop(height, "row") as row:
            to = e.bind(((row + top) * kernel.output[1] + left) * channels, "to")
            copy_run(e, y, to, inputs[0], e.bind(row * (width * channels)), width * channels)


class HardSwish(_Simple):
    """A table of all 256 stored values. Networks for int8 runtimes have none left but behind dense
    layers, see ``rewrite_hard_swish``."""

    kinds = ("hard_swish",)
    constant_count = 256

    def numbers(self, call: Call, isa: Isa) -> Array:  # noqa: ARG002 - the contract
        source, _, result = quantizations(call)
        return hard_swish_table(source, result).astype(np.int32)

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        isa: Isa,  # noqa: ARG002 - the contract
        inputs: list[Buffer],
        c: Buffer,
        y: Buffer,
    ) -> None:
        def one(at: int | Expr) -> None:
            stored = convert("int32", load(inputs[0], at))
            e.store(y, at, convert("int8", load(c, stored + 128)))

        count = prod(kernel.input)
        if count >= _UNROLLED:
            with e.loop(count // _UNROLLED) as i:
                for j in range(_UNROLLED):
                    one(i * _UNROLLED + j)
        for rest in range(count - count % _UNROLLED, count):
            one(rest)


class Softmax(_Simple):
    """Softmax over the last axis, number by number: it is the smallest part of any network.

    The numbers are exp of each difference from the largest value, in Q31, 0 beyond the radius.
    """

    kinds = ("softmax",)
    constant_count = 256

    def numbers(self, call: Call, isa: Isa) -> Array:  # noqa: ARG002 - the contract
        exps, radius = exp_table(quantizations(call)[0].scale)
        counted = np.arange(-255, 1) >= -radius
        return np.where(counted, exps, 0).astype(np.int32)

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        isa: Isa,  # noqa: ARG002 - the contract
        inputs: list[Buffer],
        c: Buffer,
        y: Buffer,
    ) -> None:
        x, channels = inputs[0], kernel.input[-1]
        with e.loop(prod(kernel.input) // channels, "row") as row:
            start = e.bind(row * channels, "start")
            found = e.local(1, "int32")
            e.store(found, 0, constant(-128))
            with e.loop(channels) as i:
                e.store(found, 0, larger(load(found, 0), convert("int32", load(x, start + i))))
            largest = e.bind(load(found, 0), "largest")

            def exp(i: Expr, start: Expr = start, largest: Expr = largest) -> Expr:
                difference = convert("int32", load(x, start + i)) - largest
                return e.bind(load(c, difference + 255), "exp")

            e.store(found, 0, constant(0))
            with e.loop(channels) as i:
                # rounded without leaving 32 bits
                half = tirx.shift_right(exp(i), constant(11))
                part = tirx.shift_right(half + 1, constant(1))
                e.store(found, 0, load(found, 0) + part)
            mantissa, shift = _reciprocal(e, e.bind(load(found, 0), "sum"))
            with e.loop(channels) as i:
                high = _high(e, convert("int64", exp(i)), mantissa)
                rounded = tirx.shift_right(high + tirx.shift_left(_wide(1), shift - 1), shift)
                stored = smaller(rounded - _wide(128), _wide(127))
                e.store(y, start + i, convert("int8", stored))


def _wide(value: int) -> Expr:
    return tirx.IntImm("int64", value)


def _kept(e: Emitter, value: Expr) -> Expr:
    """An int64 scalar in memory, where TVM's simplifier does not look into it: it would write out
    the whole chain at every use."""
    cell = e.local(1, "int64", "cell")
    e.store(cell, 0, value)
    return e.bind(load(cell, 0), "kept")


def _high(e: Emitter, a: Expr, b: Expr) -> Expr:
    """SaturatingRoundingDoublingHighMul of int64 scalars that hold int32."""
    return _kept(e, tirx.shift_right(a * b + _wide(1 << 30), _wide(31)))


def _reciprocal(e: Emitter, total: Expr) -> tuple[Expr, Expr]:
    """``int8_softmax._reciprocal``: (mantissa, shift of the product to 8 bits), int64."""
    zeros = instruction("int32", "llvm.ctlz.i32", total, tirx.IntImm("bool", 0))
    headroom = _kept(e, convert("int64", zeros))
    half = _kept(e, tirx.shift_right(tirx.shift_left(convert("int64", total), headroom), _wide(1)))
    y = _kept(e, _wide(C48_17) + _high(e, half, _wide(CM32_17)))

    def times(value: Expr, bits: int) -> Expr:
        low, high = _wide(-(1 << 31)), _wide((1 << 31) - 1)
        return smaller(larger(tirx.shift_left(value, _wide(bits)), low), high)

    for _ in range(3):
        error = _kept(e, _wide(1 << 29) - _high(e, half, y))
        y = _kept(e, y + times(_high(e, y, error), 2))
    return _kept(e, times(y, 1)), _kept(e, _wide(12 + 31 - 8) - headroom)


TEMPLATES: tuple[Template, ...] = (
    Elementwise(),
    Mean(),
    Pool(),
    Pad(),
    HardSwish(),
    Softmax(),
)
