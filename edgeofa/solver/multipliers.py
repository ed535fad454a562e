"""What each budget is worth in score: the weighted sum of budgets that bounds best.

For prices ``p >= 0`` on the budgets, the Lagrangian bound of a resolution is

    D(p) = max over networks of (score - p @ costs) + p @ limits

which is convex in ``p``, is never below the true optimum, and decomposes over layers. Its minimiser
is found for all resolutions at once by the ellipsoid method (Shor 1977; central cuts), which needs
nothing but subgradients and shrinks the search region by a fixed factor at each step. Any prices
give a valid bound; good prices give a tight one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeofa.solver.problem import AXES, Ints, Limits, Problem

_STEPS = 120
#: the dearest network costs about 2**_WEIGHT_BITS under the weights
_WEIGHT_BITS = 46
_Floats = NDArray[np.float64]


def multipliers(problem: Problem, limits: Limits) -> Ints:
    """(resolutions, 3) non-negative integer weights of the budgets, 0 where there is none."""
    axes = [a for a in range(len(AXES)) if limits.sums[a] is not None]
    limit = np.array([max(float(limits.sums[a] or 0), 1.0) for a in axes])
    prices = _best_prices(problem, axes, limit)  # score per whole budget
    worth = prices / limit
    worth[worth.max(axis=1) <= 0] = 1 / limit
    most = problem.fixed_costs[:, axes].max(axis=0).astype(np.float64)
    for stage in problem.stages:
        most += sum(s.costs[:, :, axes].max(axis=(0, 1)) for s in stage.slots)
    scale = 2.0**_WEIGHT_BITS / (worth @ most).max()
    weights = np.zeros((len(problem.resolutions), len(AXES)), dtype=np.int64)
    weights[:, axes] = np.floor(worth * scale).astype(np.int64)
    return weights


def _best_prices(problem: Problem, axes: list[int], limit: _Floats) -> _Floats:
    """(resolutions, budgets) prices near the minimum of the Lagrangian bound."""
    count, n = len(problem.resolutions), len(axes)
    reach = sum(float(np.ptp(s.scores)) for stage in problem.stages for s in stage.slots) + 1.0
    # at the minimum no price exceeds what the whole range of scores is worth
    centre = np.full((count, n), reach / 2)
    shape = np.broadcast_to(np.eye(n) * (n * (reach / 2) ** 2), (count, n, n)).copy()
    best = centre.copy()
    lowest = np.full(count, np.inf)
    for _ in range(_STEPS):
        value, slope = _lagrangian(problem, axes, limit, np.maximum(centre, 0.0))
        inside = np.all(centre >= 0, axis=1)
        better = inside & (value < lowest)
        lowest[better], best[better] = value[better], centre[better]
        # outside the valid prices the cut is along the most negative one
        outward = -np.eye(n)[centre.argmin(axis=1)]
        cut = np.where(inside[:, None], slope, outward)
        step = np.einsum("rij,rj->ri", shape, cut)
        size = np.einsum("ri,ri->r", cut, step)
        moves = size > 1e-18 * reach**2 * 1e-12
        step = np.where(moves[:, None], step / np.sqrt(np.where(moves, size, 1.0))[:, None], 0.0)
        centre = centre - step / (n + 1)
        shrunk = shape - 2 / (n + 1) * np.einsum("ri,rj->rij", step, step)
        shape = np.where(moves[:, None, None], shrunk * (n * n / (n * n - 1)), shape)
    return best


def _lagrangian(
    problem: Problem, axes: list[int], limit: _Floats, prices: _Floats
) -> tuple[_Floats, _Floats]:
    """The bound of each resolution and a subgradient in units of the budgets."""
    count = len(problem.resolutions)
    rows = np.arange(count)
    value = problem.fixed_scores + prices.sum(axis=1)
    share = problem.fixed_costs[:, axes] / limit
    value = value - (share * prices).sum(axis=1)
    slope = 1.0 - share
    for stage in problem.stages:
        gain = np.full(count, -np.inf)
        cost = np.zeros((count, len(axes)))
        run, spent = np.zeros(count), np.zeros((count, len(axes)))
        for j in range(len(stage.slots) + 1):
            if j in stage.depths:
                better = run > gain
                gain = np.where(better, run, gain)
                cost = np.where(better[:, None], spent, cost)
            if j < len(stage.slots):
                slot = stage.slots[j]
                shares = slot.costs[:, :, axes] / limit
                worth = slot.scores - np.einsum("roa,ra->ro", shares, prices)
                worth = np.where(slot.allowed, worth, -np.inf)
                pick = worth.argmax(axis=1)
                run = run + worth[rows, pick]
                spent = spent + shares[rows, pick]
        value = value + gain
        slope = slope - cost
    return value, slope
