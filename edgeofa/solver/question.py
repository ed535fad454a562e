"""What can be asked of the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Budgets
from edgeofa.solver.methods import Method

Cost = Literal["latency", "energy", "weight", "peak"]
Prefer = Literal["fastest", "accurate"]


@dataclass(frozen=True)
class Goal:
    """The cost that is to be least, and on which board, counted from 0."""

    cost: Cost
    board: int = 0


@dataclass(frozen=True)
class Question:
    """The most accurate network within ``budgets``; with a ``goal`` the one of least cost.

    Args:
        budgets: one a target.
        goal: minimise this instead; ``accuracy`` is then the least that is wanted (0 to 1).
        k: how many of the exactly best the better accuracy model chooses among.
        prefer: among subnets that the accuracy model cannot tell apart (:mod:`edgeofa.solver.ties`)
            the fastest, or the one that is predicted the most accurate all the same.
        method: see :mod:`edgeofa.solver.methods`.
    """

    budgets: tuple[Budgets, ...]
    goal: Goal | None = None
    accuracy: float | None = None
    k: int = 64
    prefer: Prefer = "fastest"
    method: Method = "auto"

    def __post_init__(self) -> None:
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise UsageError(
                f"an accuracy of {100 * self.accuracy:g}%", hint="above 0% and below 100%"
            )


def parse_goal(text: str, targets: tuple[str, ...]) -> Goal:
    """``latency``, ``energy``, ``weight`` or ``peak``, of the first target or of ``@TARGET``."""
    cost, _, target = text.partition("@")
    if target and target not in targets:
        raise UsageError(
            f"no target {target!r} to minimise on", hint=f"one of {', '.join(targets)}"
        )
    board = targets.index(target) if target else 0
    for known in get_args(Cost):
        if cost == known:
            return Goal(known, board)
    raise UsageError(f"cannot minimise {cost[:40]!r}", hint=f"one of {', '.join(get_args(Cost))}")


def parse_prefer(text: str) -> Prefer:
    """``fastest`` or ``accurate``."""
    for known in get_args(Prefer):
        if text == known:
            wanted: Prefer = known
            return wanted
    raise UsageError(f"cannot prefer {text[:40]!r}", hint=f"one of {', '.join(get_args(Prefer))}")
