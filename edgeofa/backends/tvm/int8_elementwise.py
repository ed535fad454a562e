"""int8 operators that make each element from one or two: sums, products, hard-swish."""

from __future__ import annotations

from math import prod

import numpy as np

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, constant, convert, load, splat
from edgeofa.backends.tvm.int8_constants import Header, header
from edgeofa.backends.tvm.int8_isa import Isa
from edgeofa.backends.tvm.int8_machine import activation_limits, quantizations
from edgeofa.backends.tvm.int8_simple import Int8Simple, cover
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.templates import Call, Template
from edgeofa.graph.int8_kernels import add_multipliers, hard_swish_table, mul_multiplier
from edgeofa.graph.ir import Array

#: elements that one turn of the loop over a table's uses takes
_UNROLLED = 8


class Elementwise(Int8Simple):
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

        def run(base: Expr, count: int, by_channel: bool) -> None:
            def values(at: Expr, vectors: int) -> list[Expr]:
                first = isa.widened(e, x, base + at, vectors)
                others = second(at if by_channel else base + at, vectors)
                return [combine(a, b) for a, b in zip(first, others, strict=True)]

            cover(e, isa, y, base, count, limits, values)

        if kernel.other == "channel":
            channels = kernel.input[-1]
            with e.loop(prod(kernel.input) // channels, "p") as p:
                run(e.bind(p * channels, "base"), channels, True)
        else:
            run(constant(0), prod(kernel.input), False)


class HardSwish(Int8Simple):
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


TEMPLATES: tuple[Template, ...] = (Elementwise(), HardSwish())
