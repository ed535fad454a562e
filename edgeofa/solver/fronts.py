"""Pareto fronts of cost and score, for all contexts in one sorted array.

The front of a node holds every non-dominated (cost, score) of the ways to complete a network from
there. It is built from the last node backwards, by exact dynamic programming on integers: each arc
adds its options to what its target's front holds.

To treat all contexts at once, the sort key of an entry is ``context * span + cost`` with a ``span``
above every cost, and its score is lifted by ``context * 2**48``, above every score. Both then
ascend along a front, over contexts too.

Where cost and score are nearly the same thing, every sum is non-dominated and a front would not fit
the memory. Past ``MAX_POINTS`` a front is thinned: costs are rounded *down* to a power of two, so
that the best score within some room is then an upper bound of the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Ints
from edgeofa.solver.core import Arc, Problem

_LIFT = 1 << 48
MAX_POINTS = 1 << 17
#: the score of what is impossible; sums of a few of these stay in 64 bits
IMPOSSIBLE = -(1 << 60)


@dataclass(frozen=True, eq=False)
class Front:
    """Keys ascending; ``scores`` are lifted, strictly ascending."""

    keys: Ints
    scores: Ints

    def __len__(self) -> int:
        return len(self.keys)


def _pareto(keys: Ints, scores: Ints) -> Front:
    """The entries that no other equals or beats in both cost and score."""
    order = np.argsort(keys)
    keys, scores = keys[order], scores[order]
    best = np.maximum.accumulate(scores)
    rises = np.ones(len(scores), dtype=np.bool_)
    rises[1:] = scores[1:] > best[:-1]
    # of equal keys only the last riser is not dominated
    risers = np.flatnonzero(rises)
    keys, scores = keys[risers], scores[risers]
    last = np.ones(len(keys), dtype=np.bool_)
    last[:-1] = keys[1:] != keys[:-1]
    return Front(keys[last], scores[last])


class Fronts:
    """The front of every node under one weighted sum of the costs.

    Args:
        weights: (contexts, columns) non-negative integers; the cost of an option is
            ``weights @ costs``.
        limit: (contexts,) the most that a whole network may cost under that sum; ways that
            cost more are left out. None for no limit.
        max_points: fronts larger than this are thinned, see above; ``exact`` says whether any was.
    """

    def __init__(
        self,
        problem: Problem,
        weights: Ints,
        limit: Ints | None = None,
        max_points: int = MAX_POINTS,
    ):
        count = len(problem.resolutions)
        self.exact = True
        self._max_points = max_points
        self.weights = weights
        self.fixed = (problem.fixed_costs * weights).sum(axis=1)
        costs = [np.einsum("coa,ca->co", arc.costs, weights) for arc in problem.arcs]
        dearest = np.zeros(problem.nodes, dtype=np.int64)
        for arc, cost in zip(reversed(problem.arcs), reversed(costs), strict=True):
            most = int(cost.max(initial=0)) + dearest[arc.target]
            dearest[arc.source] = max(dearest[arc.source], most)
        most = int(self.fixed.max()) + int(dearest[0])
        self.span = 1 << most.bit_length()
        if self.span * count >= 1 << 62 or count >= 1 << 13:
            raise UsageError(
                f"costs of {count} contexts do not fit one 64-bit key",
                where=f"space {problem.space.name}",
                hint="solve for fewer resolutions at a time",
            )
        self._first = np.arange(count, dtype=np.int64) * self.span
        self._last = self._first + (self.span - 1)
        if limit is not None:
            self._last = self._first + np.clip(limit - self.fixed, -1, self.span - 1)
        self._nodes = self._build(problem, costs)

    def _build(self, problem: Problem, costs: list[Ints]) -> list[Front]:
        contexts = np.flatnonzero(problem.allowed & (self._last >= self._first))
        empty = Front(contexts[:0], contexts[:0])
        nodes = [empty] * problem.nodes
        nodes[-1] = Front(self._first[contexts], contexts * _LIFT)
        cost_of = {id(arc): cost for arc, cost in zip(problem.arcs, costs, strict=True)}
        for node in range(problem.nodes - 2, -1, -1):
            arcs = problem.leaving[node]
            if len(arcs) == 1 and arcs[0].free:
                nodes[node] = nodes[arcs[0].target]
                continue
            parts = [self._before(arc, cost_of[id(arc)], nodes[arc.target]) for arc in arcs]
            keys = np.concatenate([k for k, _ in parts]) if parts else empty.keys
            scores = np.concatenate([s for _, s in parts]) if parts else empty.scores
            nodes[node] = self._thinned(_pareto(keys, scores))
        return nodes

    def _before(self, arc: Arc, costs: Ints, after: Front) -> tuple[Ints, Ints]:
        """Keys and scores of every option of an arc with every way to go on after it."""
        if arc.free:
            return after.keys, after.scores
        c = after.keys // self.span
        keys = after.keys[:, None] + costs[c]
        keep = arc.allowed[c] & (keys <= self._last[c][:, None])
        return keys[keep], (after.scores[:, None] + arc.scores[c])[keep]

    def _thinned(self, front: Front) -> Front:
        step = 1
        while len(front) > self._max_points:
            self.exact = False
            step *= 2
            # span is a power of two, so rounding stays inside a context
            front = _pareto(front.keys // step * step, front.scores)
        return front

    def root(self) -> tuple[Ints, Ints, Ints]:
        """Context, cost and score of every non-dominated whole network (ends included)."""
        front = self._nodes[0]
        c = front.keys // self.span
        return c, front.keys - self._first[c] + self.fixed[c], front.scores - c * _LIFT

    def best(self, node: int, contexts: Ints, room: Ints) -> Ints:
        """The best score of completing from ``node`` at a cost of at most ``room``.

        ``IMPOSSIBLE`` where nothing fits. ``contexts`` and ``room`` have one shape.
        """
        front = self._nodes[node]
        if not len(front):
            return np.full(room.shape, IMPOSSIBLE, dtype=np.int64)
        first = self._first[contexts]
        at = np.searchsorted(front.keys, first + np.minimum(room, self.span - 1), side="right") - 1
        fits = (room >= 0) & (at >= 0) & (front.keys[at] >= first)
        return np.where(fits, front.scores[at] - contexts * _LIFT, IMPOSSIBLE)

    def retrace(self, problem: Problem, contexts: Ints, costs: Ints, scores: Ints) -> Ints:
        """Options (points, edges of the automaton), -1 where not taken, of points of ``root``."""
        picks = np.full((len(costs), len(problem.automaton.edges)), -1, dtype=np.int64)
        at = np.zeros(len(costs), dtype=np.int64)
        room = costs - self.fixed[contexts]
        want = scores.copy()
        for node in range(problem.nodes - 1):
            rows = np.flatnonzero(at == node)
            for arc in problem.leaving[node]:
                if not len(rows):
                    break
                c = contexts[rows]
                spent = np.einsum("poa,pa->po", arc.costs[c], self.weights[c])
                owner = np.broadcast_to(c[:, None], spent.shape)
                ends = self.best(arc.target, owner, room[rows, None] - spent)
                gained = arc.scores[c]
                ways = arc.allowed[c] & (ends >= want[rows, None] - gained)
                taken = np.flatnonzero(ways.any(axis=1))
                n = ways[taken].argmax(axis=1)
                going = rows[taken]
                picks[going, arc.edge] = arc.options[n]
                room[going] -= spent[taken, n]
                want[going] -= gained[taken, n]
                at[going] = arc.target
                rows = rows[~ways.any(axis=1)]
        return picks
