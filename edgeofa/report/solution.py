"""What ``edgeofa solve`` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeofa.solver.explain import BudgetEffect, Explanation
    from edgeofa.solver.inputs import Answer, Plan
    from edgeofa.solver.prediction import OnBoard, Prediction
    from edgeofa.solver.question import Cost

_SHOWN = 5
_Rows = list[tuple[str, str]]


def answer_text(answer: Answer) -> str:
    """The answer as aligned lines."""
    selection = answer.selection
    best = selection.best
    rows: _Rows = [("subnet", str(best.subnet))]
    for n, plan in enumerate((answer, *answer.others)):
        rows += _board_rows(plan, best.on(n), several=bool(answer.others))
    rows.append(("accuracy", _accuracy(best)))
    ties = selection.ties
    if ties is not None:
        most = ties.most_accurate
        rows.append(
            (
                "ties",
                f"the accuracy model cannot tell {ties.count} subnets apart (less than "
                f"{100 * ties.tolerance:.2f} points between them): this is the fastest; "
                f"{100 * most.value:.2f}% are predicted at {most.latency.ms:.2f} ms for "
                f"{most.subnet} (--prefer accurate)",
            )
        )
    rows.append(("proof", _proof(answer)))
    for runner in selection.runners_up[:_SHOWN]:
        rows.append(("runner-up", f"{runner.latency.ms:.2f} ms  {_worth(runner)}  {runner.subnet}"))
    if answer.explanation is not None:
        rows += _explained(answer.explanation)
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _board_rows(plan: Plan, on: OnBoard, *, several: bool) -> _Rows:
    named = f"on {plan.target}: " if several else ""
    spread = f"95%: {on.latency.low_ms:.2f} to {on.latency.high_ms:.2f}"
    rows = [
        (
            "compiled by",
            f"{named}{plan.backend}, {plan.precision}, {plan.threads} thread(s)",
        ),
        (
            "latency",
            f"{named}{on.latency.ms:.2f} ms {plan.evidence} ({spread}), "
            f"{on.planned_ms:.2f} ms planned with",
        ),
    ]
    if on.energy_mj is not None:
        rows.append(("energy", f"{named}{on.energy_mj:.1f} mJ {plan.evidence}"))
    code = "" if on.code_bytes is None else f"{on.code_bytes / 1024:.0f} KB code, "
    rows.append(
        (
            "memory",
            f"{named}{on.weight_bytes / 1024:.0f} KB weights, {code}"
            f"{on.peak_bytes / 1024:.0f} KB peak activations of a block",
        )
    )
    return rows


def _accuracy(best: Prediction) -> str:
    if best.accuracy is None:
        return f"score {best.score:.4g}, no accuracy claimed"
    text = f"{100 * best.accuracy:.2f}% predicted"
    if best.accuracy_error is not None:
        text += f" (mean error {100 * best.accuracy_error:.2f} points)"
    return text


def _worth(prediction: Prediction) -> str:
    if prediction.accuracy is None:
        return f"{prediction.score:.4g}"
    return f"{100 * prediction.accuracy:.2f}%"


def _proof(answer: Answer) -> str:
    selection, network = answer.selection, answer.network
    if network is not None:
        if network.closed:
            return "the best of the whole space under this predictor"
        if network.ceiling >= 1:
            return (
                f"the best that {network.calls} predictions found; nothing is proven (the ceiling "
                f"is {100 * network.ceiling:.0f}%, above every accuracy)"
            )
        return (
            f"the best that {network.calls} predictions found; no subnet within the budgets is "
            f"predicted above {100 * network.ceiling:.2f}%, a gap of {100 * network.gap:.2f} points"
        )
    # a pick that is tied comes from the whole space, not from the re-ranked alone
    count = len(selection.runners_up) + (selection.ties is None)
    if selection.goal is not None:
        if selection.least is None:
            return (
                "the most accurate of the re-ranked; by the optimised score none reaches this, so "
                "nothing is proven"
            )
        unit = {"latency": "ms planned", "energy": "mJ planned"}.get(selection.goal.cost, "bytes")
        what = (
            "no subnet that reaches this by the optimised score costs less than "
            f"{selection.least:.6g} {unit}"
        )
        return what if selection.proven else f"{what}, as far as searched"
    if selection.proven:
        return f"the {count} re-ranked are the best of the whole space by the optimised score"
    return (
        f"the best {count} that were found; a higher score is possible, "
        f"at most {selection.bound:.6g}"
    )


# ------------------------------------------------------------------------ explanation


def _explained(explanation: Explanation) -> _Rows:
    rows = [("budget", _effect(e, explanation.worth)) for e in explanation.budgets]
    runner_up = explanation.runner_up
    if runner_up is not None:
        changes = ", ".join(
            f"{d.place}: {d.other or 'nothing'} instead of {d.pick or 'nothing'}"
            for d in explanation.differences
        )
        rows.append(
            ("next best", f"{_worth(runner_up)}, {runner_up.latency.ms:.2f} ms, with {changes}")
        )
    return rows


def _effect(effect: BudgetEffect, worth: str) -> str:
    def gain(value: float) -> str:
        return f"{100 * value:+.3f} points" if worth == "accuracy" else f"{value:+.4g} of score"

    text = (
        f"{effect.cost} on {effect.target}: {_amount(effect.used, effect.cost)} of "
        f"{_amount(effect.budget, effect.cost)}; "
    )
    if not effect.binds:
        return text + "does not bind"
    text += (
        f"binds ({gain(effect.gain_without)} without it); {effect.more} more buys "
        f"{gain(effect.gain)}"
    )
    if effect.next_budget is not None and not effect.gain:
        text += f", the next block needs {_amount(effect.next_budget, effect.cost)}"
    return text


def _amount(value: float, cost: Cost) -> str:
    if cost in ("weight", "peak"):
        return f"{value / 1024:.1f} KB"
    return f"{value:.2f} {'ms' if cost == 'latency' else 'mJ'}"
