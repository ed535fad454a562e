"""Operators without weights in float32: sums, products, pools, padding, softmax."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from tvm import tirx

from edgeofa.backends.tvm.emit import (
    Buffer,
    Emitter,
    Expr,
    convert,
    larger,
    load,
    smaller,
    splat,
    splat_float,
)
from edgeofa.backends.tvm.float_finish import activate
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.simple import Simple, operands
from edgeofa.backends.tvm.templates import Call, Config, Template
from edgeofa.graph.ir import Array

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


class _FloatSimple(Simple):
    """A function of (input, [other operand], output), without constants."""

    dtype = "float32"
    reads_beyond = False

    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:  # noqa: ARG002
        return ()

    def function(
        self,
        kernel: Kernel,
        machine: Machine,
        config: Config,  # noqa: ARG002
        statics: tuple[int, ...],  # noqa: ARG002
        name: str,
    ) -> PrimFunc:
        e = Emitter()
        inputs = operands(e, kernel)
        y = e.parameter("y", prod(kernel.output), "float32")
        self.write(e, kernel, machine, inputs, y)
        return e.function(name)

    @abstractmethod
    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,
        inputs: list[Buffer],
        y: Buffer,
    ) -> None:
        """The function's statements."""


class FloatElementwise(_FloatSimple):
    """Sum, product and hard-swish, channel vector by channel vector."""

    kinds = ("add", "mul", "hard_swish")

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,
        inputs: list[Buffer],
        y: Buffer,
    ) -> None:
        x, *others = inputs
        lanes, channels = machine.lanes(4), kernel.input[-1]

        def one(at: Expr, from_other: Expr, width: int) -> None:
            value = e.bind(load(x, at, width))
            if not others:
                gate = larger(value + splat_float(3.0, width), splat_float(0.0, width))
                value = smaller(gate, splat_float(6.0, width)) * value
                value = value * splat_float(1 / 6, width)
            elif kernel.kind == "add":
                value = value + _operand(others[0], kernel, from_other, width)
            else:
                value = value * _operand(others[0], kernel, from_other, width)
            e.store(y, at, activate(value, kernel.activation, width), width)

        if kernel.other == "channel":
            with e.loop(prod(kernel.input) // channels) as pixel:
                start = e.value(pixel * channels)
                e.sweep(channels, lanes, lambda at, width: one(start + at, at, width))
        else:
            e.sweep(prod(kernel.input), lanes, lambda at, width: one(at, at, width))


def _operand(other: Buffer, kernel: Kernel, at: Expr, width: int) -> Expr:
    if kernel.other != "scalar":
        return load(other, at, width)
    return splat(load(other, 0), width)


class FloatMean(_FloatSimple):
    """Average over all pixels, a channel vector at a time."""

    kinds = ("mean",)

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,
        inputs: list[Buffer],
        y: Buffer,
    ) -> None:
        height, width, channels = kernel.input

        def one(at: int | Expr, lanes: int) -> None:
            total = e.local(lanes, "float32")
            e.store(total, 0, splat_float(0.0, lanes), lanes)
            with e.loop(height * width) as pixel:
                value = load(inputs[0], pixel * channels + at, lanes)
                e.store(total, 0, load(total, 0, lanes) + value, lanes)
            mean = load(total, 0, lanes) * splat_float(1 / (height * width), lanes)
            e.store(y, at, mean, lanes)

        e.sweep(channels, machine.lanes(4), one)


class FloatPool(_FloatSimple):
    """Largest or average value under a window; pixels outside do not count."""

    kinds = ("average_pool2d", "max_pool2d")

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,
        inputs: list[Buffer],
        y: Buffer,
    ) -> None:
        height, width, channels = kernel.input
        top, _, left, _ = kernel.pads
        is_max = kernel.kind == "max_pool2d"

        def bounds(
            number: Expr, stride: int, before: int, window: int, size: int
        ) -> tuple[Expr, Expr]:
            first = e.bind(number * stride - before)
            low = e.bind(larger(first, 0))
            high = e.bind(smaller(first + window, size))
            return low, high

        with e.loop(kernel.output[0]) as row, e.loop(kernel.output[1]) as column:
            row_low, row_high = bounds(row, kernel.stride[0], top, kernel.window[0], height)
            low, high = bounds(column, kernel.stride[1], left, kernel.window[1], width)
            start = e.value((row * kernel.output[1] + column) * channels)

            def one(at: int | Expr, lanes: int) -> None:
                found = e.local(lanes, "float32")
                empty = float.fromhex("-0x1.fffffep+127") if is_max else 0.0
                e.store(found, 0, splat_float(empty, lanes), lanes)
                with e.loop(row_high - row_low) as ky, e.loop(high - low) as kx:
                    pixel = (row_low + ky) * width + low + kx
                    value = load(inputs[0], pixel * channels + at, lanes)
                    old = load(found, 0, lanes)
                    e.store(found, 0, larger(old, value) if is_max else old + value, lanes)
                value = load(found, 0, lanes)
                if not is_max:
                    count = convert("float32", (row_high - row_low) * (high - low))
                    value = value / splat(count, lanes)
                e.store(y, start + at, activate(value, kernel.activation, lanes), lanes)

            e.sweep(channels, machine.lanes(4), one)


class FloatPad(_FloatSimple):
    """Zeros around an image."""

    kinds = ("pad",)

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,
        inputs: list[Buffer],
        y: Buffer,
    ) -> None:
        top, bottom, left, right = kernel.pads
        height, width, channels = kernel.input
        line, inner = kernel.output[1] * channels, width * channels
        lanes = machine.lanes(4)

        def fill(start: int | Expr, count: int) -> None:
            e.sweep(count, lanes, lambda at, n: e.store(y, start + at, splat_float(0.0, n), n))

        def copy(start: Expr, to: Expr) -> None:
            e.sweep(
                inner, lanes, lambda at, n: e.store(y, to + at, load(inputs[0], start + at, n), n)
            )

        fill(0, top * line + left * channels)
        with e.loop(height) as row:
            to = e.value((row + top) * line + left * channels)
            copy(e.value(row * inner), to)
            if left + right:
                with e.when(row < height - 1):
                    fill(to + inner, (left + right) * channels)
        fill((height + top - 1) * line + left * channels + inner, right * channels + bottom * line)


class FloatSoftmax(_FloatSimple):
    """Softmax over the last axis, number by number: it is the smallest part of any network."""

    kinds = ("softmax",)

    def write(
        self,
        e: Emitter,
        kernel: Kernel,
        machine: Machine,  # noqa: ARG002 - the contract
        inputs: list[Buffer],
        y: Buffer,
    ) -> None:
        x, channels = inputs[0], kernel.input[-1]
        with e.loop(prod(kernel.input) // channels) as pixel:
            start = e.value(pixel * channels)
            found = e.local(1, "float32")
            e.store(found, 0, load(x, start))
            with e.loop(channels) as c:
                e.store(found, 0, larger(load(found, 0), load(x, start + c)))
            largest = e.bind(load(found, 0))
            e.store(found, 0, splat_float(0.0, 1))
            with e.loop(channels) as c:
                value = e.bind(tirx.exp(load(x, start + c) - largest))
                e.store(y, start + c, value)
                e.store(found, 0, load(found, 0) + value)
            total = e.bind(load(found, 0))
            with e.loop(channels) as c:
                e.store(y, start + c, load(y, start + c) / total)


TEMPLATES: tuple[Template, ...] = (
    FloatElementwise(),
    FloatMean(),
    FloatPool(),
    FloatPad(),
    FloatSoftmax(),
)
