"""Why a selection is what it is: which budgets bind, what a little more would buy, the runner-up.

Everything is found by solving again, exactly: without a budget, and with a little more of it. The
accuracies are the exactly optimised model's on both sides, so that a gain is a gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeofa.solver.budgets import AXES, Budgets
from edgeofa.solver.core import Problem
from edgeofa.solver.exact import Ranked
from edgeofa.solver.methods import ranked
from edgeofa.solver.objective import peak_values
from edgeofa.solver.prediction import Prediction
from edgeofa.solver.question import Cost, Question
from edgeofa.solver.select import Selection
from edgeofa.spaces.space import Subnet

#: what "one more" of a budget is: field, amount, its name
_MORE: dict[Cost, tuple[str, float, str]] = {
    "latency": ("latency_ms", 1.0, "1 ms"),
    "energy": ("energy_mj", 1.0, "1 mJ"),
    "weight": ("weight_bytes", 1024.0, "1 KB"),
    "peak": ("peak_bytes", 1024.0, "1 KB"),
}


@dataclass(frozen=True)
class BudgetEffect:
    """One budget of one target.

    ``binds``: without it a better subnet would fit. ``used`` is what the pick takes of it (ms and
    mJ as planned, bytes), ``best`` what the best subnet within the budgets takes, before ties.
    ``more`` is the further amount that was tried (``1 ms``), ``gain`` what it adds to the best
    worth: accuracy as a fraction, or score. ``next_*``: the smallest larger peak that any block
    has, where the budget is one of peak memory and a kilobyte buys nothing.
    """

    target: str
    cost: Cost
    budget: float
    used: float
    binds: bool
    gain_without: float
    more: str
    gain: float
    subnet_with_more: Subnet
    next_budget: float | None = None


@dataclass(frozen=True)
class Difference:
    """One place where two subnets differ: what each has there, None for nothing."""

    place: str
    pick: str | None
    other: str | None


@dataclass(frozen=True)
class Explanation:
    """``worth`` says what gains are in. The runner-up's figures are against the pick's."""

    worth: str
    budgets: tuple[BudgetEffect, ...]
    runner_up: Prediction | None
    differences: tuple[Difference, ...]


def explain(problem: Problem, selection: Selection, question: Question) -> Explanation:
    """The explanation of a selection that was made on ``problem``.

    Re-solves twice a budget. For a question with a goal the budgets' effects are on the accuracy
    all the same; the goal's own trade-off is the frontier's to show.
    """
    budgets = question.budgets
    base = _best(problem, budgets, question)
    effects = []
    for b, one in enumerate(budgets):
        for cost, (field, amount, more) in _MORE.items():
            value = getattr(one, field)
            if value is None:
                continue
            without = _best(problem, _changed(budgets, b, field, None), question)
            wider = _best(problem, _changed(budgets, b, field, value + amount), question)
            gain_without = _worth(problem, without) - _worth(problem, base)
            effects.append(
                BudgetEffect(
                    target=problem.boards[b].table.header.target,
                    cost=cost,
                    budget=float(value),
                    used=_used(selection.best, b, cost, problem),
                    binds=without.totals.score > base.totals.score,
                    gain_without=gain_without,
                    more=more,
                    gain=_worth(problem, wider) - _worth(problem, base),
                    subnet_with_more=wider.subnet,
                    next_budget=_next_peak(problem, b, value) if cost == "peak" else None,
                )
            )
    runner_up = selection.runners_up[0] if selection.runners_up else None
    return Explanation(
        "accuracy" if problem.accuracy.claims_accuracy else "score",
        tuple(effects),
        runner_up,
        () if runner_up is None else differences(problem, selection.best.subnet, runner_up.subnet),
    )


def differences(problem: Problem, pick: Subnet, other: Subnet) -> tuple[Difference, ...]:
    """Choice by choice what two subnets have differently, in the order of the network."""
    (c, mine), (d, theirs) = problem.place(pick), problem.place(other)
    found = []
    a, b = problem.automaton.contexts[c], problem.automaton.contexts[d]
    if a.resolution != b.resolution:
        found.append(Difference("resolution", str(a.resolution), str(b.resolution)))
    ours, others = dict(a.ties), dict(b.ties)
    for name in dict.fromkeys([*ours, *others]):
        pair = [None if name not in t else str(t[name]) for t in (ours, others)]
        if pair[0] != pair[1]:
            found.append(Difference(name, *pair))
    left, right = dict(mine), dict(theirs)
    for e, edge in enumerate(problem.automaton.edges):
        here = [None if (o := path.get(e)) is None else edge.options[o] for path in (left, right)]
        if here[0] == here[1] or not any(x is not None and any(x.blocks) for x in here):
            continue
        labels = [None if x is None else x.label for x in here]
        found.append(Difference(edge.name, *labels))
    return tuple(found)


def _best(problem: Problem, budgets: Sequence[Budgets], question: Question) -> Ranked:
    return ranked(problem, problem.limits(*budgets), 1, question.method).best[0]


def _worth(problem: Problem, network: Ranked) -> float:
    model = problem.accuracy
    if model.claims_accuracy:
        return model.accuracy(network.subnet)
    return problem.score(network.totals.score)


def _changed(
    budgets: tuple[Budgets, ...], board: int, field: str, value: float | None
) -> tuple[Budgets, ...]:
    if value is not None and field.endswith("_bytes"):
        value = int(value)
    changed = replace(budgets[board], **{field: value})  # type: ignore[arg-type]
    return (*budgets[:board], changed, *budgets[board + 1 :])


def _used(prediction: Prediction, board: int, cost: Cost, problem: Problem) -> float:
    on = prediction.on(board)
    if cost == "latency":
        return on.planned_ms
    if cost == "weight":
        return float(on.flash_bytes)
    if cost == "peak":
        return float(on.peak_bytes)
    sums = problem.totals(prediction.subnet).sums
    return problem.boards[board].planned("energy", sums[len(AXES) * board + 1])


def _next_peak(problem: Problem, board: int, peak: int) -> float | None:
    """The next larger peak of any block; between the two a budget changes nothing."""
    larger = [p for p in peak_values(problem, board) if p > peak]
    return float(larger[0]) if larger else None
