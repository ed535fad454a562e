"""Verdicts of the training benchmarks (about 5 s): what each says follows from its figures."""

from __future__ import annotations

import pytest
from test_benchmarks import load


def test_the_share_of_the_cost_lies_between_the_trainings() -> None:
    b = load("shrinking")

    def arm(name: str, macs: float, mean: float) -> object:
        subnet = b.Measured("random 0", "s", 1, mean)
        ends = (b.Measured("largest", "l", 2, 0.9), b.Measured("smallest", "m", 1, 0.5))
        return b.Arm(name, 0, macs, 10, 1.0, 1.0, 100, (*ends, subnet), ())

    progressive = arm("progressive", 10.0, 0.70)
    dear, cheap = arm("delayed", 10.0, 0.74), arm("delayed@0.4", 4.0, 0.66)
    share, at_most = b.share_reached([progressive, dear, cheap])
    # half the way, in the logarithm of the cost
    assert share == pytest.approx((4.0 * 10.0) ** 0.5 / 10.0)
    assert not at_most
    assert b.share_reached([progressive, dear, arm("delayed@0.4", 4.0, 0.71)]) == (0.4, True)
    assert b.share_reached([progressive, arm("delayed", 10.0, 0.6)]) == (None, False)
    assert b.share_reached([dear, cheap]) == (None, False)
    report = b.Report("cifar_micro", 10.0, (progressive, dear, cheap), share, at_most)
    assert "at 0.63 of its cost" in b.table(report)
    assert "74.00" in b.table(report)


def test_arms_cost_what_their_names_say() -> None:
    b = load("shrinking")
    assert b.arm_budget("delayed@0.4", 10.0) == ("delayed", 4.0)
    assert b.arm_budget("sandwich", 10.0) == ("sandwich", 10.0)


def test_a_choice_matters_only_by_enough() -> None:
    b = load("bundle")

    def subnet(accuracy: float) -> object:
        return b.Measured("pick", "s", 1, accuracy, accuracy)

    def at(pick: float, full: float | None, randoms: tuple[float, ...]) -> object:
        other = None if full is None else subnet(full)
        return b.AtBudget(5.0, subnet(pick), 4.9, other, 4.0, randoms)

    assert at(0.80, 0.794, (0.77, 0.78)).matters
    assert not at(0.80, 0.796, (0.77, 0.78)).matters
    assert not at(0.80, 0.79, (0.78, 0.79)).matters
    assert at(0.80, None, (0.77,)).matters
    assert at(0.80, 0.79, ()).over_random is None
