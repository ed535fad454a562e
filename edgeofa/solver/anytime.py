"""Search under a predictor that is a network, with the exact solver inside.

1. The network is made linear at the average subnet (one gradient per resolution), and the exact
   dynamic program gives the best subnet of every resolution under that model.
2. Each is improved by exchange. All single changes (a layer's option, one layer more or less) are
   evaluated. Sets of two and three changes that keep the limits are ranked by the sum of their
   effects, and the most promising are evaluated too; the best of all is taken, until nothing
   improves. Sets let one layer grow by what another gives back.
3. With the calls that are left, the best is shaken by a few random changes and exchanged anew.

The result is the best found, without proof; ``bound`` says how much better any subnet can be. It is
the same for the same seed and number of calls.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar

import numpy as np

from edgeofa.accuracy.mlp import MlpAccuracy
from edgeofa.errors import NoSubnetFits
from edgeofa.solver.choices import Choices, Floats, RowFeatures
from edgeofa.solver.fronts import Fronts
from edgeofa.solver.problem import Ints, Limits, Problem, StageSlots, restaged
from edgeofa.solver.searchers.base import Search, Searcher, SearchResult

DEFAULT_CALLS = 8000
_AVERAGED = 256
#: sets evaluated of each size, and sets that grow by one more change
_SETS = 48
_BEAM = 64
_LARGEST = 3
#: starts that are exchanged until nothing improves
_KEPT = 3
_SHAKEN = 4
_SHAKE_TRIES = 200
_LEAST_GAIN = 1e-7
_UNIT = 2.0**-40


class AnytimeSearcher(Searcher):
    """Exact solver, exchange and restarts; for additive and for network predictors.

    Args:
        seconds: stop after this long even when calls are left (the result then depends on it).
    """

    name: ClassVar[str] = "anytime"

    def __init__(self, seconds: float | None = None):
        self._seconds = seconds

    def run(self, search: Search) -> None:
        end = None if self._seconds is None else time.perf_counter() + self._seconds
        exchange = _Exchange(search, end)
        starts = first_solutions(search.choices)
        if not len(starts):
            if sum(limit is not None for limit in search.choices.limits.sums) < 2:
                raise NoSubnetFits(
                    "no subnet is within the budgets",
                    where=f"space {search.choices.problem.space.name}",
                    hint="edgeofa solve names the budget that the leanest subnet needs",
                )
            starts = search.random_rows(1)
        values = search.evaluate(starts)
        found = [exchange.improve(r, v, steps=1) for r, v in zip(starts, values, strict=False)]
        found.sort(key=lambda pair: -pair[1])
        found = [exchange.improve(row, value) for row, value in found[:_KEPT]]
        best, value = max(found, key=lambda pair: pair[1])
        while not exchange.over:
            row = exchange.shaken(best)
            changed, reached = exchange.improve(row, float(search.evaluate(row[None])[0]))
            if reached > value:
                best, value = changed, reached


def anytime(
    problem: Problem,
    limits: Limits,
    *,
    calls: int = DEFAULT_CALLS,
    seconds: float | None = None,
    seed: int = 0,
) -> SearchResult:
    """The best subnet found within ``limits`` by at most ``calls`` predictions.

    Raises:
        NoSubnetFits: no subnet is within the limits; with one summed limit this is proven.
    """
    return AnytimeSearcher(seconds).search(problem, limits, calls, seed)


def first_solutions(choices: Choices) -> Ints:
    """Rows: the exact optimum of every resolution under a linear model of the predictor.

    With several summed limits the dynamic program keeps the scarcest (by share of the budget that
    an average layer takes); rows that break another limit are left out.
    """
    problem, model = choices.problem, choices.problem.accuracy
    if isinstance(model, MlpAccuracy):
        problem = _linear(choices, model)
    sums = choices.limits.sums
    axes = [a for a in range(len(sums)) if sums[a] is not None]
    mean = choices.costs[choices.resolutions].mean(axis=(0, 1, 2))
    axis = max(axes, key=lambda a: mean[a] / max(sums[a] or 1, 1), default=0)
    count = len(problem.resolutions)
    weights = np.zeros((count, problem.columns), dtype=np.int64)
    weights[:, axis] = 1 if axes else 0
    limit = np.full(count, sums[axis] if axes else 0, dtype=np.int64)
    fronts = Fronts(problem, weights, limit)
    r, cost, gain = fronts.root()
    # costs ascend within a resolution: its last point is the best that fits
    last = len(r) - 1 - np.unique(r[::-1], return_index=True)[1]
    if not len(last):
        return np.zeros((0, 1 + choices.slots), dtype=np.int64)
    picks = fronts.retrace(problem, r[last], cost[last], gain[last])[:, problem.slot_edges]
    rows = np.column_stack([r[last], picks])
    return rows[choices.fits(rows)]


def _linear(choices: Choices, model: MlpAccuracy) -> Problem:
    """The problem scored by the network's gradient at the average subnet of each resolution."""
    problem, features = choices.problem, RowFeatures(choices, model)
    sample = choices.sample(np.random.default_rng(0), _AVERAGED)
    x = np.repeat(features.encode(sample).mean(axis=0)[None], len(problem.resolutions), axis=0)
    x[:, features.resolution] = 0
    x[np.arange(len(x)), features.resolution] = 1
    slopes = model.network.single.gradient(x)
    padded = np.concatenate([slopes, np.zeros((len(x), 1))], axis=1)
    scores = padded[:, features.columns].sum(axis=-1)  # (resolutions, slots, options + 1)
    slots = iter(range(choices.slots))
    stages = tuple(
        StageSlots(
            stage.depths,
            tuple(
                replace(s, scores=_units(scores[:, next(slots), : len(s.layers)]))
                for s in stage.slots
            ),
        )
        for stage in problem.stages
    )
    return replace(
        restaged(problem, stages),
        fixed_scores=np.zeros(len(x), dtype=np.int64),
        score_unit=_UNIT,
    )


