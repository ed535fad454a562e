"""What int8 operators without weights share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, constant, load
from edgeofa.backends.tvm.int8_constants import HEADER
from edgeofa.backends.tvm.int8_isa import Isa
from edgeofa.backends.tvm.int8_machine import isa_of
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.simple import Simple, operands
from edgeofa.backends.tvm.templates import Call, Config
from edgeofa.graph.ir import Array

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


class Int8Simple(Simple):
    """A function of (input, [other operand], numbers, output)."""

    dtype = "int8"
    #: int32 numbers that the function reads
    constant_count = HEADER

    def function(
        self,
        kernel: Kernel,
        machine: Machine,
        config: Config,  # noqa: ARG002 - there are no knobs
        statics: tuple[int, ...],  # noqa: ARG002 - nor statics
        name: str,
    ) -> PrimFunc:
        e = Emitter()
        inputs = operands(e, kernel)
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


def cover(
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
