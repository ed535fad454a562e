"""Subnets that an accuracy model cannot tell apart.

What counts is the error of a *difference* of two predictions, not of one: errors of two subnets of
one supernet have much in common. A model that was cross-validated says how often it puts two
subnets in the wrong order; with normal errors this gives the standard error of a difference
(``difference_error`` of the model). Where a model states its mean absolute error alone, errors are
taken as independent, which is on the wide side: sqrt(2) times the standard error, which is
sqrt(pi / 2) of the mean absolute one.

Two subnets count as indistinguishable when the order of their predictions is right with less than
60% probability: a gap below 0.253 standard errors of a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt
from statistics import NormalDist
from typing import Protocol, runtime_checkable

from edgeofa.accuracy.base import AccuracyModel
from edgeofa.solver.prediction import Prediction

#: below this probability of being right an order of two predictions says nothing
CONFUSED = 0.6


@runtime_checkable
class KnowsDifferences(Protocol):
    """A model that knows the standard error of a difference of two predictions (a fraction)."""

    @property
    def difference_error(self) -> float: ...


@dataclass(frozen=True)
class Ties:
    """What the pick cannot be told apart from.

    ``tolerance`` is the largest gap that means nothing (a fraction); ``count`` how many of the
    subnets that were looked at lie within it of ``most_accurate``, the pick included.
    """

    tolerance: float
    count: int
    most_accurate: Prediction


def tolerance(model: AccuracyModel) -> float:
    """The largest gap of predicted accuracy that means nothing; 0 where no error is known."""
    if not model.claims_accuracy:
        return 0.0
    if isinstance(model, KnowsDifferences):
        spread = model.difference_error
    else:
        spread = sqrt(2) * sqrt(pi / 2) * (model.error or 0.0)
    return NormalDist().inv_cdf(CONFUSED) * spread


def fastest_tied(candidates: Sequence[Prediction], gap: float) -> tuple[Prediction, Ties]:
    """The fastest within ``gap`` of the most accurate; of equally fast ones the more accurate."""
    best = max(candidates, key=lambda p: (p.value, -p.planned_ms))
    tied = [p for p in candidates if p.value >= best.value - gap]
    pick = min(tied, key=lambda p: (p.planned_ms, -p.value))
    return pick, Ties(gap, len(tied), best)
