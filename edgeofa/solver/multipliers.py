"""What each budget is worth in score: the weighted sum of budgets that bounds best.

For prices ``p >= 0`` on the budgets, the Lagrangian bound of a context is

    D(p) = max over networks of (score - p @ costs) + p @ limits

which is convex in ``p``, is never below the true optimum, and decomposes over arcs. Its minimiser
is found for all contexts at once by the ellipsoid method (Shor 1977; central cuts), which needs
nothing but subgradients and shrinks the search region by a fixed factor at each step. Any prices
give a valid bound; good prices give a tight one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeofa.solver.budgets import Bools, Ints, Limits
from edgeofa.solver.core import Arc, Problem

_STEPS = 120
#: a step below this share (squared) of the whole range of scores moves nothing
_STILL = 1e-30
#: the dearest network costs about 2**_WEIGHT_BITS under the weights
_WEIGHT_BITS = 46
_Floats = NDArray[np.float64]


def multipliers(problem: Problem, limits: Limits) -> Ints:
    """(contexts, columns) non-negative integer weights of the budgets, 0 where there is none."""
    axes = [a for a, sum_ in enumerate(limits.sums) if sum_ is not None]
    limit = np.array([max(float(limits.sums[a] or 0), 1.0) for a in axes])
    prices = _best_prices(problem, axes, limit)  # score per whole budget
    worth = prices / limit
    worth[worth.max(axis=1) <= 0] = 1 / limit
    most = problem.dearest[axes].astype(np.float64)
    scale = 2.0**_WEIGHT_BITS / (worth @ most).max()
    weights = np.zeros((len(problem.resolutions), problem.columns), dtype=np.int64)
    weights[:, axes] = np.floor(worth * scale).astype(np.int64)
    return weights


def _score_range(problem: Problem) -> float:
    """The most that the arcs of one path add to a score, or take from it."""
    ahead = np.zeros(problem.nodes)
    for arc in reversed(problem.arcs):
        most = float(np.abs(arc.scores).max(initial=0)) + ahead[arc.target]
        ahead[arc.source] = max(ahead[arc.source], most)
    return float(ahead[0])


def _best_prices(problem: Problem, axes: list[int], limit: _Floats) -> _Floats:
    """(contexts, budgets) prices near the minimum of the Lagrangian bound."""
    count, n = len(problem.resolutions), len(axes)
    steps = _steps(problem, axes, limit)
    reach = _score_range(problem) + 1.0
    # at the minimum no price exceeds what the whole range of scores is worth
    centre = np.full((count, n), reach / 2)
    shape = np.broadcast_to(np.eye(n) * (n * (reach / 2) ** 2), (count, n, n)).copy()
    best = centre.copy()
    lowest = np.full(count, np.inf)
    for _ in range(_STEPS):
        value, slope = _lagrangian(problem, axes, limit, steps, np.maximum(centre, 0.0))
        inside = np.all(centre >= 0, axis=1)
        better = inside & (value < lowest)
        lowest[better], best[better] = value[better], centre[better]
        # outside the valid prices the cut is along the most negative one
        outward = -np.eye(n)[centre.argmin(axis=1)]
        cut = np.where(inside[:, None], slope, outward)
        step = np.einsum("rij,rj->ri", shape, cut)
        size = np.einsum("ri,ri->r", cut, step)
        moves = size > _STILL * reach**2
        step = np.where(moves[:, None], step / np.sqrt(np.where(moves, size, 1.0))[:, None], 0.0)
        centre = centre - step / (n + 1)
        shrunk = shape - 2 / (n + 1) * np.einsum("ri,rj->rij", step, step)
        shape = np.where(moves[:, None, None], shrunk * (n * n / (n * n - 1)), shape)
    return best


@dataclass(frozen=True, eq=False)
class _Step:
    """Arcs of nodes that no other of them leads to, stacked and padded, sorted by target.

    ``shares`` is (arcs, contexts, options, budgets), in units of the budgets.
    """

    sources: Ints
    targets: Ints  # distinct
    first: Ints  # of each target's arcs
    scores: _Floats
    shares: _Floats
    allowed: Bools


def _steps(problem: Problem, axes: list[int], limit: _Floats) -> list[_Step]:
    level = np.zeros(problem.nodes, dtype=np.int64)
    for arc in problem.arcs:
        level[arc.target] = max(level[arc.target], level[arc.source] + 1)
    by_level: dict[int, list[Arc]] = {}
    for arc in problem.arcs:
        by_level.setdefault(int(level[arc.source]), []).append(arc)
    steps = []
    for _, found in sorted(by_level.items()):
        arcs = sorted(found, key=lambda arc: arc.target)
        contexts, most = len(problem.resolutions), max(len(arc.options) for arc in arcs)
        scores = np.zeros((len(arcs), contexts, most))
        shares = np.zeros((len(arcs), contexts, most, len(axes)))
        allowed = np.zeros((len(arcs), contexts, most), dtype=np.bool_)
        for n, arc in enumerate(arcs):
            o = len(arc.options)
            scores[n, :, :o] = arc.scores
            shares[n, :, :o] = arc.costs[:, :, axes] / limit
            allowed[n, :, :o] = arc.allowed
        targets, first = np.unique([arc.target for arc in arcs], return_index=True)
        sources = np.array([arc.source for arc in arcs])
        steps.append(_Step(sources, targets, first, scores, shares, allowed))
    return steps


def _lagrangian(
    problem: Problem, axes: list[int], limit: _Floats, steps: list[_Step], prices: _Floats
) -> tuple[_Floats, _Floats]:
    """The bound of each context and a subgradient in units of the budgets."""
    count, n = len(problem.resolutions), len(axes)
    share = problem.fixed_costs[:, axes] / limit
    run = np.full((problem.nodes, count), -np.inf)
    spent = np.zeros((problem.nodes, count, n))
    run[0] = 0.0
    for step in steps:
        worth = step.scores - np.einsum("mcoa,ca->mco", step.shares, prices)
        worth = np.where(step.allowed, worth, -np.inf)
        pick = worth.argmax(axis=2)
        at = np.arange(len(pick))[:, None], np.arange(count), pick
        gain = worth[at] + run[step.sources]
        cost = step.shares[at] + spent[step.sources]
        for t, target in enumerate(step.targets.tolist()):
            last = step.first[t + 1] if t + 1 < len(step.first) else len(gain)
            for m in range(step.first[t], last):
                better = gain[m] > run[target]
                run[target] = np.where(better, gain[m], run[target])
                spent[target] = np.where(better[:, None], cost[m], spent[target])
    value = problem.fixed_scores + ((1.0 - share) * prices).sum(axis=1) + run[-1]
    return value, 1.0 - share - spent[-1]
