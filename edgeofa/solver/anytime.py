"""Search under a predictor that is a network, or any other objective, with the exact solver inside.

1. The objective is made linear (a network at the average subnet, a black box by regression, see
   ``linear``), and the exact dynamic program gives the best subnet of every context under that.
2. Each is improved by exchange: the best of the most promising changes is taken (``moves``, singly
   and in sets of two and three that change different places and keep the limits), until nothing
   improves. What is promising, a network's slope says; where that finds nothing better, and for a
   black box always, every single change is evaluated and sets are ranked by the sum of effects.
   Sets let one layer grow by what another gives back.
3. With the calls that are left, new starts are made of the best rows found, two of them crossed or
   one shaken, and exchanged anew.

The result is the best found, without proof; ``bound`` says how much better any subnet can be. It is
the same for the same seed and number of calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgeofa.errors import NoSubnetFits
from edgeofa.solver.choices import BlackBox, Floats
from edgeofa.solver.fronts import Fronts
from edgeofa.solver.linear import linear_problem
from edgeofa.solver.problem import Bools, Ints, Limits, Problem
from edgeofa.solver.relaxed import scarcest
from edgeofa.solver.searchers.base import Search, Searcher, SearchResult

DEFAULT_CALLS = 6000
#: of the calls, those that a black box may be asked for a linear fit
_FIT_SHARE = 0.1
_FIT_CALLS = 512
#: sets looked at of each size, by slope alone and by what single changes gave
_QUICK = 16
_SETS = 48
#: sets that grow by one more change
_BEAM = 64
_LARGEST = 3
#: how far below the best found all changes of a row are still looked at
_CLOSE = 0.001
#: starts that are exchanged at all, and until nothing improves
_STARTS = 16
_KEPT = 3
_POOL = 6
_CROSSED = 0.25
_CROSS_TRIES = 30
#: changes of a shaken row, from the first number to below the second
_SHAKEN = (4, 13)
_SHAKE_TRIES = 200
_LEAST_GAIN = 1e-7


@dataclass(frozen=True)
class AnytimeSearcher(Searcher):
    """Exact solver, exchange and restarts; for any objective.

    Args:
        time_limit_s: stop after this long even when calls are left (the result then depends on it).
    """

    name: ClassVar[str] = "anytime"
    time_limit_s: float | None = None

    def run(self, search: Search) -> None:
        late = None if self.time_limit_s is None else search.seconds + self.time_limit_s
        exchange = _Exchange(search, late)
        starts = first_solutions(search)
        if not len(starts):
            if sum(limit is not None for limit in search.choices.limits.sums) < 2:
                raise NoSubnetFits(
                    "no subnet is within the budgets",
                    where=f"space {search.choices.problem.space.name}",
                    hint="edgeofa solve names the budget that the leanest subnet needs",
                )
            starts = search.random_rows(1)
        values = search.evaluate(starts)
        order = np.argsort(-values, kind="stable")[:_STARTS]
        found = [exchange.improve(starts[n], float(values[n]), steps=1) for n in order]
        found.sort(key=lambda pair: -pair[1])
        pool = _Pool(search)
        for row, value in found[:_KEPT]:
            pool.add(*exchange.improve(row, value))
        while not exchange.over:
            row = pool.start()
            pool.add(*exchange.improve(row, float(search.evaluate(row[None])[0])))


def anytime(
    problem: Problem,
    limits: Limits,
    *,
    calls: int = DEFAULT_CALLS,
    seconds: float | None = None,
    seed: int = 0,
    objective: BlackBox | None = None,
    state: Path | None = None,
) -> SearchResult:
    """The best subnet found within ``limits`` by at most ``calls`` predictions.

    ``objective`` and ``state`` as in :meth:`Searcher.search`.

    Raises:
        NoSubnetFits: no subnet is within the limits; with one summed limit this is proven.
    """
    searcher = AnytimeSearcher(seconds)
    return searcher.search(problem, limits, calls, seed, objective=objective, state=state)


def first_solutions(search: Search) -> Ints:
    """Rows: the exact optimum of every context under a linear model of the objective.

    With several summed limits the dynamic program keeps the scarcest (by share of the budget that
    an average layer takes); rows that break another limit are left out.
    """
    choices = search.choices
    rows = values = None
    if search.objective.function is not None:
        calls = min(_FIT_CALLS, max(1, int(search.budget_calls * _FIT_SHARE)))
        rows = search.random_rows(calls)
        values = search.evaluate(rows)
    problem = linear_problem(choices, rows, values)
    axis = scarcest(choices)
    count = len(problem.resolutions)
    weights = np.zeros((count, problem.columns), dtype=np.int64)
    limit = np.zeros(count, dtype=np.int64)
    if axis is not None:
        weights[:, axis] = 1
        limit[:] = choices.limits.sums[axis] or 0
    fronts = Fronts(problem, weights, limit)
    c, cost, gain = fronts.root()
    # costs ascend within a context: its last point is the best that fits
    last = len(c) - 1 - np.unique(c[::-1], return_index=True)[1]
    if not len(last):
        return np.zeros((0, 1 + choices.positions), dtype=np.int64)
    picks = fronts.retrace(problem, c[last], cost[last], gain[last])
    starts = np.column_stack([c[last], picks[:, choices.edges]])
    return starts[choices.fits(starts)]


class _Pool:
    """The best rows that nothing improved, and new starts made of them."""

    def __init__(self, search: Search):
        self._search = search
        self._members: list[tuple[float, Ints]] = []

    def add(self, row: Ints, value: float) -> None:
        if not any(np.array_equal(row, known) for _, known in self._members):
            self._members.append((value, row))
            self._members.sort(key=lambda member: -member[0])
            del self._members[_POOL:]

    def start(self) -> Ints:
        """A cross of two members within the limits, or one of them shaken."""
        search, rng, rows = self._search, self._search.rng, [row for _, row in self._members]
        if len(rows) > 1 and rng.random() < _CROSSED:
            for _ in range(_CROSS_TRIES):
                one, other = rng.choice(len(rows), 2, replace=False)
                row = search.moves.crossed(rows[one], rows[other], rng)
                known = any(np.array_equal(row, r) for r in rows)
                if not known and search.choices.fits(row[None])[0]:
                    return row
        start = rows[0] if rng.random() < 0.5 else rows[int(rng.integers(len(rows)))]
        changes = int(rng.integers(*_SHAKEN))
        for _ in range(_SHAKE_TRIES):
            row = start
            for _ in range(changes):
                row = search.moves.mutated(row, rng)
            if search.choices.fits(row[None])[0]:
                return row
        return start


class _Exchange:
    """Local search from one row; every row that it looks at counts as a call."""

    def __init__(self, search: Search, late: float | None):
        self._search = search
        self._choices = search.choices
        self._late = late
        sums = search.choices.limits.sums
        self._most = np.array([0 if s is None else s for s in sums])
        self._bound = np.array([s is not None for s in sums])

    @property
    def over(self) -> bool:
        late = self._late is not None and self._search.seconds > self._late
        return late or not self._search.left

    def improve(self, row: Ints, value: float, steps: int | None = None) -> tuple[Ints, float]:
        """The row after at most ``steps`` improvements, and its value."""
        while not self.over and steps != 0:
            better, reached = self._step(row, value)
            if reached <= value + _LEAST_GAIN:
                break
            row, value = better, reached
            steps = None if steps is None else steps - 1
        return row, value

    def _step(self, row: Ints, value: float) -> tuple[Ints, float]:
        """The best of the most promising changes, or of all of them where those are no better."""
        search = self._search
        singles, spans = search.moves.singles(row)
        gains = search.estimated(row, singles)
        if gains is not None:
            better, reached = self._best(row, value, singles, spans, gains, _QUICK)
            if reached > value + _LEAST_GAIN:
                return better, reached
            if search.trace[-1].value - value > _CLOSE:
                return row, value
        values = search.values(singles)
        n = len(values)
        return self._best(row, value, singles[:n], spans[:n], values - value, _SETS)

    def _best(
        self, row: Ints, value: float, singles: Ints, spans: Ints, gains: Floats, count: int
    ) -> tuple[Ints, float]:
        """The best of single changes and sets of them, ``count`` of each size looked at."""
        search, choices = self._search, self._choices
        if not len(gains):
            return row, value
        costs = choices.sums(singles) - choices.sums(row[None])
        useful = self._useful(spans, gains, costs[:, self._bound])
        singles, spans = singles[useful], spans[useful]
        gains, costs = gains[useful], costs[useful]
        if not len(gains):
            return row, value
        room = self._most - choices.sums(row[None])[0]
        changes = singles - row
        sets = self._sets(spans, gains, costs, room, count)
        fresh = [row + changes[chosen].sum(axis=1) for chosen in sets]
        candidates = np.unique(np.concatenate(fresh), axis=0)
        reached = search.evaluate(candidates)
        if not len(reached):
            return row, value
        top = int(reached.argmax())
        return candidates[top], float(reached[top])

    def _useful(self, spans: Ints, gains: Floats, costs: Ints) -> Ints:
        """Changes that gain or save something, less those that another of the place outdoes."""
        useful = np.flatnonzero((gains > 0) | (costs < 0).any(axis=1))
        if costs.shape[1] != 1:
            return useful
        place = spans[useful] @ np.array([len(self._choices.leaving), 1])
        order = np.lexsort((-gains[useful], costs[useful, 0], place))
        useful, place = useful[order], place[order]
        # by rising cost, a change must gain more than all before it; places are lifted apart
        far = 2 * float(np.abs(gains).max()) + 1
        lifted = gains[useful] + far * np.unique(place, return_inverse=True)[1]
        before = np.maximum.accumulate(lifted)[:-1]
        return useful[np.concatenate([[True], lifted[1:] > before])] if len(useful) else useful

    def _sets(self, spans: Ints, gains: Floats, costs: Ints, room: Ints, count: int) -> list[Ints]:
        """(sets, size) indices of changes of different places that fit, by the sum of gains."""
        before = np.less_equal(spans[:, None, 1], spans[None, :, 0])
        apart = np.asarray(before | before.T)
        everyone = np.arange(len(spans))[:, None]
        order = np.argsort(-gains, kind="stable")
        over = (costs[order] > room) & self._bound
        found: list[Ints] = [everyone[order[np.flatnonzero(~over.any(axis=1))[:count]]]]
        members, gain, cost = everyone, gains, costs
        for size in range(2, _LARGEST + 1):
            total = gain[:, None] + gains[None]
            possible: Bools = np.ones(total.shape, dtype=np.bool_)
            for axis in np.flatnonzero(self._bound):
                possible &= cost[:, None, axis] + costs[None, :, axis] <= room[axis]
            for column in members.T:
                possible &= apart[column]
            if size == 2:
                possible &= spans[:, :1] < spans[None, :, 0]
            ranks = np.where(possible, total, -np.inf).ravel()
            most = min(max(count, _BEAM), len(ranks) - 1)
            top = np.argpartition(-ranks, most)[:most]
            top = top[np.argsort(-ranks[top], kind="stable")]
            one, other = np.divmod(top[np.isfinite(ranks[top])], len(spans))
            members = np.column_stack([members[one], other])
            found.append(members[:count])
            gain, cost = gain[one] + gains[other], cost[one] + costs[other]
        return found
