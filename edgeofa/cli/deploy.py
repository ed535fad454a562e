"""``edgeofa deploy``: pick, compile, place, measure, verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.deployment import Deployment


def deploy(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    latency: Annotated[
        str | None, typer.Option(help="Latency budget for one image, such as 20ms.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Energy budget, such as 60mJ.")] = None,
    flash: Annotated[str | None, typer.Option(help="Weights and code at most, as 1MB.")] = None,
    sram: Annotated[str | None, typer.Option(help="Peak activations, such as 512KB.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device name (see `edgeofa device list`) or address; the target's own."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model of your own instead: a .tflite or .onnx file.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    precision: Annotated[str, typer.Option(help="int8, float32 or auto.")] = "auto",
    backend: Annotated[str, typer.Option(help="litert, onnxruntime, tvm or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    prefer: Annotated[
        str, typer.Option(help="fastest or accurate, of subnets that cannot be told apart.")
    ] = "fastest",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images (with --model inputs): calibrate, measure the accuracy."
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="With --model: mean of pixels (0 to 255), such as 128.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="With --model: deviation of pixels, such as 58,57,57.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for artifact and report.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Deploy for latency alone, untrained.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Pick the best subnet within the budgets, or take a model of your own; compile it, run it on
    the device, and say whether it met them (exit code 7 when it did not, 5 when the measurement is
    too unstable to tell)."""
    from edgeofa.deploy import Request, deploy
    from edgeofa.deploy_model import ModelRequest, deploy_model
    from edgeofa.deployment import Budget
    from edgeofa.errors import UsageError
    from edgeofa.model_data import parse_normalisation
    from edgeofa.report.progress import Steps
    from edgeofa.report.text import deployment_text
    from edgeofa.solver.question import parse_prefer
    from edgeofa.units import parse_quantity

    budget = Budget(
        latency_ms=None if latency is None else parse_quantity(latency, "time"),
        energy_mj=None if energy is None else parse_quantity(energy, "energy"),
        flash_bytes=None if flash is None else int(parse_quantity(flash, "memory")),
        sram_bytes=None if sram is None else int(parse_quantity(sram, "memory")),
    )
    with Steps() as steps:
        if model is not None:
            _check_own(space, random_weights, prefer)
            own = ModelRequest(
                target=target,
                model=model,
                budget=budget,
                precision=precision,
                backend=backend,
                threads=threads,
                data=data,
                normalisation=parse_normalisation(mean, std),
                out=out,
                seed=seed,
                device=device,
            )
            deployment, folder = deploy_model(own, steps)
        else:
            if mean is not None or std is not None:
                raise UsageError("--mean and --std are a model's (--model); a space has its own")
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
            deployment, folder = deploy(request, steps)
    if json:
        typer.echo(deployment.model_dump_json(indent=2))
    else:
        typer.echo(deployment_text(deployment))
        typer.echo(f"{'report':<12} {folder / 'report.html'}")
    _judge(deployment, target, space)


def _check_own(space: str | None, random_weights: bool, prefer: str) -> None:
    """Options that choose a subnet say nothing about a model of one's own."""
    from edgeofa.errors import UsageError

    given = {"--space": space, "--random-weights": random_weights, "--prefer": prefer != "fastest"}
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} is about subnets, --model about a model of your own",
                hint="leave one of the two out",
            )


def _judge(deployment: Deployment, target: str, space: str | None) -> None:
    """The verdict as an error, where it is one; ``target`` and ``space`` as they were given."""
    from edgeofa.errors import BudgetMissed, UnstableMeasurement

    d = deployment
    if d.verdict == "missed":
        peak = d.peak_layer
        memory = (
            f"; most memory at {peak.layer} ({peak.kind})"
            if peak is not None and "sram_bytes" in d.missed
            else ""
        )
        raise BudgetMissed(
            f"over budget ({', '.join(d.missed)}), {d.measured_ms:.2f} ms on the device{memory}",
            where=d.device,
            hint="a larger budget, or a smaller model"
            if d.model is not None
            else "a larger budget, or profile the device again: edgeofa profile "
            f"--target {target} --space {space or d.space}",
        )
    low, high = d.interval_ms
    limit = d.budget.latency_ms
    if d.status != "ok" and limit is not None and low < limit < high:
        raise UnstableMeasurement(
            f"the measurement is {d.status}: between {low:.2f} and {high:.2f} ms, "
            f"the budget is {limit:g} ms",
            where=d.device,
            hint="stop other programs on the device, let it cool, and deploy again",
        )
