"""Where activations lie: lifetimes, an arena plan, and the peak.

The unit of time is the operator: at operator i its inputs and its output are alive together with
everything that a later operator still reads. The graph's input lives from the start and its output
to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.graph.ir import Graph, Op

ALIGNMENT_BYTES = 16

_ELEMENTWISE = frozenset({"add", "mul", "hard_swish"})


@dataclass(frozen=True)
class MemoryPlan:
    """An arena plan; all sequences are indexed by tensor number.

    Attributes:
        offsets: byte offset of each tensor in the arena, a multiple of 16.
        lifetimes: first and last operator (both inclusive) at which each tensor is alive.
        peak_bytes: size of the arena.
        bound_bytes: the largest sum of live bytes over time; no plan can be smaller.
    """

    offsets: tuple[int, ...]
    lifetimes: tuple[tuple[int, int], ...]
    peak_bytes: int
    bound_bytes: int


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


def plan_memory(graph: Graph, *, in_place: bool = False) -> MemoryPlan:
    """Plan the activation arena: the best of greedy-by-size and first-fit in execution order.

    Greedy by size is Pisarchyk and Lee's (2020, "Efficient memory management for deep neural net
    inference"), which TFLite and tflite-micro use too.

    Args:
        in_place: let an elementwise operator write over an input of the same size that nothing
            reads later. Only for runtimes whose kernels allow it.
    """
    lives = lifetimes(graph)
    sizes = [_aligned(t.nbytes) for t in graph.tensors]
    buffers = _buffers(graph, lives) if in_place else list(range(len(sizes)))
    spans: dict[int, tuple[int, int]] = {}
    for number, buffer in enumerate(buffers):
        start, end = lives[number]
        known = spans.get(buffer, (start, end))
        spans[buffer] = (min(known[0], start), max(known[1], end))
    by_size = sorted(spans, key=lambda b: (-sizes[b], spans[b][0], b))
    by_time = sorted(spans, key=lambda b: (spans[b][0], -sizes[b], b))
    placements = [_place(order, spans, sizes) for order in (by_size, by_time)]
    peaks = [max(at[b] + sizes[b] for b in at) for at in placements]
    best = placements[peaks.index(min(peaks))]
    bound = max(
        sum(sizes[b] for b, (start, end) in spans.items() if start <= step <= end)
        for step in range(max(len(graph.ops), 1))
    )
    return MemoryPlan(tuple(best[b] for b in buffers), lives, min(peaks), bound)


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


def _buffers(graph: Graph, lives: Sequence[tuple[int, int]]) -> list[int]:
    """For each tensor the tensor whose buffer it shares, itself where it shares none."""
    buffers = list(range(len(graph.tensors)))
    for step, op in enumerate(graph.ops):
        victim = _overwritten(graph, op, step, lives)
        if victim is not None:
            buffers[op.output] = buffers[victim]
    return buffers


def _overwritten(graph: Graph, op: Op, step: int, lives: Sequence[tuple[int, int]]) -> int | None:
    if op.kind not in _ELEMENTWISE:
        return None
    for number in op.inputs:
        dies = lives[number][1] == step and op.inputs.count(number) == 1
        if dies and graph.tensors[number].nbytes == graph.tensors[op.output].nbytes:
            return number
    return None
