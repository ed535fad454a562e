"""What is predicted for one network: on each of its boards, and its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.devices.base import Latency
from edgeofa.solver.budgets import AXES, Board
from edgeofa.solver.core import Problem
from edgeofa.spaces.space import Block, Subnet

_NANO_PER_MILLI = 10**6


@dataclass(frozen=True)
class OnBoard:
    """What one board is predicted to need.

    ``latency`` is the whole network's, with the additivity fit. Its interval adds up the blocks'
    intervals as if their errors went together, and the fit's residual: it is on the wide side.
    ``planned_ms`` is what is held against a budget. ``code_bytes`` is None where the table does
    not know them.
    """

    latency: Latency
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
class Prediction(OnBoard):
    """What is predicted for one subnet: on the first board, and on the ``others``.

    ``accuracy`` and its mean absolute error (a fraction) are None for a stand-in model; ``score``
    is the exactly optimised model's.
    """

    subnet: Subnet
    score: float
    accuracy: float | None
    accuracy_error: float | None
    others: tuple[OnBoard, ...] = ()

    @property
    def value(self) -> float:
        """What subnets of one space are compared by: the accuracy, or the score without one."""
        return self.score if self.accuracy is None else self.accuracy

    def on(self, board: int) -> OnBoard:
        return self if board == 0 else self.others[board - 1]


def predict(problem: Problem, subnets: Sequence[Subnet]) -> list[Prediction]:
    """Latency, energy, memory and accuracy of subnets whose blocks the tables have."""
    accuracies: list[float | None] = [None] * len(subnets)
    if problem.accuracy.claims_accuracy and subnets:
        accuracies = [float(a) for a in problem.accuracy.rerank(subnets)]
    return [_predict(problem, s, a) for s, a in zip(subnets, accuracies, strict=True)]


def _predict(problem: Problem, subnet: Subnet, accuracy: float | None) -> Prediction:
    context, path = problem.place(subnet)
    blocks, totals = problem.blocks(context, path), problem.path_totals(context, path)
    first, *others = (
        on_board(board, blocks, totals.sums[len(AXES) * n : len(AXES) * (n + 1)])
        for n, board in enumerate(problem.boards)
    )
    return Prediction(
        **vars(first),
        subnet=subnet,
        score=problem.accuracy.score(subnet),
        accuracy=accuracy,
        accuracy_error=problem.accuracy.error,
        others=tuple(others),
    )


def on_board(board: Board, blocks: Sequence[Block], sums: Sequence[int]) -> OnBoard:
    """The prediction of one board; ``sums`` are the planned ones, in the order of ``AXES``."""
    fit, rows = board.table.fit, [board.table.row(block) for block in blocks]
    total = sum(row.latency_ms for row in rows)
    low = fit.a_ms + fit.b * sum(row.latency_low_ms for row in rows)
    energy_mj = None
    if board.power_w is not None:
        joules = sum(row.energy_mj or 0.0 for row in rows)
        energy_mj = board.energy_mj(round(joules * _NANO_PER_MILLI))
    return OnBoard(
        Latency(
            fit.a_ms + fit.b * total,
            max(low * (1 - fit.q95_percent / 100), 0.0),
            fit.plan_ms(sum(row.latency_high_ms for row in rows)),
            board.table.header.evidence,
        ),
        board.plan_ms(sums[0]),
        energy_mj,
        sum(row.weight_bytes for row in rows),
        board.table.code_bytes(blocks),
        max(row.peak_bytes for row in rows),
    )
