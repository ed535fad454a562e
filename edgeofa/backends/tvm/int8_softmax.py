"""int8 softmax, in the fixed-point arithmetic of the reference."""

from __future__ import annotations

from math import prod

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
)
from edgeofa.backends.tvm.int8_isa import Isa
from edgeofa.backends.tvm.int8_machine import quantizations
from edgeofa.backends.tvm.int8_simple import Int8Simple
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.templates import Call, Template
from edgeofa.graph.int8_softmax import C48_17, CM32_17, exp_table
from edgeofa.graph.ir import Array


class Softmax(Int8Simple):
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


TEMPLATES: tuple[Template, ...] = (Softmax(),)
