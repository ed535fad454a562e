"""int8 operators over an image's pixels: means, pools, padding."""

from __future__ import annotations

from math import prod

from tvm import tirx

from edgeofa.backends.tvm.emit import (
    Buffer,
    Emitter,
    Expr,
    constant,
    convert,
    larger,
    load,
    smaller,
    splat,
)
from edgeofa.backends.tvm.int8_band import copy_run, fill_run
from edgeofa.backends.tvm.int8_constants import Header, header
from edgeofa.backends.tvm.int8_isa import Isa
from edgeofa.backends.tvm.int8_machine import activation_limits, quantizations
from edgeofa.backends.tvm.int8_simple import Int8Simple, cover
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call, Template
from edgeofa.graph.int8_kernels import mean_multiplier
from edgeofa.graph.ir import Array

#: of a pool's window, in pixels: the float32 quotients of larger ones could be off by one
_LARGEST_WINDOW = 4096


class Mean(Int8Simple):
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

        cover(e, isa, y, constant(0), channels, numbers.limits(), values)


class Pool(Int8Simple):
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

            cover(e, isa, y, base, channels, limits, values)

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


class Pad(Int8Simple):
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


TEMPLATES: tuple[Template, ...] = (Mean(), Pool(), Pad())
