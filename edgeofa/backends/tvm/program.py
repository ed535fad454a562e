"""A graph as calls of generated functions, with a plan of their memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeofa.backends.tvm.fuse import fuse
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call, Config, template_for
from edgeofa.graph.ir import Array, DType, Graph, Op, Quantization, Tensor
from edgeofa.graph.memory import plan_memory

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

#: of every buffer: a cache line, and as much behind it that vectors may read
ALIGNMENT_BYTES = 64

_WIDTHS: dict[DType, int] = {"float32": 4, "int8": 1}
#: the configuration that a kernel is made with
Choose = Callable[[Kernel], Config]


@dataclass(frozen=True, eq=False)
class Function:
    """One generated function, and whose work it does."""

    number: int
    name: str
    kernel: Kernel
    config: Config
    code: PrimFunc


@dataclass(frozen=True)
class Argument:
    """Where an argument lies: in the constants or in the arena, so many bytes from its start; or
    it is the input or the output of the whole, which have their ``offset`` in the arena too."""

    memory: Literal["constants", "arena", "input", "output"]
    offset: int


@dataclass(frozen=True)
class Step:
    """One call: the function's number, and its arguments in the function's order."""

    function: int
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Everything that a library is made of. Offsets and sizes in bytes.

    ``takes_input``: the kernels may read the caller's input where it is; ``gives_output``: and
    write its output, instead of the arena at these offsets.
    """

    input: Tensor
    output: Tensor
    takes_input: bool
    gives_output: bool
    functions: tuple[Function, ...]
    steps: tuple[Step, ...]
    constants: bytes
    arena_bytes: int
    input_offset: int
    output_offset: int


def default_config(kernel: Kernel, machine: Machine) -> Config:
    """What an untuned kernel is made with."""
    return template_for(kernel, machine).default(kernel, machine)


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Calls with their configurations, and where everything lies. Offsets and sizes in bytes.

    ``offsets`` are by tensor number, ``scratch_offsets`` and ``scratch_bytes`` by call.
    """

    machine: Machine
    source: Tensor
    sink: Tensor
    input: int
    output: int
    calls: tuple[Call, ...]
    configs: tuple[Config, ...]
    offsets: dict[int, int]
    scratch_offsets: tuple[int, ...]
    scratch_bytes: tuple[int, ...]
    arena_bytes: int

    def argument(self, number: int) -> Argument:
        """Where a tensor lies."""
        ends: dict[int, Literal["input", "output"]] = {self.input: "input", self.output: "output"}
        return Argument(ends.get(number, "arena"), self.offsets[number])

    def constants(self, number: int) -> Sequence[Array]:
        """Weights and the like of a call, as its function reads them."""
        call = self.calls[number]
        template = template_for(call.kernel, self.machine)
        return template.constants(call, self.machine, self.configs[number])

    @property
    def weight_bytes(self) -> int:
        """All that the library holds beside its code."""
        return sum(a.nbytes for n in range(len(self.calls)) for a in self.constants(n))


def arrange(graph: Graph, machine: Machine, choose: Choose) -> Arrangement:
    """Plan a graph; ``UnsupportedOperator`` names what no template takes."""
    calls = fuse(graph, machine)
    configs = tuple(choose(call.kernel) for call in calls)
    scratch = tuple(
        template_for(call.kernel, machine).scratch_bytes(call.kernel, machine, config)
        for call, config in zip(calls, configs, strict=True)
    )
    sizes = {graph.input: graph.input_tensor.nbytes}
    sizes |= {c.output: _WIDTHS[c.kernel.dtype] * prod(c.kernel.output) for c in calls}
    # buffers are whole cache lines; what was fused away takes none
    used = sorted({graph.input, *(n for c in calls for n in (*c.inputs, c.output))})
    place = {number: n for n, number in enumerate(used)}
    plan = plan_memory(
        Graph(
            "arena",
            tuple(Tensor(str(n), (1, _padded(sizes[n])), Quantization(1.0, 0)) for n in used),
            tuple(
                Op(c.kernel.kind, c.op.name, tuple(place[n] for n in c.inputs), place[c.output])
                for c in calls
            ),
            place[graph.input],
            place[graph.output],
        ),
        scratch_bytes=[_padded(size) for size in scratch],
    )
    return Arrangement(
        machine=machine,
        source=graph.input_tensor,
        sink=graph.output_tensor,
        input=graph.input,
        output=graph.output,
        calls=calls,
        configs=configs,
        offsets={number: plan.offsets[n] for number, n in place.items()},
        scratch_offsets=plan.scratch_offsets,
        scratch_bytes=scratch,
        arena_bytes=plan.peak_bytes + ALIGNMENT_BYTES,
    )


def make_program(plan: Arrangement) -> Program:
    """Generate the code of what was planned; calls that need the same code share a function."""
    functions: dict[tuple[object, ...], Function] = {}
    steps = []
    constants = bytearray()
    for number, (call, config) in enumerate(zip(plan.calls, plan.configs, strict=True)):
        template = template_for(call.kernel, plan.machine)
        statics = template.statics(call)
        identity = (call.kernel, tuple(config.items()), statics)
        if identity not in functions:
            name = f"kernel{len(functions)}"
            code = template.function(call.kernel, plan.machine, config, statics, name)
            functions[identity] = Function(len(functions), name, call.kernel, config, code)
        arguments = [plan.argument(n) for n in call.inputs]
        for array in plan.constants(number):
            arguments.append(Argument("constants", len(constants)))
            constants += np.ascontiguousarray(array).tobytes()
            constants += bytes(-len(constants) % ALIGNMENT_BYTES + ALIGNMENT_BYTES)
        if plan.scratch_bytes[number]:
            arguments.append(Argument("arena", plan.scratch_offsets[number]))
        arguments.append(plan.argument(call.output))
        steps.append(Step(functions[identity].number, tuple(arguments)))
    return Program(
        input=plan.source,
        output=plan.sink,
        takes_input=not any(
            template_for(c.kernel, plan.machine).reads_beyond
            for c in plan.calls
            if plan.input in c.inputs
        ),
        gives_output=not any(plan.output in c.inputs for c in plan.calls),
        functions=tuple(functions.values()),
        steps=tuple(steps),
        constants=bytes(constants),
        arena_bytes=plan.arena_bytes,
        input_offset=plan.offsets[plan.input],
        output_offset=plan.offsets[plan.output],
    )


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
