"""Where activations lie: lifetimes, an arena plan, and the peak.

The unit of time is the operator: at operator i its inputs and its output are alive together with
everything that a later operator still reads. The graph's input lives from the start and its output
to the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from edgeofa.graph.ir import Graph, Op

ALIGNMENT_BYTES = 16
#: placements that a plan chooses among
_MOST_ORDERS = 200

_ELEMENTWISE = frozenset({"add", "mul", "hard_swish"})


@dataclass(frozen=True)
class MemoryPlan:
    """An arena plan; all sequences are indexed by tensor number.

    Attributes:
        offsets: byte offset of each tensor in the arena, a multiple of 16.
        lifetimes: first and last operator (both inclusive) at which each tensor is alive.
        peak_bytes: size of the arena.
        bound_bytes: the largest sum of live bytes over time; no plan can be smaller.
        live_bytes: what is alive at each operator, scratch memory left out.
        scratch_offsets: byte offset of each operator's scratch memory, where it has any.
    """

    offsets: tuple[int, ...]
    lifetimes: tuple[tuple[int, int], ...]
    peak_bytes: int
    bound_bytes: int
    live_bytes: tuple[int, ...]
    scratch_offsets: tuple[int, ...]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def lifetimes(graph: Graph) -> tuple[tuple[int, int], ...]:
    """First and last operator at which each tensor is alive."""
    first = [0] * len(graph.tensors)
    last = [0] * len(graph.tensors)
    for step, op in enumerate(graph.ops):
        first[op.output] = last[op.output] = step
        for number in op.inputs:
            last[number] = step
    last[graph.output] = max(len(graph.ops) - 1, 0)
    return tuple(zip(first, last, strict=True))


def weight_bytes(graph: Graph) -> int:
    """Bytes of weights and biases as stored: 4 each in float32; 1 and 4 in int8."""
    return sum(a.nbytes for op in graph.ops for a in (op.weight, op.bias) if a is not None)


#: operator number -> positions of the inputs that its output may lie over
Overwrites = Callable[[int], Sequence[int]]


def plan_memory(
    graph: Graph, *, in_place: bool | Overwrites = False, scratch_bytes: Sequence[int] = ()
) -> MemoryPlan:
    """Plan the activation arena: the best of greedy-by-size, first-fit in execution order, and,
    with scratch memory, where both miss the bound, some random orders (always the same ones).

    Greedy by size is Pisarchyk and Lee's (2020, "Efficient memory management for deep neural net
    inference"), which TFLite and tflite-micro use too.

    Args:
        in_place: let an operator write over an input of at least its output's size that nothing
            reads later: all elementwise ones, or those of which a function says so. Only for
            runtimes whose kernels allow it.
        scratch_bytes: for each operator, memory that it needs while it runs.
    """
    lives = lifetimes(graph)
    sizes = [_aligned(t.nbytes) for t in graph.tensors]
    overwrites = _elementwise(graph) if in_place is True else in_place
    buffers = _buffers(graph, lives, overwrites) if overwrites else list(range(len(sizes)))
    spans: dict[int, tuple[int, int]] = {}
    for number, buffer in enumerate(buffers):
        start, end = lives[number]
        known = spans.get(buffer, (start, end))
        spans[buffer] = (min(known[0], start), max(known[1], end))
    steps = range(max(len(graph.ops), 1))
    live = tuple(
        sum(sizes[b] for b, (start, end) in spans.items() if start <= step <= end) for step in steps
    )
    for step, size in enumerate(scratch_bytes):
        spans[len(sizes)] = (step, step)
        sizes.append(_aligned(size))
    by_size = sorted(spans, key=lambda b: (-sizes[b], spans[b][0], b))
    by_time = sorted(spans, key=lambda b: (spans[b][0], -sizes[b], b))
    bound = max(map(sum, zip_longest(live, map(_aligned, scratch_bytes), fillvalue=0)))
    placements = [_place(order, spans, sizes) for order in (by_size, by_time)]
    rng = random.Random(0)
    most = _MOST_ORDERS if scratch_bytes else len(placements)
    while min(_peak(at, sizes) for at in placements) > bound and len(placements) < most:
        placements.append(_place(rng.sample(by_size, len(by_size)), spans, sizes))
    best = min(placements, key=lambda at: _peak(at, sizes))
    scratch = range(len(graph.tensors), len(sizes))
    return MemoryPlan(
        tuple(best[b] for b in buffers),
        lives,
        _peak(best, sizes),
        bound,
        live,
        tuple(best[b] for b in scratch),
    )


def _peak(offsets: dict[int, int], sizes: Sequence[int]) -> int:
    return max(offset + sizes[b] for b, offset in offsets.items())


def _place(
    order: Sequence[int], spans: dict[int, tuple[int, int]], sizes: Sequence[int]
) -> dict[int, int]:
    """Put each buffer at the lowest gap that is free during its whole life."""
    offsets: dict[int, int] = {}
    for buffer in order:
        start, end = spans[buffer]
        busy = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in offsets
            if spans[other][0] <= end and start <= spans[other][1]
        )
        offset = 0
        for low, high in busy:
            if low - offset >= sizes[buffer]:
                break
            offset = max(offset, high)
        offsets[buffer] = offset
    return offsets


def _elementwise(graph: Graph) -> Overwrites:
    def overwrites(step: int) -> Sequence[int]:
        op = graph.ops[step]
        same = graph.tensors[op.output].nbytes
        return [
            position
            for position, number in enumerate(op.inputs)
            if op.kind in _ELEMENTWISE and graph.tensors[number].nbytes == same
        ]

    return overwrites


def _buffers(graph: Graph, lives: Sequence[tuple[int, int]], overwrites: Overwrites) -> list[int]:
    """For each tensor the tensor whose buffer it shares, itself where it shares none."""
    buffers = list(range(len(graph.tensors)))
    for step, op in enumerate(graph.ops):
        victim = _overwritten(graph, op, step, lives, overwrites(step))
        if victim is not None:
            buffers[op.output] = buffers[victim]
    return buffers


def _overwritten(
    graph: Graph,
    op: Op,
    step: int,
    lives: Sequence[tuple[int, int]],
    positions: Sequence[int],
) -> int | None:
    for number in (op.inputs[position] for position in positions):
        dies = lives[number][1] == step and op.inputs.count(number) == 1
        if dies and graph.tensors[number].nbytes >= graph.tensors[op.output].nbytes:
            return number
    return None
