"""The errors for budgets that nothing meets: which budget, and what comes nearest."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from edgeofa.errors import NoSubnetFits
from edgeofa.solver.budgets import AXES, Axis, Board, Budgets, Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.exact import Ranked
from edgeofa.solver.objective import leanest, least_peak, with_peak
from edgeofa.solver.prediction import Prediction, on_board

_LEANEST: dict[Axis, str] = {"latency": "fastest", "energy": "most frugal", "weight": "smallest"}


def nothing_fits(
    problem: Problem, budgets: Sequence[Budgets], limits: Limits, *, proven: bool
) -> NoSubnetFits:
    """Names the first budget that nothing meets by itself, else the first of those together."""
    where = f"space {problem.space.name}"
    peaks = Limits((), limits.peak, limits.other_peaks)
    if any(p is not None for p in limits.peaks) and leanest(problem, 0, peaks) is None:
        return _above_peak(problem, limits, where)
    asked = [(column, limit) for column, limit in enumerate(limits.sums) if limit is not None]
    for column, limit in asked:
        near = leanest(problem, column, peaks)
        if near is not None and near.totals.sums[column] > limit:
            return NoSubnetFits(
                f"no subnet is within {_budget(problem, budgets, column)}; "
                f"the {_LEANEST[_axis(column)]}, {near.subnet}, takes "
                f"{_taken(problem, near, column)}{_besides(limits, near, column)}",
                where=where,
                hint=f"raise the {_axis(column)} budget to at least "
                f"{_needed(problem, near, column)}",
            )
    together = " and ".join(_budget(problem, budgets, column) for column, _ in asked)
    what, hint = f"no subnet is within {together} together", "raise one of the budgets"
    first = asked[0][0]
    others = tuple(None if c == first else limit for c, limit in enumerate(limits.sums))
    near = leanest(problem, first, Limits(others, limits.peak, limits.other_peaks))
    if near is not None:
        what += (
            f"; the {_LEANEST[_axis(first)]} within the others, {near.subnet}, "
            f"takes {_taken(problem, near, first)}"
        )
        hint = f"raise the {_axis(first)} budget to at least {_needed(problem, near, first)}"
    if not proven:
        what += " (searched to the width limit, not proven)"
    return NoSubnetFits(what, where=where, hint=hint)


def too_inaccurate(problem: Problem, wanted: float, best: Prediction) -> NoSubnetFits:
    """For an accuracy that nothing within the budgets reaches."""
    # rounded down, so that asking for what is named is not refused again
    reached = floor(best.value * 10_000) / 100
    return NoSubnetFits(
        f"no subnet within the budgets is predicted to reach {100 * wanted:g}%; the most accurate, "
        f"{best.subnet}, {reached:.2f}%",
        where=f"space {problem.space.name}",
        hint=f"ask for {reached:.2f}% or less, or raise a budget",
    )


def _above_peak(problem: Problem, limits: Limits, where: str) -> NoSubnetFits:
    board = next(
        b
        for b, peak in enumerate(limits.peaks)
        if (peak is not None and leanest(problem, 0, with_peak(Limits(()), b, peak)) is None)
        or b == len(limits.peaks) - 1
    )
    least = _least_peak(problem, board)
    on = _on(problem, board)
    weight = board * len(AXES) + AXES.index("weight")
    return NoSubnetFits(
        f"no subnet is within {limits.peaks[board]} bytes of peak memory{on}; the leanest, "
        f"{least.subnet}, needs {least.totals.peaks[board]} bytes, and "
        f"{least.totals.sums[weight]} for its weights",
        where=where,
        hint=f"raise the peak memory budget{on} to at least {least.totals.peaks[board]} bytes, or "
        "take a space with smaller resolutions",
    )


def _besides(limits: Limits, near: Ranked, column: int) -> str:
    """The peak of the smallest network, where memory is asked about: both have to fit a board."""
    board = column // len(AXES)
    if _axis(column) != "weight":
        return ""
    peak, limit = near.totals.peaks[board], dict(enumerate(limits.peaks)).get(board)
    return f", and {peak} bytes of peak memory" + ("" if limit is None else f" (of {limit})")


def _least_peak(problem: Problem, board: int) -> Ranked:
    """Of the networks with the smallest peak that any reaches on a board that of least weight."""
    peak = least_peak(problem, Limits(()), board, None)
    weight = board * len(AXES) + AXES.index("weight")
    near = None if peak is None else leanest(problem, weight, with_peak(Limits(()), board, peak))
    assert near is not None  # noqa: S101 - the largest peak allows everything
    return near


def _axis(column: int) -> Axis:
    return AXES[column % len(AXES)]


def _board(problem: Problem, column: int) -> Board:
    return problem.boards[column // len(AXES)]


def _on(problem: Problem, board: int) -> str:
    """Which target, where there are several."""
    if len(problem.boards) == 1:
        return ""
    return f" on {problem.boards[board].table.header.target}"


def _budget(problem: Problem, budgets: Sequence[Budgets], column: int) -> str:
    asked, on = budgets[column // len(AXES)], _on(problem, column // len(AXES))
    if _axis(column) == "latency":
        return f"{asked.latency_ms:g} ms{on}"
    if _axis(column) == "energy":
        return f"{asked.energy_mj:g} mJ{on}"
    return f"{asked.weight_bytes} weight bytes{on}"


def _taken(problem: Problem, near: Ranked, column: int) -> str:
    if _axis(column) == "weight":
        return _needed(problem, near, column)
    board, first = _board(problem, column), column // len(AXES) * len(AXES)
    sums = near.totals.sums[first : first + len(AXES)]
    predicted = on_board(board, problem.blocks(near.context, near.path), sums)
    if _axis(column) == "latency":
        value, unit = predicted.latency.ms, "ms"
    else:
        value, unit = predicted.energy_mj or 0.0, "mJ"
    planned = board.planned(_axis(column), near.totals.sums[column])
    margin = f" ({planned:.3f} {unit} with its margin)" if planned > value else ""
    return f"{value:.3f} {unit}{margin}"


def _needed(problem: Problem, near: Ranked, column: int) -> str:
    """The budget that just lets ``near`` in, rounded up to what is printed."""
    cost = near.totals.sums[column]
    if _axis(column) == "weight":
        return f"{cost} bytes"
    planned = _board(problem, column).planned(_axis(column), cost)
    unit = "ms" if _axis(column) == "latency" else "mJ"
    return f"{ceil(planned * 1000) / 1000:.3f} {unit}"
