"""The whole trade-off between one summed cost and the score, in one pass over all contexts.

The front of the root node holds every non-dominated pair of each context, exactly, for any
budget at once; merging the contexts leaves the frontier of the space. Nothing is rounded beyond
the problem's own integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.budgets import AXES, Axis, Ints, Limits, Totals
from edgeofa.solver.core import Path, Problem
from edgeofa.solver.fronts import Fronts
from edgeofa.spaces.space import Subnet

#: of one node over all resolutions; real tables and models give some ten thousand
_MAX_POINTS = 1 << 20


@dataclass(frozen=True)
class PointOnBoard:
    """What one board needs for a point; energy and code are None for a table without them."""

    latency_ms: float
    planned_ms: float
    energy_mj: float | None
    weight_bytes: int
    code_bytes: int | None
    peak_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Weights, and code where it is known."""
        return self.weight_bytes + (self.code_bytes or 0)


@dataclass(frozen=True)
class FrontierPoint(PointOnBoard):
    """One non-dominated subnet, on the first board and on the ``others``.

    ``accuracy`` is the exactly optimised model's, None for a stand-in; ``plan`` the number of the
    candidate that it comes from, where several were looked at.
    """

    subnet: Subnet
    score: float
    accuracy: float | None
    others: tuple[PointOnBoard, ...] = ()
    plan: int = 0

    def on(self, board: int) -> PointOnBoard:
        return self if board == 0 else self.others[board - 1]


def frontier_point(problem: Problem, context: int, path: Path, plan: int = 0) -> FrontierPoint:
    """A network with all its figures."""
    subnet, totals = problem.named(context, path), problem.path_totals(context, path)
    coded = any(board.table.has_code for board in problem.boards)
    blocks = problem.blocks(context, path) if coded else ()
    codes = [board.table.code_bytes(blocks) for board in problem.boards]
    first, *others = (
        PointOnBoard(
            board.latency_ms(latency),
            board.plan_ms(latency),
            None if board.power_w is None else board.energy_mj(energy),
            flash - (code or 0),
            code,
            peak,
        )
        for board, (latency, energy, flash), code, peak in zip(
            problem.boards, sums_by_board(totals), codes, totals.peaks, strict=True
        )
    )
    return FrontierPoint(
        **vars(first),
        subnet=subnet,
        score=problem.score(totals.score),
        accuracy=problem.accuracy.accuracy(subnet) if problem.accuracy.claims_accuracy else None,
        others=tuple(others),
        plan=plan,
    )


def sums_by_board(totals: Totals) -> Iterator[tuple[int, int, int]]:
    """The sums of each board."""
    for first in range(0, len(totals.sums), len(AXES)):
        latency, energy, weight = totals.sums[first : first + len(AXES)]
        yield latency, energy, weight


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

    def points(self, plan: int = 0) -> tuple[FrontierPoint, ...]:
        """Every point with all its figures, cheapest first."""
        return tuple(
            frontier_point(
                self.problem,
                int(self.context[n]),
                self.problem.picks_path(self.picks[n].tolist()),
                plan,
            )
            for n in range(len(self))
        )

    @property
    def latency_ms(self) -> list[float]:
        """Predicted latency of every point, for a frontier of latency."""
        return [self.problem.latency_ms(int(c)) for c in self.cost]


def frontier(
    problem: Problem,
    axis: Axis = "latency",
    *,
    board: int = 0,
    peak_bytes: int | None = None,
    limits: Limits | None = None,
    per_resolution: bool = False,
) -> Frontier:
    """Every non-dominated (cost, score) of the space, and a subnet for each.

    Args:
        peak_bytes: leave out every block above this peak; ``limits`` instead for several boards.
        per_resolution: keep what is non-dominated among its own context only.

    Raises:
        NoSubnetFits: no subnet is within ``peak_bytes``.
        UsageError: cost and score rise together so exactly that there is no end of points.
    """
    if axis == "energy":
        problem.boards[board].need_energies()
    within = problem.within(limits or Limits((), peak_bytes))
    weights = np.zeros((len(problem.resolutions), problem.columns), dtype=np.int64)
    weights[:, len(AXES) * board + AXES.index(axis)] = 1
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
            "every subnet has a block above the peak memory budget",
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
