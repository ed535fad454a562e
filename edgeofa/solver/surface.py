"""Every network that no other beats in score and in two costs at once.

The costs are sums, of one board or of two, or the peak of one (a maximum). A context at a time, the
front of every node holds the non-dominated (cost, cost, score) of the ways to the end; it is built
from the last node backwards, on integers, with pointers back to the options.

Such a front can be long. Past ``max_points`` it is thinned: of all points in one cell of a grid
over the two costs only the best in score stays. What is returned are then still real networks, none
of which beats another, and for every network there is one that scores as much and costs at most
``slack`` more in each of the two. ``slack`` is 0 where nothing was thinned: the surface is then
exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.budgets import AXES, Bools, Ints, Limits
from edgeofa.solver.core import Arc, Path, Problem
from edgeofa.solver.question import Goal

MAX_POINTS = 1 << 15
_CHUNK = 512


@dataclass(frozen=True, eq=False)
class Surface:
    """Networks in ascending order of the first cost, then the second.

    ``costs`` is (points, 2) in ns, nJ or bytes, ``scores`` (points,) in units. ``slack`` is in the
    unit of each cost, see above.
    """

    problem: Problem
    goals: tuple[Goal, Goal]
    contexts: Ints
    costs: Ints
    scores: Ints
    paths: tuple[Path, ...]
    slack: tuple[int, int]

    @property
    def exact(self) -> bool:
        return self.slack == (0, 0)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class _Front:
    """Points of one node, and where each goes on: arc, its option, and the target's point."""

    costs: Ints  # (n, 2)
    scores: Ints
    arc: Ints
    option: Ints
    after: Ints

    def take(self, rows: Ints | Bools) -> _Front:
        return _Front(**{name: array[rows] for name, array in vars(self).items()})


