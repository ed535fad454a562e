"""From budgets to one subnet: the exact K best, re-ranked, with what is predicted for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from edgeofa.devices.base import Latency
from edgeofa.errors import NoSubnetFits
from edgeofa.solver.exact import Ranked, k_best
from edgeofa.solver.problem import AXES, Axis, Budgets, Limits, Problem
from edgeofa.spaces.space import Subnet

_LEANEST: dict[Axis, str] = {"latency": "fastest", "energy": "most frugal", "weight": "smallest"}
_NO_LIMITS = Limits((None, None, None), None)


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one subnet.

    ``latency`` is the whole network's, with the additivity fit. Its interval adds up the blocks'
    intervals as if their errors went together, and the fit's residual: it is on the wide side.
    ``planned_ms`` is what is held against a budget (the fit's 95% residual included).
    ``accuracy`` and its mean absolute error (a fraction) are None for a stand-in model; ``score``
    is the additive model's.
    """

    subnet: Subnet
    latency: Latency
    planned_ms: float
    energy_mj: float | None
    weight_bytes: int
    peak_bytes: int
    score: float
    accuracy: float | None
    accuracy_error: float | None

    @property
    def value(self) -> float:
        """What subnets of one space are compared by: the accuracy, or the score without one."""
        return self.score if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class Selection:
    """The pick, the other candidates in order, and what is proven about them.

    ``bound`` is the highest additive score that any subnet within the budgets reaches; ``proven``
    says that the candidates are exactly the K best by that score.
    """

    budgets: Budgets
    best: Prediction
    runners_up: tuple[Prediction, ...]
    bound: float
    proven: bool


def predict(problem: Problem, subnets: Sequence[Subnet]) -> list[Prediction]:
    """Latency, energy, memory and accuracy of subnets whose blocks the table has."""
    accuracies: list[float | None] = [None] * len(subnets)
    if problem.accuracy.claims_accuracy and subnets:
        accuracies = [float(a) for a in problem.accuracy.rerank(subnets)]
    return [_predict(problem, s, a) for s, a in zip(subnets, accuracies, strict=True)]


def _predict(problem: Problem, subnet: Subnet, accuracy: float | None) -> Prediction:
    space, table = problem.space, problem.table
    rows = [table.row(block) for block in space.blocks(space.validate_subnet(subnet))]
    fit = table.fit
    total = sum(row.latency_ms for row in rows)
    low = fit.a_ms + fit.b * sum(row.latency_low_ms for row in rows)
    energy_nj = problem.totals(subnet).energy_nj
    return Prediction(
        subnet,
        Latency(
            fit.a_ms + fit.b * total,
            max(low * (1 - fit.q95_percent / 100), 0.0),
            fit.plan_ms(sum(row.latency_high_ms for row in rows)),
            table.header.evidence,
        ),
        fit.plan_ms(total),
        None if problem.power_w is None else problem.energy_mj(energy_nj),
        sum(row.weight_bytes for row in rows),
        max(row.peak_bytes for row in rows),
        problem.accuracy.score(subnet),
        accuracy,
        problem.accuracy.error,
    )


def select(problem: Problem, budgets: Budgets, *, k: int = 64) -> Selection:
    """The best subnet within the budgets.

    The ``k`` best by the additive score are found exactly, then ordered by the accuracy model's
    ``rerank``; of equal predictions the better score stays first.

    Raises:
        NoSubnetFits: names the subnet that comes nearest and what it costs.
    """
    limits = problem.limits(budgets)
    ranking = k_best(problem, limits, k)
    if not ranking.best:
        raise _nothing_fits(problem, budgets, limits, proven=ranking.proven)
    candidates = predict(problem, [ranked.subnet for ranked in ranking.best])
    ordered = sorted(candidates, key=lambda p: -p.value)
    # each step's score was rounded by at most half a unit; outwards, so that the bound holds
    rounding = problem.nodes
    bound = problem.score(ranking.bound + rounding)
    return Selection(budgets, ordered[0], tuple(ordered[1:]), bound, ranking.proven)


def leanest(problem: Problem, axis: Axis, limits: Limits = _NO_LIMITS) -> Ranked | None:
    """The subnet of least cost on ``axis`` within the limits, or None."""
    best = k_best(problem.rescored(AXES.index(axis)), limits, 1).best
    if not best:
        return None
    context, path = best[0].context, best[0].path
    return Ranked(problem, context, path, problem.path_totals(context, path))


