"""The K best subnets within the budgets, exactly.

One budget. ``Fronts`` gives, for every beginning of a network, the exact score of its best end
within the room that is left. Beginnings are grown node by node, and only the K most promising are
kept: different beginnings have different ends, and each one's promise is kept by at least one whole
network, so the K best networks all begin with one of the K. Nothing is approximated. (Fronts that
had to be thinned give bounds only, and are treated as below.)

Several budgets. Each budget alone, and one weighted sum of them per context (``multipliers``),
gives a front whose promise is an upper bound; the smallest counts. A beginning may then promise
too much, so more than K are kept. If a dropped one promised more than the K-th best network found,
the search is repeated, wider; what cannot beat the K-th best is dropped for good. It ends with the
proof that nothing better was dropped, or at ``max_width`` with the largest dropped promise as the
bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Ints, Limits, Totals
from edgeofa.solver.core import Arc, Path, Problem
from edgeofa.solver.fronts import IMPOSSIBLE, Fronts
from edgeofa.solver.multipliers import multipliers
from edgeofa.spaces.space import Subnet

_MIN_WIDTH = 256
_WIDEN = 8
#: beginnings grown at a time, which bounds the memory
_CHUNK = 1 << 15
MAX_WIDTH = 1 << 16
#: so many networks are looked at sooner than good prices are found
_FEW = 4096


@dataclass(frozen=True, eq=False)
class Ranked:
    """One network of a problem and what it costs, in the problem's integers."""

    problem: Problem
    context: int
    path: Path
    totals: Totals

    @cached_property
    def subnet(self) -> Subnet:
        return self.problem.named(self.context, self.path)


@dataclass(frozen=True)
class Ranking:
    """The best networks, best first (of equal scores the faster one).

    ``bound``: no network within the budgets scores more (IMPOSSIBLE when none can fit).
    ``proven``: these are the exact K best; ``bound`` is then the first one's score.
    """

    best: tuple[Ranked, ...]
    bound: int
    proven: bool


