"""Pareto fronts of cost and score, for all resolutions in one sorted array.

A network is built layer by layer. Node ``(stage, position)`` means: ``position`` layers of the
stage are placed. The front of a node holds every non-dominated (cost, score) of the ways to
complete a network from there: either the stage stops (where its depths allow) or one more layer is
placed. It is built from the last stage backwards, by exact dynamic programming on integers.

To treat all resolutions at once, the sort key of an entry is ``resolution * span + cost`` with a
``span`` above every cost, and its score is lifted by ``resolution * 2**48``, above every score.
Both then ascend along a front, over resolutions too.

Where cost and score are nearly the same thing, every sum is non-dominated and a front would not fit
the memory. Past ``MAX_POINTS`` a front is thinned: costs are rounded *down* to a power of two, so
that the best score within some room is then an upper bound of the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.solver.problem import Ints, Problem

_LIFT = 1 << 48
MAX_POINTS = 1 << 17
#: the score of what is impossible; sums of a few of these stay in 64 bits
IMPOSSIBLE = -(1 << 60)
Node = tuple[int, int]


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
        weights: (resolutions, 3) non-negative integers; the cost of an option is
            ``weights @ costs``.
        limit: (resolutions,) the most that a whole network may cost under that sum; ways that
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
        costs = {
            (i, j): np.einsum("roa,ra->ro", slot.costs, weights)
            for i, stage in enumerate(problem.stages)
            for j, slot in enumerate(stage.slots)
        }
        most = int(self.fixed.max()) + sum(int(c.max()) for c in costs.values())
        self.span = 1 << most.bit_length()
        if self.span * count >= 1 << 62 or count >= 1 << 13:
            raise UsageError(
                f"costs of {count} resolutions do not fit one 64-bit key",
                where=f"space {problem.space.name}",
                hint="solve for fewer resolutions at a time",
            )
        self._first = np.arange(count, dtype=np.int64) * self.span
        self._last = self._first + (self.span - 1)
        if limit is not None:
            self._last = self._first + np.clip(limit - self.fixed, -1, self.span - 1)
        self._nodes = self._build(problem, costs)

    def _build(self, problem: Problem, costs: dict[Node, Ints]) -> dict[Node, Front]:
        resolutions = np.flatnonzero(problem.allowed & (self._last >= self._first))
        end = Front(self._first[resolutions], resolutions * _LIFT)
        nodes: dict[Node, Front] = {(len(problem.stages), 0): end}
        for i, stage in reversed(list(enumerate(problem.stages))):
            stopped = nodes[i + 1, 0]
            nodes[i, len(stage.slots)] = stopped
            for j, slot in reversed(list(enumerate(stage.slots))):
                after = nodes[i, j + 1]
                r = after.keys // self.span
                keys = (after.keys[:, None] + costs[i, j][r]).ravel()
                scores = (after.scores[:, None] + slot.scores[r]).ravel()
                keep = slot.allowed[r].ravel() & (
                    keys <= np.repeat(self._last[r], len(slot.layers))
                )
                keys, scores = keys[keep], scores[keep]
                if j in stage.depths:
                    keys = np.concatenate([keys, stopped.keys])
                    scores = np.concatenate([scores, stopped.scores])
                nodes[i, j] = self._thinned(_pareto(keys, scores))
        return nodes

    def _thinned(self, front: Front) -> Front:
        step = 1
        while len(front) > self._max_points:
            self.exact = False
            step *= 2
            # span is a power of two, so rounding stays inside a resolution
            front = _pareto(front.keys // step * step, front.scores)
        return front

    def root(self) -> tuple[Ints, Ints, Ints]:
        """Resolution index, cost and score of every non-dominated whole network (ends included)."""
        front = self._nodes[0, 0]
        r = front.keys // self.span
        return r, front.keys - self._first[r] + self.fixed[r], front.scores - r * _LIFT

    def best(self, node: Node, resolutions: Ints, room: Ints) -> Ints:
        """The best score of completing from ``node`` at a cost of at most ``room``.

        ``IMPOSSIBLE`` where nothing fits. ``resolutions`` and ``room`` have one shape.
        """
        front = self._nodes[node]
        if not len(front):
            return np.full(room.shape, IMPOSSIBLE, dtype=np.int64)
        first = self._first[resolutions]
        at = np.searchsorted(front.keys, first + np.minimum(room, self.span - 1), side="right") - 1
        fits = (room >= 0) & (at >= 0) & (front.keys[at] >= first)
        return np.where(fits, front.scores[at] - resolutions * _LIFT, IMPOSSIBLE)

    def retrace(self, problem: Problem, resolutions: Ints, costs: Ints, scores: Ints) -> Ints:
        """Option indices (points, slots of the space), -1 for no layer, of points of ``root``."""
        rows = np.arange(len(costs))
        room = costs - self.fixed[resolutions]
        want = scores.copy()
        columns: list[Ints] = []
        for i, stage in enumerate(problem.stages):
            going = np.ones(len(rows), dtype=np.bool_)
            for j, slot in enumerate(stage.slots):
                if j in stage.depths:
                    going = going & (self.best((i + 1, 0), resolutions, room) < want)
                spent = np.einsum("poa,pa->po", slot.costs[resolutions], self.weights[resolutions])
                gained = slot.scores[resolutions]
                owner = np.broadcast_to(resolutions[:, None], gained.shape)
                ends = self.best((i, j + 1), owner, room[:, None] - spent)
                ways = slot.allowed[resolutions] & (ends >= want[:, None] - gained)
                pick = ways.argmax(axis=1)
                columns.append(np.where(going, pick, -1))
                room = np.where(going, room - spent[rows, pick], room)
                want = np.where(going, want - gained[rows, pick], want)
        return np.stack(columns, axis=1)
