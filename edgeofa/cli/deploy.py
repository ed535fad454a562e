"""``edgeofa deploy``: pick, compile, place, measure, verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def deploy(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    latency: Annotated[str, typer.Option(help="Latency budget for one image, such as 20ms.")],
    energy: Annotated[str | None, typer.Option(help="Energy budget, such as 60mJ.")] = None,
    flash: Annotated[str | None, typer.Option(help="Weight budget, such as 1MB.")] = None,
    sram: Annotated[str | None, typer.Option(help="Peak activations, such as 512KB.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device name (see `edgeofa device list`) or address; the target's own."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    precision: Annotated[str, typer.Option(help="int8, float32 or auto.")] = "auto",
    backend: Annotated[str, typer.Option(help="litert, onnxruntime or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    prefer: Annotated[
        str, typer.Option(help="fastest or accurate, of subnets that cannot be told apart.")
    ] = "fastest",
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled images: calibrate on them and measure the accuracy."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for artifact and report.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Deploy for latency alone, untrained.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Pick the best subnet within the budgets, compile it, run it on the device, and say whether
    it met them (exit code 7 when it did not, 5 when the measurement is too unstable to tell)."""
    from edgeofa.deploy import Request, deploy
    from edgeofa.deployment import Budget
    from edgeofa.errors import BudgetMissed, UnstableMeasurement
    from edgeofa.report.progress import Steps
    from edgeofa.report.text import deployment_text
    from edgeofa.solver.question import parse_prefer
    from edgeofa.units import parse_quantity

    budget = Budget(
        latency_ms=parse_quantity(latency, "time"),
        energy_mj=None if energy is None else parse_quantity(energy, "energy"),
        flash_bytes=None if flash is None else int(parse_quantity(flash, "memory")),
        sram_bytes=None if sram is None else int(parse_quantity(sram, "memory")),
    )
    request = Request(
        target=target,
        budget=budget,
        space=space,
        precision=precision,
        backend=backend,
        threads=threads,
        data=data,
        out=out,
        random_weights=random_weights,
        prefer=parse_prefer(prefer),
        seed=seed,
        device=device,
    )
    with Steps() as steps:
        deployment, folder = deploy(request, steps)
    if json:
        typer.echo(deployment.model_dump_json(indent=2))
    else:
        typer.echo(deployment_text(deployment))
        typer.echo(f"{'report':<12} {folder / 'report.html'}")
    if deployment.verdict == "missed":
        raise BudgetMissed(
            f"over budget ({', '.join(deployment.missed)}), "
            f"{deployment.measured_ms:.2f} ms on the device",
            where=deployment.device,
            hint="a larger budget, or profile the device again: edgeofa profile "
            f"--target {target} --space {space or deployment.space}",
        )
    low, high = deployment.interval_ms
    if deployment.status != "ok" and low < budget.latency_ms < high:
        raise UnstableMeasurement(
            f"the measurement is {deployment.status}: between {low:.2f} and {high:.2f} ms, "
            f"the budget is {budget.latency_ms:g} ms",
            where=deployment.device,
            hint="stop other programs on the device, let it cool, and deploy again",
        )