@dataclass(frozen=True, eq=False)
class _Beginnings:
    """Partial networks, one a row. ``promise`` bounds the score of every network they begin."""

    context: Ints
    node: Ints
    costs: Ints  # (n, columns)
    score: Ints
    promise: Ints
    picks: NDArray[np.int16]  # (n, edges of the automaton), -1 where not taken

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: Ints | NDArray[np.bool_]) -> _Beginnings:
        return _Beginnings(**{name: array[rows] for name, array in vars(self).items()})

    def and_(self, *others: _Beginnings) -> _Beginnings:
        parts = [vars(self), *map(vars, others)]
        return _Beginnings(**{name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


class _Bounds:
    """The promise of beginnings: the smallest over several fronts."""

    def __init__(self, fronts: list[tuple[Fronts, Ints]]):
        self._fronts = fronts

    def promise(self, node: int, context: Ints, costs: Ints, score: Ints) -> Ints:
        """An upper bound on the score of every network within the limits, IMPOSSIBLE for none."""
        ends = np.full(len(score), -IMPOSSIBLE, dtype=np.int64)
        for fronts, limit in self._fronts:
            spent = (costs * fronts.weights[context]).sum(axis=1)
            ends = np.minimum(ends, fronts.best(node, context, limit[context] - spent))
        return np.where(ends > IMPOSSIBLE, score + ends, IMPOSSIBLE)


def k_best(problem: Problem, limits: Limits, k: int, max_width: int = MAX_WIDTH) -> Ranking:
    """The ``k`` networks of highest score within the limits (fewer where fewer fit).

    An empty ranking means that nothing fits; it is proven like any other.
    """
    if not 1 <= k <= max_width:
        raise UsageError(f"k must be from 1 to {max_width}, not {k}")
    problem = problem.within(limits)
    bounds = _Bounds(_relaxations(problem, limits))
    found: _Beginnings | None = None
    width = min(max(k, _MIN_WIDTH), max_width)
    while True:
        worst = IMPOSSIBLE
        if found is not None and len(found) >= k:
            worst = int(found.score[k - 1])
        networks, dropped = _grow(problem, bounds, width, worst)
        # a wider pass need not meet again what an earlier one found
        found = _merge(networks, found)
        worst = int(found.score[k - 1]) if len(found) >= k else IMPOSSIBLE
        if dropped <= worst or width >= max_width:
            break
        width = min(width * _WIDEN, max_width)
    top = found.take(np.arange(min(k, len(found))))
    best = []
    for c, picks in zip(top.context.tolist(), top.picks.tolist(), strict=True):
        path = problem.picks_path(picks)
        best.append(Ranked(problem, c, path, problem.path_totals(c, path)))
    bound = max(dropped, int(top.score[0]) if len(top) else IMPOSSIBLE)
    return Ranking(tuple(best), bound, proven=dropped <= worst)


def upper_bounds(problem: Problem, limits: Limits) -> Ints:
    """(contexts,) no network of a context within the limits scores more; IMPOSSIBLE for none."""
    within = problem.within(limits)
    bounds = _Bounds(_relaxations(within, limits))
    c = np.arange(len(problem.resolutions))
    promise = bounds.promise(0, c, within.fixed_costs, within.fixed_scores)
    return np.where(within.allowed, promise, IMPOSSIBLE)


def _relaxations(problem: Problem, limits: Limits) -> list[tuple[Fronts, Ints]]:
    """Fronts with their limits; each is a necessary condition for all budgets together."""
    count = len(problem.resolutions)
    axes = [a for a, limit in enumerate(limits.sums) if limit is not None]
    relaxations: list[tuple[Ints, Ints]] = []
    for a in axes or [0]:
        weights = np.zeros((count, problem.columns), dtype=np.int64)
        weights[:, a] = 1 if axes else 0
        limit = limits.sums[a] if axes else 0
        assert limit is not None  # noqa: S101 - for the type checker
        relaxations.append((weights, np.full(count, limit, dtype=np.int64)))
    if len(axes) > 1 and _networks(problem) > _FEW:
        weights = multipliers(problem, limits)
        joint = sum(weights[:, a] * (limits.sums[a] or 0) for a in axes)
        relaxations.append((weights, np.asarray(joint, dtype=np.int64)))
    return [(Fronts(problem, w, limit), limit) for w, limit in relaxations]


def _networks(problem: Problem) -> float:
    """How many networks there are, whatever they cost."""
    ways = np.zeros((problem.nodes, len(problem.resolutions)))
    ways[-1] = problem.allowed
    for arc in reversed(problem.arcs):
        ways[arc.source] += arc.allowed.sum(axis=1) * ways[arc.target]
    return float(ways[0].sum())


def _grow(problem: Problem, bounds: _Bounds, width: int, worst: int) -> tuple[_Beginnings, int]:
    """Whole networks from the ``width`` most promising beginnings at each step.

    Returns them, best first, and the largest promise among the dropped (IMPOSSIBLE for none).
    Beginnings that promise no more than ``worst`` do not count.
    """
    c = np.flatnonzero(problem.allowed)
    costs, score = problem.fixed_costs[c], problem.fixed_scores[c]
    edges = len(problem.automaton.edges)
    pool = _Beginnings(
        c,
        np.zeros(len(c), dtype=np.int64),
        costs,
        score,
        bounds.promise(0, c, costs, score),
        np.full((len(c), edges), -1, dtype=np.int16),
    )
    pool = pool.take(pool.promise > worst)
    dropped = IMPOSSIBLE
    for node in range(problem.nodes - 1):
        here = pool.node == node
        if not here.any():
            continue
        old = pool.take(here)
        grown = [_extend(old, arc, bounds, worst) for arc in problem.leaving[node]]
        # one contest for all, wherever they stand: each network has one beginning among them
        pool = pool.take(~here).and_(*grown)
        if len(pool) > width:
            order = np.argpartition(-pool.promise, width)
            dropped = max(dropped, int(pool.promise[order[width:]].max()))
            pool = pool.take(np.sort(order[:width]))
    return _merge(pool, None), dropped


def _extend(beginnings: _Beginnings, arc: Arc, bounds: _Bounds, worst: int) -> _Beginnings:
    """Every beginning with every allowed option of an arc that promises enough."""
    parts = []
    for chunk in range(0, max(len(beginnings), 1), _CHUNK):
        old = beginnings.take(np.arange(chunk, min(chunk + _CHUNK, len(beginnings))))
        rows, options = np.nonzero(arc.allowed[old.context])
        c = old.context[rows]
        costs = old.costs[rows] + arc.costs[c, options]
        score = old.score[rows] + arc.scores[c, options]
        promise = bounds.promise(arc.target, c, costs, score)
        keep = np.flatnonzero(promise > worst)
        picks = old.picks[rows[keep]]
        picks[:, arc.edge] = arc.options[options[keep]]
        node = np.full(len(keep), arc.target, dtype=np.int64)
        parts.append(_Beginnings(c[keep], node, costs[keep], score[keep], promise[keep], picks))
    return parts[0].and_(*parts[1:])


def _merge(networks: _Beginnings, more: _Beginnings | None) -> _Beginnings:
    """Distinct whole networks, best first; of equal scores the faster, then the earlier choice."""
    if more is not None:
        networks = networks.and_(more)
        named = np.column_stack([networks.context, networks.picks])
        networks = networks.take(np.unique(named, axis=0, return_index=True)[1])
    columns = (*networks.picks.T[::-1], networks.context, networks.costs[:, 0], -networks.score)
    return networks.take(np.lexsort(columns))
