"""Where activations lie: lifetimes, an arena plan, and the peak.

The unit of time is the operator: at operator i its inputs and its output are alive together with
everything that a later operator still reads. The graph's input lives from the start and its output
to the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from edgeofa.graph.ir import Graph

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
        live_bytes: the least that is alive at each operator, scratch memory left out.
        scratch_offsets: byte offset of each operator's scratch memory, where it has any.
    """

    offsets: tuple[int, ...]
    lifetimes: tuple[tuple[int, int], ...]
    peak_bytes: int
    bound_bytes: int
    live_bytes: tuple[int, ...]
    scratch_offsets: tuple[int, ...]


def aligned(size: int) -> int:
    """``size`` bytes up to a whole multiple of ``ALIGNMENT_BYTES``."""
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


@dataclass(frozen=True)
class Lead:
    """How far an input must lie above the output that overwrites it, in bytes.

    Anything from ``least`` to ``most`` (None: any distance) lets every input byte be read before an
    output byte is written there.
    """

    least: int
    most: int | None = None


#: operator number -> for the positions of inputs that its output may overwrite, how
Overwrites = Callable[[int], Mapping[int, Lead]]


def plan_memory(
    graph: Graph, *, in_place: bool | Overwrites = False, scratch_bytes: Sequence[int] = ()
) -> MemoryPlan:
    """Plan the activation arena: the best of greedy-by-size, first-fit in execution order, and,
    with scratch memory, where both miss the bound, some random orders (always the same ones).

    Greedy by size is Pisarchyk and Lee's (2020, "Efficient memory management for deep neural net
    inference"), which TFLite and tflite-micro use too.

    Args:
        in_place: let an operator write over an input that nothing reads later: all elementwise ones
            over inputs of their size, or as a function says. Only for runtimes whose kernels
            allow it.
        scratch_bytes: for each operator, memory that it needs while it runs.
    """
    lives = lifetimes(graph)
    sizes = [aligned(t.nbytes) for t in graph.tensors]
    overwrites = _elementwise(graph) if in_place is True else in_place
    leads = _leads(graph, lives, overwrites) if overwrites else {}
    spans = list(lives)
    live = tuple(_live(graph, step, spans, sizes, leads) for step in range(_steps(graph)))
    for step, size in enumerate(scratch_bytes):
        spans.append((step, step))
        sizes.append(aligned(size))
    bound = max(map(sum, zip_longest(live, map(aligned, scratch_bytes), fillvalue=0)))
    buffers = range(len(sizes))
    by_size = sorted(buffers, key=lambda b: (-sizes[b], spans[b][0], b))
    by_time = sorted(buffers, key=lambda b: (spans[b][0], -sizes[b], b))
    placements = [_place(order, spans, sizes, leads) for order in (by_size, by_time)]
    rng = random.Random(0)
    most = _MOST_ORDERS if scratch_bytes else len(placements)
    while min(_peak(at, sizes) for at in placements) > bound and len(placements) < most:
        placements.append(_place(rng.sample(by_size, len(by_size)), spans, sizes, leads))
    best = min(placements, key=lambda at: _peak(at, sizes))
    count = len(graph.tensors)
    return MemoryPlan(
        tuple(best[b] for b in buffers[:count]),
        lives,
        _peak(best, sizes),
        bound,
        live,
        tuple(best[b] for b in buffers[count:]),
    )


def _steps(graph: Graph) -> int:
    return max(len(graph.ops), 1)


def _peak(offsets: dict[int, int], sizes: Sequence[int]) -> int:
    return max(offset + sizes[b] for b, offset in offsets.items())


def _live(
    graph: Graph,
    step: int,
    spans: Sequence[tuple[int, int]],
    sizes: Sequence[int],
    leads: Mapping[tuple[int, int], Lead],
) -> int:
    """Bytes alive at an operator, its output over an input where that is allowed and saves most."""
    alive = [b for b, (start, end) in enumerate(spans) if start <= step <= end]
    total = sum(sizes[b] for b in alive)
    if step >= len(graph.ops):
        return total
    output = graph.ops[step].output
    saved = [0]
    for number in graph.ops[step].inputs:
        lead = leads.get((number, output))
        if lead is not None:
            both = max(sizes[output], aligned(max(lead.least, 0)) + sizes[number])
            saved.append(sizes[number] + sizes[output] - both)
    return total - max(saved)


def _place(
    order: Sequence[int],
    spans: Sequence[tuple[int, int]],
    sizes: Sequence[int],
    leads: Mapping[tuple[int, int], Lead],
) -> dict[int, int]:
    """Put each buffer at the lowest offset that is free during its whole life."""
    offsets: dict[int, int] = {}
    for buffer in order:
        start, end = spans[buffer]
        taken: list[tuple[int, int]] = []
        for other, at in offsets.items():
            if spans[other][0] <= end and start <= spans[other][1]:
                taken += _forbidden(buffer, other, at, sizes, leads)
        offset = 0
        for low, high in sorted(taken):
            if offset <= low:
                break
            offset = max(offset, aligned(high))
        offsets[buffer] = offset
    return offsets


def _forbidden(
    buffer: int,
    other: int,
    at: int,
    sizes: Sequence[int],
    leads: Mapping[tuple[int, int], Lead],
) -> list[tuple[int, int]]:
    """Offsets of ``buffer`` that a buffer at ``at`` forbids: strictly between each pair."""
    low, high = at - sizes[buffer], at + sizes[other]
    over, under = leads.get((other, buffer)), leads.get((buffer, other))
    if over is not None:
        # this is the output: from ``most`` to ``least`` below the input
        upper = [] if over.most is None else [(low, at - over.most)]
        return [pair for pair in (*upper, (max(low, at - over.least), high)) if pair[0] < pair[1]]
    if under is not None:
        lower = [] if under.most is None else [(at + under.most, high)]
        return [pair for pair in ((low, min(high, at + under.least)), *lower) if pair[0] < pair[1]]
    return [(low, high)]


def _elementwise(graph: Graph) -> Overwrites:
    def overwrites(step: int) -> Mapping[int, Lead]:
        op = graph.ops[step]
        if op.kind not in _ELEMENTWISE:
            return {}
        same = graph.tensors[op.output].nbytes
        inputs = enumerate(op.inputs)
        return {p: Lead(0) for p, n in inputs if graph.tensors[n].nbytes == same}

    return overwrites


def _leads(
    graph: Graph, lives: Sequence[tuple[int, int]], overwrites: Overwrites
) -> dict[tuple[int, int], Lead]:
    """(input, output) of the operators that may write over an input which dies with them."""
    found = {}
    for step, op in enumerate(graph.ops):
        for position, lead in overwrites(step).items():
            number = op.inputs[position]
            if lives[number][1] == step and op.inputs.count(number) == 1:
                found[number, op.output] = lead
    return found