def _units(scores: Floats) -> Ints:
    return np.rint(scores / _UNIT).astype(np.int64)


class _Exchange:
    """Local search from one row; every row that it looks at counts as a call."""

    def __init__(self, search: Search, end: float | None):
        self._search = search
        self._choices = search.choices
        self._end = end
        most = np.array([0 if s is None else s for s in search.choices.limits.sums])
        self._bound = np.array([s is not None for s in search.choices.limits.sums])
        self._most = most

    @property
    def over(self) -> bool:
        late = self._end is not None and time.perf_counter() > self._end
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

    def shaken(self, row: Ints) -> Ints:
        """The row after a few random changes that keep it within the limits."""
        rng = self._search.rng
        for _ in range(_SHAKE_TRIES):
            changed = row
            for _ in range(_SHAKEN):
                rows, _ = self._singles(changed)
                changed = rows[rng.integers(len(rows))]
            if self._choices.fits(changed[None])[0]:
                return changed
        return row

    def _singles(self, row: Ints) -> tuple[Ints, Ints]:
        """Every row that is one change away, and the slot of the change."""
        changes: list[tuple[int, int]] = []
        at = self._choices
        for start, depths, depth in zip(
            at.starts.tolist(), at.depths, at.depths_of(row), strict=True
        ):
            for slot in range(start, start + depth + (depth + 1 in depths)):
                now = row[1 + slot]
                changes += [(slot, o) for o in range(int(at.options[slot])) if o != now]
            if depth - 1 in depths:
                changes.append((start + depth - 1, -1))
        slots, options = np.array(changes, dtype=np.int64).reshape(-1, 2).T
        rows = np.repeat(row[None], len(slots), axis=0)
        rows[np.arange(len(slots)), 1 + slots] = options
        allowed = at.allowed[row[0], slots, options]
        return rows[allowed], slots[allowed]

    def _step(self, row: Ints, value: float) -> tuple[Ints, float]:
        """The best of all single changes and of the most promising sets of them."""
        search, choices = self._search, self._choices
        singles, slots = self._singles(row)
        values = search.objective(singles[: search.left])
        singles, slots = singles[: len(values)], slots[: len(values)]
        if not len(values):
            return row, value
        gains = values - value
        costs = choices.sums(singles) - choices.sums(row[None])
        room = self._most - choices.sums(row[None])[0]
        fits = (costs <= room)[:, self._bound].all(axis=1)
        sets = self._sets(slots, gains, costs, room)
        candidates = [singles[fits]]
        changes = singles - row
        for chosen in sets:
            candidates.append(row + changes[chosen].sum(axis=1))
        fresh = np.unique(np.concatenate([candidates[0][:0], *candidates[1:]]), axis=0)
        # singles are known already; the best of them is looked at again to be recorded
        known = np.where(fits, values, -np.inf)
        if fits.any():
            fresh = np.concatenate([singles[known.argmax()][None], fresh])
        reached = search.evaluate(fresh)
        if not len(reached):
            return row, value
        top = int(reached.argmax())
        return fresh[top], float(reached[top])

    def _sets(self, slots: Ints, gains: Floats, costs: Ints, room: Ints) -> list[Ints]:
        """(sets, size) indices of changes of different slots that fit, by the sum of gains."""
        members = np.arange(len(slots))[:, None]
        gain, cost = gains, costs
        found: list[Ints] = []
        for size in range(2, _LARGEST + 1):
            total = gain[:, None] + gains[None]
            fits = (cost[:, None] + costs[None] <= room)[..., self._bound].all(axis=-1)
            for column in members.T:
                fits &= slots[column][:, None] != slots[None]
            if size == 2:
                fits &= slots[:, None] < slots[None]
            order = np.where(fits, total, -np.inf).ravel()
            most = min(max(_SETS, _BEAM), len(order) - 1)
            top = np.argpartition(-order, most)[:most]
            top = top[np.argsort(-order[top], kind="stable")]
            one, other = np.divmod(top[np.isfinite(order[top])], len(slots))
            grown = np.column_stack([members[one], other])
            found.append(grown[:_SETS])
            members = grown[:_BEAM]
            gain = (gain[one] + gains[other])[:_BEAM]
            cost = (cost[one] + costs[other])[:_BEAM]
        return found
