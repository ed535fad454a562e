"""Two other ways to the optimum, slow and independent, that the solver is checked against.

Plain enumeration for small spaces, and a mixed-integer program for HiGHS (through scipy, the extra
``solvers``) for large ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from edgeofa.solver.problem import Limits, Problem, Totals
from edgeofa.spaces.space import Subnet


def every_subnet(problem: Problem) -> Iterator[Subnet]:
    """All subnets of the problem's resolutions; for spaces small enough to count."""
    stages = [
        [c for d in stage.depths for c in product(*(stage.layers_at(j) for j in range(d)))]
        for stage in problem.space.stages
    ]
    for resolution in problem.resolutions:
        for layers in product(*stages):
            yield Subnet(problem.space.name, resolution, layers)


def fits(totals: Totals, limits: Limits) -> bool:
    """Whether a subnet is within every limit."""
    if limits.peak is not None and totals.peak_bytes > limits.peak:
        return False
    return all(
        limit is None or cost <= limit for cost, limit in zip(totals.sums, limits.sums, strict=True)
    )


def enumerated_scores(problem: Problem, limits: Limits) -> list[int]:
    """The scores of all subnets within the limits, best first."""
    everything = (problem.totals(s) for s in every_subnet(problem))
    return sorted((t.score for t in everything if fits(t, limits)), reverse=True)


def highs_optimum(problem: Problem, limits: Limits) -> int | None:
    """The best score within the limits by HiGHS, None where it finds that nothing fits.

    A resolution at a time. One binary variable is one option of one layer; a layer exists only
    after the one before it, and where a stage may not stop both exist or neither.
    """
    within = problem.within_peak(limits.peak)
    scores = (_highs_resolution(within, limits, int(r)) for r in np.flatnonzero(within.allowed))
    return max((s for s in scores if s is not None), default=None)


def _highs_resolution(problem: Problem, limits: Limits, r: int) -> int | None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    slots = [slot for stage in problem.stages for slot in stage.slots]
    owner = np.repeat(np.arange(len(slots)), [len(slot.layers) for slot in slots])
    exists = (owner == np.arange(len(slots))[:, None]).astype(float)  # (slots, variables)
    rows: list[tuple[np.ndarray, float, float]] = []
    n = 0
    for stage in problem.stages:
        for j in range(len(stage.slots)):
            if j == 0:
                rows.append((exists[n], 1.0, 1.0))
            else:
                rows.append((exists[n - 1] - exists[n], 0.0, 1.0 if j in stage.depths else 0.0))
            n += 1
    for axis, limit in enumerate(limits.sums):
        if limit is not None:
            costs = np.concatenate([slot.costs[r, :, axis] for slot in slots])
            scale = max(abs(limit), 1)
            room = limit - int(problem.fixed_costs[r, axis])
            rows.append((costs / scale, -np.inf, room / scale))
    scores = np.concatenate([slot.scores[r] for slot in slots])
    allowed = np.concatenate([slot.allowed[r] for slot in slots])
    answer = milp(
        -scores / max(float(np.abs(scores).max()), 1.0),
        constraints=LinearConstraint(
            np.array([row for row, _, _ in rows]),
            [low for _, low, _ in rows],
            [high for _, _, high in rows],
        ),
        integrality=np.ones(len(scores)),
        bounds=Bounds(0, allowed.astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        return None
    return int(problem.fixed_scores[r] + scores[answer.x > 0.5].sum())