def surface(
    problem: Problem,
    goals: Sequence[Goal],
    *,
    limits: Limits | None = None,
    max_points: int = MAX_POINTS,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Surface:
    """The surface of score and two costs.

    Args:
        limits: only their peaks count.
        progress: told how many contexts are done, of how many.

    Raises:
        UsageError: not two different costs.
        NoSubnetFits: every network has a block above a peak.
    """
    if len(goals) != 2 or goals[0] == goals[1]:
        raise UsageError("a surface is of two different costs", hint="such as latency,weight")
    within = problem.within(limits or Limits(()))
    contexts = np.flatnonzero(within.allowed).tolist()
    columns = [_Column(problem, goal) for goal in goals]
    found: list[tuple[int, _Front, list[_Front]]] = []
    slack = np.zeros(2, dtype=np.int64)
    for done, context in enumerate(contexts):
        progress(done, len(contexts))
        fronts, lost = _fronts(within, context, columns, max_points)
        slack = np.maximum(slack, lost)
        found.append((context, fronts[0], fronts))
    progress(len(contexts), len(contexts))
    owner = np.repeat(np.arange(len(found)), [len(f.scores) for _, f, _ in found])
    if not len(owner):
        raise NoSubnetFits(
            "every subnet has a block above the peak memory budget",
            where=f"space {problem.space.name}",
            hint="raise the peak budget",
        )
    whole = np.concatenate([f.costs for _, f, _ in found])
    scores = np.concatenate([f.scores for _, f, _ in found])
    point = np.concatenate([np.arange(len(f.scores)) for _, f, _ in found])
    kept = non_dominated(whole, scores)
    paths = tuple(
        _path(within, found[int(n)][2], int(p))
        for n, p in zip(owner[kept], point[kept], strict=True)
    )
    where = np.array([found[int(n)][0] for n in owner[kept]], dtype=np.int64)
    return Surface(
        problem,
        (goals[0], goals[1]),
        where,
        whole[kept],
        scores[kept],
        paths,
        (int(slack[0]), int(slack[1])),
    )


class _Column:
    """One cost: where its figures are, and how they add up along a path."""

    def __init__(self, problem: Problem, goal: Goal):
        if goal.board >= len(problem.boards):
            raise UsageError(f"there is no board {goal.board}")
        self.peak = goal.cost == "peak"
        self._board = goal.board
        self._column = 0
        if goal.cost != "peak":
            self._column = len(AXES) * goal.board + AXES.index(goal.cost)
            if goal.cost == "energy":
                problem.boards[goal.board].need_energies()

    def of(self, arc: Arc, context: int) -> Ints:
        """(options,) what each option of an arc costs."""
        if self.peak:
            return np.asarray(arc.peaks[context, :, self._board])
        return np.asarray(arc.costs[context, :, self._column])

    def fixed(self, problem: Problem, context: int) -> int:
        if self.peak:
            return int(problem.fixed_peaks[context, self._board])
        return int(problem.fixed_costs[context, self._column])

    def join(self, one: Ints, other: Ints) -> Ints:
        return np.maximum(one, other) if self.peak else one + other


def _fronts(
    problem: Problem, context: int, columns: list[_Column], max_points: int
) -> tuple[list[_Front], Ints]:
    """The front of every node of one context (ends included at the start), and what thinning
    may have cost."""
    nothing = np.zeros(0, dtype=np.int64)
    empty = _Front(nothing.reshape(0, 2), nothing, nothing, nothing, nothing)
    fronts = [empty] * problem.nodes
    start = np.array([[c.fixed(problem, context) for c in columns]])
    score = problem.fixed_scores[context : context + 1]
    none = np.zeros(1, dtype=np.int64)
    fronts[-1] = _Front(start, score, none, none, none)
    slack = np.zeros((problem.nodes, 2), dtype=np.int64)
    numbers = {id(arc): n for n, arc in enumerate(problem.arcs)}
    for node in range(problem.nodes - 2, -1, -1):
        parts = [
            _before(arc, numbers[id(arc)], context, columns, fronts[arc.target])
            for arc in problem.leaving[node]
        ]
        arrays = [vars(p) for p in parts] or [vars(empty)]
        joined = _Front(**{n: np.concatenate([a[n] for a in arrays]) for n in arrays[0]})
        joined = joined.take(non_dominated(joined.costs, joined.scores))
        thin, cell = _thinned(joined, max_points)
        fronts[node] = thin
        after = [slack[arc.target] for arc in problem.leaving[node]]
        slack[node] = np.max(after, axis=0, initial=0) + cell
    return fronts, slack[0]


def _before(arc: Arc, number: int, context: int, columns: list[_Column], after: _Front) -> _Front:
    options = _useful(arc, context, columns)
    count, ways = len(options), len(after.scores)
    costs = np.stack(
        [
            c.join(c.of(arc, context)[options][:, None], after.costs[None, :, n]).ravel()
            for n, c in enumerate(columns)
        ],
        axis=1,
    )
    return _Front(
        costs.reshape(count * ways, 2),
        (arc.scores[context][options][:, None] + after.scores).ravel(),
        np.full(count * ways, number, dtype=np.int64),
        np.repeat(options, ways),
        np.tile(np.arange(ways), count),
    )


def _useful(arc: Arc, context: int, columns: list[_Column]) -> Ints:
    """The allowed options that no other of the same arc beats in everything."""
    options = np.flatnonzero(arc.allowed[context])
    costs = np.stack([c.of(arc, context)[options] for c in columns], axis=1)
    return options[np.sort(non_dominated(costs, arc.scores[context][options]))]


def _thinned(front: _Front, max_points: int) -> tuple[_Front, Ints]:
    """At most ``max_points`` of the points, and the size of a cell (0 where all stay)."""
    if len(front.scores) <= max_points:
        return front, np.zeros(2, dtype=np.int64)
    low = front.costs.min(axis=0)
    span = front.costs.max(axis=0) - low + 1
    # the points lie on a surface, so that they fill about as many cells as the grid has in one row
    cells = max(max_points // 4, 2)
    while True:
        size = np.maximum(-(-span // cells), 1)
        cell = (front.costs - low) // size
        key = cell[:, 0] * (cells + 1) + cell[:, 1]
        order = np.lexsort((-front.scores, key))
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = key[order][1:] != key[order][:-1]
        kept = front.take(np.sort(order[first]))
        kept = kept.take(non_dominated(kept.costs, kept.scores))
        if len(kept.scores) <= max_points or cells <= 2:
            return kept, size
        cells = cells * 3 // 4


def non_dominated(costs: Ints, scores: Ints) -> Ints:
    """Rows that no other equals or beats in two costs and the score, by first then second cost.

    Of equal rows the first stays. A sweep along the first cost keeps a staircase of the best score
    within a second cost; rows are held against it in chunks.
    """
    order = np.lexsort((-scores, costs[:, 1], costs[:, 0]))
    second, score = costs[order, 1], scores[order]
    kept: list[Ints] = []
    stair_cost = np.zeros(0, dtype=np.int64)
    stair_score = np.zeros(0, dtype=np.int64)
    for start in range(0, len(order), _CHUNK):
        c, s = second[start : start + _CHUNK], score[start : start + _CHUNK]
        alive = np.arange(len(c))
        if len(stair_cost):
            at = np.searchsorted(stair_cost, c, side="right") - 1
            alive = alive[(at < 0) | (stair_score[at] < s)]
            c, s = c[alive], s[alive]
        # earlier rows cost no more in the first, so the second and the score decide
        beaten = (c[:, None] >= c) & (s[:, None] <= s)
        beaten &= np.arange(len(c))[:, None] > np.arange(len(c))
        left = ~beaten.any(axis=1)
        kept.append(order[start + alive[left]])
        stair_cost = np.concatenate([stair_cost, c[left]])
        stair_score = np.concatenate([stair_score, s[left]])
        by_cost = np.lexsort((-stair_score, stair_cost))
        stair_cost, stair_score = stair_cost[by_cost], stair_score[by_cost]
        best = np.maximum.accumulate(stair_score)
        rises = np.ones(len(best), dtype=np.bool_)
        rises[1:] = best[1:] > best[:-1]
        stair_cost, stair_score = stair_cost[rises], stair_score[rises]
    return np.concatenate(kept) if kept else order


def _path(problem: Problem, fronts: list[_Front], point: int) -> Path:
    steps, node = [], 0
    while node < problem.nodes - 1:
        front = fronts[node]
        arc = problem.arcs[int(front.arc[point])]
        steps.append((arc.edge, int(arc.options[int(front.option[point])])))
        node, point = arc.target, int(front.after[point])
    return tuple(steps)
