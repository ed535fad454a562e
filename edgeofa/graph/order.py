"""In which order operators run: the one whose activations take the least memory.

Where a network branches, its operators may run in several orders, and what is alive at the worst
moment differs. The search is exact: states are the sets of operators that have run, and the best
state to go on from is the one whose worst moment so far is least (Dijkstra's algorithm, with the
maximum in place of the sum). Chains have one order; graphs with too many sets keep theirs.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from edgeofa.graph.ir import Graph
from edgeofa.graph.memory import Overwrites, aligned

#: sets of operators that a search may look at
MOST_STATES = 5_000


def reordered(
    graph: Graph, *, overwrites: Overwrites | None = None, scratch_bytes: Sequence[int] = ()
) -> Graph:
    """``graph`` with its operators in the order of the lowest peak; itself where none is lower.

    Args:
        overwrites, scratch_bytes: as in :func:`edgeofa.graph.memory.plan_memory`, by the operators'
            numbers in ``graph``.
    """
    search = _Search(graph, overwrites, scratch_bytes)
    order = search.best()
    if order is None or search.peak(order) >= search.peak(range(len(graph.ops))):
        return graph
    return replace(graph, ops=tuple(graph.ops[step] for step in order))


class _Search:
    """Sets of operators are bits of an integer."""

    def __init__(self, graph: Graph, overwrites: Overwrites | None, scratch_bytes: Sequence[int]):
        self._graph = graph
        self._sizes = [aligned(t.nbytes) for t in graph.tensors]
        self._scratch = [aligned(n) for n in scratch_bytes] or [0] * len(graph.ops)
        self._readers = [0] * len(graph.tensors)
        made_by: dict[int, int] = {}
        for step, op in enumerate(graph.ops):
            made_by[op.output] = step
            for number in op.inputs:
                self._readers[number] |= 1 << step
        self._needs = [
            sum({1 << made_by[number] for number in op.inputs if number in made_by})
            for op in graph.ops
        ]
        self._leads = [overwrites(step) if overwrites else {} for step in range(len(graph.ops))]

    def _dies(self, number: int, step: int, done: int) -> bool:
        """Whether nothing reads a tensor after ``step``, everything in ``done`` having run."""
        left = self._readers[number] & ~done & ~(1 << step)
        return not left and number != self._graph.output

    def _advance(self, step: int, done: int, live: int) -> tuple[int, int]:
        """(bytes alive while operator ``step`` runs, and after it)."""
        op = self._graph.ops[step]
        dying = [n for n in dict.fromkeys(op.inputs) if self._dies(n, step, done)]
        out = self._sizes[op.output]
        saved = [0]
        for position, lead in self._leads[step].items():
            number = op.inputs[position]
            if number in dying and op.inputs.count(number) == 1:
                size = self._sizes[number]
                saved.append(size + out - max(out, aligned(max(lead.least, 0)) + size))
        during = live + out + self._scratch[step] - max(saved)
        return during, live + out - sum(self._sizes[n] for n in dying)

    def peak(self, order: Sequence[int]) -> int:
        """The most that is alive at once."""
        worst, done, live = 0, 0, self._sizes[self._graph.input]
        for step in order:
            during, live = self._advance(step, done, live)
            worst, done = max(worst, during), done | 1 << step
        return worst

    def best(self) -> list[int] | None:
        """An order of the lowest peak; None where there are too many to tell."""
        every = (1 << len(self._graph.ops)) - 1
        came_from: dict[int, tuple[int, int]] = {}
        # of equal peaks the one that got furthest, then the one that is closest to the given order
        waiting = [(0, 0, 0, self._sizes[self._graph.input], 0, 0)]
        while waiting:
            worst, steps, done, live, before, step = heapq.heappop(waiting)
            if done in came_from:
                continue
            came_from[done] = before, step
            if done == every:
                return _path(came_from, every)
            if len(came_from) > MOST_STATES:
                return None
            for following, needs in enumerate(self._needs):
                if done >> following & 1 or needs & ~done:
                    continue
                during, after = self._advance(following, done, live)
                reached = done | 1 << following
                if reached not in came_from:
                    state = max(worst, during), steps - 1, reached, after, done, following
                    heapq.heappush(waiting, state)
        return None


def _path(came_from: dict[int, tuple[int, int]], every: int) -> list[int]:
    order, done = [], every
    while done:
        done, step = came_from[done]
        order.append(step)
    return order[::-1]
