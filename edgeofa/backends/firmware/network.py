"""A whole network, lowered and placed in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from edgeofa.backends.firmware import simple
from edgeofa.backends.firmware.conv import lower_conv
from edgeofa.backends.firmware.layer import Layer
from edgeofa.backends.firmware.linear import lower_dense, lower_depthwise
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.ir import Graph, Op, OpKind
from edgeofa.graph.memory import MemoryPlan, plan_memory
from edgeofa.graph.order import reordered
from edgeofa.graph.rewrites import fold_pads

#: each attempt to meet the budget leaves this much less room, for what lies between buffers
_ATTEMPTS, _TIGHTER = 12, 0.97

_SIMPLE: dict[OpKind, Callable[[Graph, Op], Layer]] = {
    "fully_connected": lower_dense,
    "add": simple.lower_add,
    "mul": simple.lower_mul,
    "mean": simple.lower_mean,
    "average_pool2d": simple.lower_pool,
    "max_pool2d": simple.lower_pool,
    "pad": simple.lower_pad,
    "hard_swish": simple.lower_hard_swish,
    "softmax": simple.lower_softmax,
}


@dataclass(frozen=True, eq=False)
class Network:
    """The graph that is executed, its layers in order (one for each operator), their memory."""

    graph: Graph
    layers: tuple[Layer, ...]
    plan: MemoryPlan

    @property
    def weight_bytes(self) -> int:
        """Constants in flash."""
        return sum(c.nbytes for layer in self.layers for c in layer.constants)


def _lower(graph: Graph, op: Op, limit: int, strict: bool) -> Layer:
    if op.kind == "conv2d":
        return lower_conv(graph, op, limit, strict=strict)
    if op.kind == "depthwise_conv2d":
        if simple.uniform(op):
            return simple.lower_uniform(graph, op)
        return lower_depthwise(graph, op, limit, strict=strict)
    return _SIMPLE[op.kind](graph, op)


def _plan(graph: Graph, layers: list[Layer]) -> MemoryPlan:
    return plan_memory(
        graph,
        in_place=lambda step: layers[step].overwrites,
        scratch_bytes=[layer.scratch_bytes for layer in layers],
    )


def _ordered(graph: Graph, strict: bool) -> tuple[Graph, list[Layer]]:
    """The graph in the order that takes the least memory, and its smallest layers."""
    layers = {op.output: _lower(graph, op, 0, strict) for op in graph.ops}
    given = [layers[op.output] for op in graph.ops]
    graph = reordered(
        graph,
        overwrites=lambda step: given[step].overwrites,
        scratch_bytes=[layer.scratch_bytes for layer in given],
    )
    return graph, [layers[op.output] for op in graph.ops]


def lower(graph: Graph, sram_bytes: int | None = None) -> Network:
    """Lower an int8 graph and plan its arena.

    Operators run in the order that takes the least memory (:mod:`edgeofa.graph.order`). Layers take
    as much scratch memory as makes them fast while the arena stays within
    ``sram_bytes``, where any plan can. Without ``sram_bytes`` they keep to what activations alone
    would take if nothing were computed in place, or a little more where that would slow them down.

    Raises:
        UnsupportedOperator: a float32 graph, or what no kernel computes.
    """
    if graph.precision != "int8":
        raise UnsupportedOperator("the firmware back end compiles int8 graphs", where=graph.name)
    strict = sram_bytes is not None
    graph, smallest = _ordered(fold_pads(graph), strict)
    least = _plan(graph, smallest)
    wanted = plan_memory(graph).bound_bytes if sram_bytes is None else sram_bytes
    budget = max(wanted, least.bound_bytes)
    layers = [_lower(graph, op, sys.maxsize, strict) for op in graph.ops]
    best = plan = _plan(graph, layers)
    chosen, room = list(layers), float(budget)
    for _ in range(_ATTEMPTS):
        if best.peak_bytes <= budget:
            break
        for step, op in enumerate(graph.ops):
            limit = max(int(room) - plan.live_bytes[step], 0)
            if layers[step].scratch_bytes > limit:
                layers[step] = _lower(graph, op, limit, strict)
        plan = _plan(graph, layers)
        if plan.peak_bytes < best.peak_bytes:
            best, chosen = plan, list(layers)
        room *= _TIGHTER
    return Network(graph, tuple(chosen), best)
