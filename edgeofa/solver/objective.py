"""The networks of least cost that score enough: the solver with cost and score exchanged.

A floor on the score is a limit on what is lost to the best score. With ``h(v)`` the best score from
node ``v`` to the end, an option loses ``h(source) - h(target) - score``, which is never negative;
along a path the losses add up to ``h(start) - total score`` (potentials, as in Johnson 1977). So
the floor is one more budget, and the K best by cost are found as exactly as those by score.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeofa.solver.budgets import Ints, Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.exact import Ranked, Ranking
from edgeofa.solver.fronts import IMPOSSIBLE
from edgeofa.solver.methods import Method, ranked


def k_leanest(
    problem: Problem,
    limits: Limits,
    column: int,
    floor: int | None,
    k: int,
    method: Method = "auto",
) -> Ranking:
    """The ``k`` networks of least cost on ``column`` within the limits.

    ``floor`` is the least score, in units. The ranking's ``bound`` is minus the least cost: nothing
    costs less.
    """
    priced, most = with_floor(problem.within(limits), limits, column, floor)
    ranking = ranked(priced, most, k, method)
    return Ranking(
        tuple(
            Ranked(problem, r.context, r.path, problem.path_totals(r.context, r.path))
            for r in ranking.best
        ),
        ranking.bound,
        ranking.proven,
    )


def with_floor(
    problem: Problem, limits: Limits, column: int, floor: int | None
) -> tuple[Problem, Limits]:
    """The problem of least cost on ``column``, and the limits that hold the floor too."""
    cheap = problem.rescored(column)
    if floor is None:
        return cheap, limits
    ahead = _best_ahead(problem)
    possible = problem.allowed & (ahead[0] > IMPOSSIBLE)
    reach = problem.fixed_scores + ahead[0]
    top = int(reach[possible].max(initial=floor))
    arcs = []
    for arc, other in zip(problem.arcs, cheap.arcs, strict=True):
        goes = arc.allowed & (ahead[arc.target] > IMPOSSIBLE)[:, None]
        loss = ahead[arc.source][:, None] - ahead[arc.target][:, None] - arc.scores
        loss = np.where(goes, loss, 0)
        costs = np.concatenate([other.costs, loss[:, :, None]], axis=2)
        arcs.append(replace(other, costs=costs, allowed=goes))
    fixed = np.where(possible, top - reach, 0)[:, None]
    priced = replace(
        cheap,
        arcs=tuple(arcs),
        fixed_costs=np.concatenate([cheap.fixed_costs, fixed], axis=1),
        allowed=possible,
    )
    sums = limits.sums + (None,) * (problem.columns - len(limits.sums))
    return priced, replace(limits, sums=(*sums, top - floor))


def _best_ahead(problem: Problem) -> Ints:
    """(nodes, contexts) the best score from a node to the end, IMPOSSIBLE where there is no way."""
    ahead = np.full((problem.nodes, len(problem.resolutions)), IMPOSSIBLE, dtype=np.int64)
    ahead[-1] = 0
    for arc in reversed(problem.arcs):
        after = ahead[arc.target][:, None]
        ways = np.where(arc.allowed & (after > IMPOSSIBLE), arc.scores + after, IMPOSSIBLE)
        ahead[arc.source] = np.maximum(ahead[arc.source], ways.max(axis=1))
    return ahead


def leanest(problem: Problem, column: int, limits: Limits | None = None) -> Ranked | None:
    """The network of least cost on ``column`` within the limits, or None."""
    best = k_leanest(problem, limits or Limits(()), column, None, 1).best
    return best[0] if best else None


def peak_values(problem: Problem, board: int = 0) -> list[int]:
    """Every peak that a network can have on a board, ascending."""
    return sorted(
        {int(p) for p in problem.fixed_peaks[:, board]}
        | {int(p) for arc in problem.arcs for p in np.unique(arc.peaks[:, :, board])}
    )


def with_peak(limits: Limits, board: int, peak: int) -> Limits:
    """The limits, with another peak on one board."""
    peaks = [*limits.peaks, *[None] * (board + 1 - len(limits.peaks))]
    peaks[board] = peak if peaks[board] is None else min(peak, peaks[board] or 0)
    return replace(limits, peak=peaks[0], other_peaks=tuple(peaks[1:]))


def least_peak(problem: Problem, limits: Limits, board: int, floor: int | None) -> int | None:
    """The smallest peak on a board at which some network is within the limits and the floor."""
    values = peak_values(problem, board)
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if k_leanest(problem, with_peak(limits, board, values[middle]), 0, floor, 1).best:
            high = middle
        else:
            low = middle + 1
    return values[low] if low < len(values) else None
