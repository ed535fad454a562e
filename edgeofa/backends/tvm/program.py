"""A graph as calls of generated functions, with a plan of their memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeofa.backends.tvm.fuse import fuse
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call, Config, template_for
from edgeofa.graph.ir import Graph, Op, Quantization, Tensor
from edgeofa.graph.memory import plan_memory

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

#: of every buffer: a cache line, and as much behind it that vectors may read
ALIGNMENT_BYTES = 64

#: the configuration that a kernel is made with
Choose = Callable[[Kernel], Config]


@dataclass(frozen=True, eq=False)
class Function:
    """One generated function, and whose work it does."""

    name: str
    kernel: Kernel
    config: Config
    code: PrimFunc


@dataclass(frozen=True)
class Step:
    """One call: the function's number, and where its arguments lie.

    ``arguments`` are in the function's order; each is an offset into the constants or, negative
    ones as ``-1 - offset``, into the arena.
    """

    function: int
    arguments: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Everything that a library is made of. Offsets and sizes in bytes."""

    input: Tensor
    output: Tensor
    functions: tuple[Function, ...]
    steps: tuple[Step, ...]
    constants: bytes
    arena_bytes: int
    input_offset: int
    output_offset: int


def default_config(kernel: Kernel, machine: Machine) -> Config:
    """What an untuned kernel is made with."""
    return template_for(kernel, machine).default(kernel, machine)


def make_program(graph: Graph, machine: Machine, choose: Choose) -> Program:
    """Generate the code of a graph; ``UnsupportedOperator`` names what no template takes."""
    calls = fuse(graph, machine)
    configs = [choose(call.kernel) for call in calls]
    scratch = [
        template_for(call.kernel, machine).scratch_bytes(call.kernel, machine, config)
        for call, config in zip(calls, configs, strict=True)
    ]
    offsets, scratch_offsets, arena_bytes = _plan(graph, calls, scratch)
    functions: dict[tuple[object, ...], Function] = {}
    numbers: dict[str, int] = {}
    steps = []
    constants = bytearray()
    for i, (call, config) in enumerate(zip(calls, configs, strict=True)):
        template = template_for(call.kernel, machine)
        statics = template.statics(call)
        identity = (call.kernel, tuple(config.items()), statics)
        if identity not in functions:
            name = f"kernel{len(functions)}"
            code = template.function(call.kernel, machine, config, statics, name)
            functions[identity] = Function(name, call.kernel, config, code)
            numbers[name] = len(functions) - 1
        arguments = [_in_arena(offsets[number]) for number in call.inputs]
        for array in template.constants(call, machine, config):
            arguments.append(len(constants))
            constants += np.ascontiguousarray(array).tobytes()
            constants += bytes(-len(constants) % ALIGNMENT_BYTES + ALIGNMENT_BYTES)
        if scratch[i]:
            arguments.append(_in_arena(scratch_offsets[i]))
        arguments.append(_in_arena(offsets[call.output]))
        steps.append(Step(numbers[functions[identity].name], tuple(arguments)))
    return Program(
        input=graph.input_tensor,
        output=graph.output_tensor,
        functions=tuple(functions.values()),
        steps=tuple(steps),
        constants=bytes(constants),
        arena_bytes=arena_bytes,
        input_offset=offsets[graph.input],
        output_offset=offsets[graph.output],
    )


def _in_arena(offset: int) -> int:
    return -1 - offset


def _plan(
    graph: Graph, calls: tuple[Call, ...], scratch: list[int]
) -> tuple[dict[int, int], tuple[int, ...], int]:
    """Offsets of the tensors that the calls pass on, of the scratch memories, and the size of
    the arena. What is fused away takes no memory; buffers are whole cache lines."""
    used = sorted({graph.input, *(n for c in calls for n in (*c.inputs, c.output))})
    place = {number: n for n, number in enumerate(used)}
    width = 4 if graph.precision == "float32" else 1
    sizes = {graph.input: graph.input_tensor.nbytes}
    sizes |= {call.output: width * call.kernel.output_elements for call in calls}
    tensors = tuple(
        Tensor(graph.tensors[n].name, (1, _padded(sizes[n])), Quantization(1.0, 0)) for n in used
    )
    ops = tuple(
        Op(c.kernel.kind, c.op.name, tuple(place[n] for n in c.inputs), place[c.output])
        for c in calls
    )
    fused = Graph(graph.name, tensors, ops, place[graph.input], place[graph.output])
    plan = plan_memory(fused, scratch_bytes=[_padded(size) for size in scratch])
    offsets = {number: plan.offsets[n] for number, n in place.items()}
    return offsets, plan.scratch_offsets, plan.peak_bytes + ALIGNMENT_BYTES


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