def _nothing_fits(
    problem: Problem, budgets: Budgets, limits: Limits, *, proven: bool
) -> NoSubnetFits:
    """The error for budgets that nothing meets: which budget, and what comes nearest."""
    where = f"space {problem.space.name}"
    peak_only = Limits(_NO_LIMITS.sums, limits.peak)
    if limits.peak is not None and leanest(problem, "latency", peak_only) is None:
        least = _least_peak(problem)
        return NoSubnetFits(
            f"no subnet is within {limits.peak} bytes of peak memory; the leanest, "
            f"{least.subnet}, needs {least.totals.peak_bytes} bytes",
            where=where,
            hint="raise the peak memory budget, or take a space with smaller resolutions",
        )
    asked = [(axis, s) for axis, s in zip(AXES, limits.sums, strict=True) if s is not None]
    for axis, limit in asked:
        near = leanest(problem, axis, peak_only)
        if near is not None and _cost(near, axis) > limit:
            return NoSubnetFits(
                f"no subnet is within {_budget(budgets, axis)}; the {_LEANEST[axis]}, "
                f"{near.subnet}, takes {_taken(problem, near, axis)}",
                where=where,
                hint=f"raise the {axis} budget to at least {_needed(problem, near, axis)}",
            )
    together = " and ".join(_budget(budgets, axis) for axis, _ in asked)
    what, hint = f"no subnet is within {together} together", "raise one of the budgets"
    first = asked[0][0]
    latency, energy, weight = (
        None if axis == first else limit for axis, limit in zip(AXES, limits.sums, strict=True)
    )
    near = leanest(problem, first, Limits((latency, energy, weight), limits.peak))
    if near is not None:
        what += (
            f"; the {_LEANEST[first]} within the others, {near.subnet}, "
            f"takes {_taken(problem, near, first)}"
        )
        hint = f"raise the {first} budget to at least {_needed(problem, near, first)}"
    if not proven:
        what += " (searched to the width limit, not proven)"
    return NoSubnetFits(what, where=where, hint=hint)


def _least_peak(problem: Problem) -> Ranked:
    """The fastest subnet of the smallest peak that any subnet reaches."""
    peaks = sorted(
        {int(p) for p in problem.fixed_peaks[:, 0]}
        | {int(p) for arc in problem.arcs for p in arc.peaks[:, :, 0].ravel()}
    )
    low, high = 0, len(peaks) - 1
    while low < high:
        middle = (low + high) // 2
        if leanest(problem, "latency", Limits(_NO_LIMITS.sums, peaks[middle])) is None:
            low = middle + 1
        else:
            high = middle
    near = leanest(problem, "latency", Limits(_NO_LIMITS.sums, peaks[low]))
    assert near is not None  # noqa: S101 - the largest peak allows everything
    return near


def _cost(ranked: Ranked, axis: Axis) -> int:
    return ranked.totals.sums[AXES.index(axis)]


def _budget(budgets: Budgets, axis: Axis) -> str:
    if axis == "latency":
        return f"{budgets.latency_ms:g} ms"
    return (
        f"{budgets.energy_mj:g} mJ" if axis == "energy" else f"{budgets.weight_bytes} weight bytes"
    )


def _taken(problem: Problem, near: Ranked, axis: Axis) -> str:
    if axis == "weight":
        return _needed(problem, near, axis)
    if axis == "latency":
        value, unit = problem.latency_ms(near.totals.latency_ns), "ms"
        planned = problem.plan_ms(near.totals.latency_ns)
    else:
        value, unit = problem.energy_mj(near.totals.energy_nj), "mJ"
        planned = problem.plan_energy_mj(near.totals.energy_nj)
    margin = f" ({planned:.3f} {unit} with its margin)" if planned > value else ""
    return f"{value:.3f} {unit}{margin}"


def _needed(problem: Problem, near: Ranked, axis: Axis) -> str:
    """The budget that just lets ``near`` in, rounded up to what is printed."""
    cost = _cost(near, axis)
    if axis == "weight":
        return f"{cost} bytes"
    if axis == "energy":
        return f"{ceil(problem.plan_energy_mj(cost) * 1000) / 1000:.3f} mJ"
    return f"{ceil(problem.plan_ms(cost) * 1000) / 1000:.3f} ms"
