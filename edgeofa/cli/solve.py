"""``edgeofa solve``: the best subnet within the budgets, by table and accuracy model alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.solver.inputs import Answer

_SHOWN = 5


def solve(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    latency: Annotated[str | None, typer.Option(help="Latency budget, such as 20ms.")] = None,
    energy: Annotated[str | None, typer.Option(help="Energy budget, such as 60mJ.")] = None,
    flash: Annotated[str | None, typer.Option(help="Weight budget, such as 1MB.")] = None,
    sram: Annotated[str | None, typer.Option(help="Peak activations, such as 512KB.")] = None,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    precision: Annotated[str, typer.Option(help="int8, float32 or auto.")] = "auto",
    backend: Annotated[str, typer.Option(help="litert, onnxruntime or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    k: Annotated[int, typer.Option(help="Subnets that are re-ranked.", min=1, max=10_000)] = 64,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Plan by work alone, no accuracy claimed.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Not used: the answer is exact.")] = 0,  # noqa: ARG001
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Pick the best subnet within the budgets, provably, without building or running anything."""
    from edgeofa.errors import UsageError
    from edgeofa.jsonio import dumps
    from edgeofa.solver.inputs import load_candidates
    from edgeofa.solver.inputs import solve as solve_
    from edgeofa.solver.problem import Budgets
    from edgeofa.spaces import load_space
    from edgeofa.targets import load_target
    from edgeofa.units import parse_quantity

    if latency is energy is flash is sram is None:
        raise UsageError("no budget is given", hint="--latency 20ms, --energy, --flash or --sram")
    budgets = Budgets(
        latency_ms=None if latency is None else parse_quantity(latency, "time"),
        energy_mj=None if energy is None else parse_quantity(energy, "energy"),
        weight_bytes=None if flash is None else int(parse_quantity(flash, "memory")),
        peak_bytes=None if sram is None else int(parse_quantity(sram, "memory")),
    )
    found = load_target(target)
    candidates = load_candidates(
        found,
        load_space(space or found.default_space),
        backend,
        precision,
        threads,
        proxy=random_weights,
    )
    answer = solve_(candidates, budgets, k=k)
    typer.echo(dumps(answer) if json else _text(answer))


def _text(answer: Answer) -> str:
    best, evidence = answer.selection.best, answer.evidence
    spread = f"95%: {best.latency.low_ms:.2f} to {best.latency.high_ms:.2f}"
    accuracy = f"score {best.score:.4g}, no accuracy claimed"
    if best.accuracy is not None:
        accuracy = f"{100 * best.accuracy:.2f}% predicted"
        if best.accuracy_error is not None:
            accuracy += f" (mean error {100 * best.accuracy_error:.2f} points)"
    count = 1 + len(answer.selection.runners_up)
    proof = f"the {count} re-ranked are the best of the whole space by the additive score"
    if not answer.selection.proven:
        proof = (
            f"the best {count} that were found; a higher additive score is possible, "
            f"at most {answer.selection.bound:.6g}"
        )
    rows = [
        ("subnet", str(best.subnet)),
        ("compiled by", f"{answer.backend}, {answer.precision}, {answer.threads} thread(s)"),
        (
            "latency",
            f"{best.latency.ms:.2f} ms {evidence} ({spread}), "
            f"{best.planned_ms:.2f} ms planned with",
        ),
        ("accuracy", accuracy),
    ]
    if best.energy_mj is not None:
        rows.append(("energy", f"{best.energy_mj:.1f} mJ {evidence}"))
    rows += [
        (
            "memory",
            f"{best.weight_bytes / 1024:.0f} KB weights, "
            f"{best.peak_bytes / 1024:.0f} KB peak activations of a block",
        ),
        ("proof", proof),
    ]
    for runner in answer.selection.runners_up[:_SHOWN]:
        worth = (
            f"{runner.score:.4g}" if runner.accuracy is None else f"{100 * runner.accuracy:.2f}%"
        )
        rows.append(("runner-up", f"{runner.latency.ms:.2f} ms  {worth}  {runner.subnet}"))
    return "\n".join(f"{name:<12} {text}" for name, text in rows)
