"""``edgeofa solve``: the best subnet within the budgets, by tables and accuracy model alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.solver.budgets import Budgets


def solve(
    target: Annotated[
        str,
        typer.Option(help="Target key, file, or name of imported tables; several as rpi4,host."),
    ],
    latency: Annotated[
        str | None, typer.Option(help="Latency budget, such as 20ms; per target as 20ms,15ms.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Energy budget, such as 60mJ.")] = None,
    flash: Annotated[str | None, typer.Option(help="Weights and code at most, as 1MB.")] = None,
    sram: Annotated[str | None, typer.Option(help="Peak activations, such as 512KB.")] = None,
    minimize: Annotated[
        str | None,
        typer.Option(help="latency, energy, weight or peak, of a target as latency@host."),
    ] = None,
    accuracy: Annotated[
        str | None, typer.Option(help="The least predicted accuracy, such as 89%, when minimising.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="How surely the budgets hold, 0.5 to 0.999.")
    ] = None,
    prefer: Annotated[
        str, typer.Option(help="fastest or accurate, of subnets that cannot be told apart.")
    ] = "fastest",
    explain: Annotated[
        bool, typer.Option("--explain", help="What binds, what more would buy, the runner-up.")
    ] = False,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="Accuracy model, a file or a folder with one.")
    ] = None,
    precision: Annotated[str, typer.Option(help="int8, float32 or auto.")] = "auto",
    backend: Annotated[str, typer.Option(help="litert, onnxruntime, tvm or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    k: Annotated[int, typer.Option(help="Subnets that are re-ranked.", min=1, max=10_000)] = 64,
    method: Annotated[str, typer.Option(help="dp, cp-sat or auto.")] = "auto",
    seconds: Annotated[
        float, typer.Option(help="To lower the ceiling under a network predictor.", min=0, max=3600)
    ] = 10.0,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Plan by work alone, no accuracy claimed.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the search under a network predictor.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Pick the best subnet within the budgets, provably, without building or running anything."""
    from edgeofa.errors import UsageError
    from edgeofa.jsonio import dumps
    from edgeofa.report.solution import answer_text
    from edgeofa.solver.inputs import load_named
    from edgeofa.solver.inputs import solve as solve_
    from edgeofa.solver.methods import parse_method
    from edgeofa.solver.question import Goal, Question, parse_goal, parse_prefer
    from edgeofa.units import parse_share

    targets = tuple(t.strip() for t in target.split(","))
    if latency is energy is flash is sram is minimize is accuracy is None:
        raise UsageError(
            "no budget is given",
            hint="--latency 20ms, --energy, --flash or --sram; or --minimize with --accuracy",
        )
    goal = None if minimize is None else parse_goal(minimize, targets)
    if goal is None and accuracy is not None:
        goal = Goal("latency")
    question = Question(
        _budgets(len(targets), latency, energy, flash, sram),
        goal,
        None if accuracy is None else parse_share(accuracy),
        k,
        parse_prefer(prefer),
        parse_method(method),
    )
    candidates = load_named(
        targets,
        space,
        backend,
        precision,
        threads,
        proxy=random_weights,
        predictor=predictor,
        confidence=confidence,
    )
    answer = solve_(
        candidates, question, explained=explain, confidence=confidence, seconds=seconds, seed=seed
    )
    typer.echo(dumps(answer) if json else answer_text(answer))


def _budgets(
    count: int, latency: str | None, energy: str | None, flash: str | None, sram: str | None
) -> tuple[Budgets, ...]:
    """One a target: a single value holds on each, several are in the order of the targets."""
    from edgeofa.solver.budgets import Budgets
    from edgeofa.units import parse_each

    each = zip(
        parse_each(latency, "time", count),
        parse_each(energy, "energy", count),
        parse_each(flash, "memory", count),
        parse_each(sram, "memory", count),
        strict=True,
    )
    return tuple(
        Budgets(
            ms, mj, None if weight is None else int(weight), None if peak is None else int(peak)
        )
        for ms, mj, weight, peak in each
    )
