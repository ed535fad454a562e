"""The whole trade-off between one summed cost and the score, in one pass over all contexts.

The front of the root node holds every non-dominated pair of each context, exactly, for any
budget at once; merging the contexts leaves the frontier of the space. Nothing is rounded beyond
the problem's own integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.budgets import AXES, Axis, Ints, Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.fronts import Fronts
from edgeofa.spaces.space import Subnet

#: of one node over all resolutions; real tables and models give some ten thousand
_MAX_POINTS = 1 << 20


@dataclass(frozen=True)
class FrontierPoint:
    """One non-dominated subnet. ``accuracy`` is the additive model's, None for a stand-in."""

    subnet: Subnet
    latency_ms: float
    planned_ms: float
    energy_mj: float | None
    weight_bytes: int
    peak_bytes: int
    score: float
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Frontier:
    """Non-dominated subnets, cheapest first; each scores more than every cheaper one.

    ``cost`` is the sum on ``axis`` (ns, nJ or bytes) and ``score`` in score units, both integers.
    Where several subnets share a pair, one stands for them.
    """

    problem: Problem
    axis: Axis
    context: Ints
    cost: Ints
    score: Ints
    picks: Ints  # (points, edges of the automaton), -1 where not taken

    def __len__(self) -> int:
        return len(self.cost)

    def subnet(self, point: int) -> Subnet:
        path = self.problem.picks_path(self.picks[point].tolist())
        return self.problem.named(int(self.context[point]), path)

    def points(self) -> tuple[FrontierPoint, ...]:
        """Every point with all its figures, cheapest first."""
        problem = self.problem
        claims = problem.accuracy.claims_accuracy
        found = []
        for n in range(len(self)):
            subnet = self.subnet(n)
            path = problem.picks_path(self.picks[n].tolist())
            totals = problem.path_totals(int(self.context[n]), path)
            found.append(
                FrontierPoint(
                    subnet=subnet,
                    latency_ms=problem.latency_ms(totals.latency_ns),
                    planned_ms=problem.plan_ms(totals.latency_ns),
                    energy_mj=None
                    if problem.power_w is None
                    else problem.energy_mj(totals.energy_nj),
                    weight_bytes=totals.weight_bytes,
                    peak_bytes=totals.peak_bytes,
                    score=problem.score(totals.score),
                    accuracy=problem.accuracy.accuracy(subnet) if claims else None,
                )
            )
        return tuple(found)

    @property
    def latency_ms(self) -> list[float]:
        """Predicted latency of every point, for a frontier of latency."""
        return [self.problem.latency_ms(int(c)) for c in self.cost]


def frontier(
    problem: Problem,
    axis: Axis = "latency",
    *,
    peak_bytes: int | None = None,
    per_resolution: bool = False,
) -> Frontier:
    """Every non-dominated (cost, score) of the space, and a subnet for each.

    Args:
        peak_bytes: leave out every block above this peak.
        per_resolution: keep what is non-dominated among its own context only.

    Raises:
        NoSubnetFits: no subnet is within ``peak_bytes``.
        UsageError: cost and score rise together so exactly that there is no end of points.
    """
    within = problem.within(Limits((), peak_bytes))
    weights = np.zeros((len(problem.resolutions), problem.columns), dtype=np.int64)
    weights[:, AXES.index(axis)] = 1
    fronts = Fronts(within, weights, max_points=_MAX_POINTS)
    if not fronts.exact:
        raise UsageError(
            f"the frontier has more than {_MAX_POINTS} points: the score is nearly a function of "
            f"the {axis}",
            where=f"space {problem.space.name}",
            hint="solve for single budgets instead",
        )
    context, cost, gain = fronts.root()
    if not len(cost):
        raise NoSubnetFits(
            f"every subnet has a block above {peak_bytes} bytes of peak memory",
            where=f"space {problem.space.name}",
            hint="raise the peak budget",
        )
    score = gain + problem.fixed_scores[context]
    if not per_resolution:
        order = np.lexsort((-score, cost))
        best = np.maximum.accumulate(score[order])
        rises = np.ones(len(order), dtype=np.bool_)
        rises[1:] = best[1:] > best[:-1]
        kept = order[rises]
        context, cost, gain, score = context[kept], cost[kept], gain[kept], score[kept]
    return Frontier(
        problem,
        axis,
        context,
        cost,
        score,
        fronts.retrace(within, context, cost, gain),
    )
