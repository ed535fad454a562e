"""``edgeofa baseline``: what deployments are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeofa.cli.regression_options import (
    Baselines,
    Data,
    Device,
    EmulatorTime,
    Folders,
    Images,
    Seed,
    SpaceFile,
    make_plan,
)

app = typer.Typer(no_args_is_help=True, help="Accept, compare and list baselines.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def accept(
    target: Annotated[str, typer.Option(help="Target key or file.")],
    folders: Folders = None,
    device: Device = None,
    baselines: Baselines = Path("baselines"),
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    runs: Annotated[int, typer.Option(help="Runs in a row.", min=1, max=4096)] = 1000,
    emulator_time: EmulatorTime = "12s",
    data: Data = None,
    space: SpaceFile = None,
    images: Images = 50,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure deployments several times on one device and write what was found as their baseline.
    Wrong outputs are not accepted (exit code 6)."""
    from edgeofa.devices.registry import device_for
    from edgeofa.jsonio import dumps
    from edgeofa.regression.accept import accept
    from edgeofa.regression.deployed import find_deployments
    from edgeofa.regression.reports import baseline_text
    from edgeofa.report.progress import Steps
    from edgeofa.targets import load_target

    kind = load_target(target)
    found = find_deployments(folders or [Path("deployments")], kind.name)
    plan = make_plan(
        baselines=baselines,
        runs=runs,
        emulator_time=emulator_time,
        data=data,
        space=space,
        images=images,
        seed=seed,
    )
    accepted = []
    with Steps() as steps:
        with steps("reach the device"):
            reached = device_for(kind, device)
        for deployed in found:
            with steps(f"accept {deployed.name}"):
                accepted.append(accept(kind, reached, deployed, plan, reason=reason))
    if json:
        typer.echo(dumps([{"file": p, "baseline": b} for p, b in accepted]))
    else:
        typer.echo("\n".join(baseline_text(p, b) for p, b in accepted))


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="A baseline file.")],
    new: Annotated[Path, typer.Argument(help="Another one.")],
    json: Json = False,
) -> None:
    """What differs between two baselines: figures, blocks, versions, state (exit code 6 when the
    new one is slower beyond the old one's gate)."""
    from edgeofa.errors import RegressionFound
    from edgeofa.jsonio import dumps
    from edgeofa.regression.baseline import load_baseline
    from edgeofa.regression.diff import diff_baselines
    from edgeofa.regression.reports import difference_text

    found = diff_baselines(load_baseline(old), load_baseline(new))
    typer.echo(dumps(found) if json else difference_text(found))
    if found.change == "slower":
        raise RegressionFound(f"slower by {100 * (found.ratio - 1):.1f}%", where=new)


@app.command()
def history(
    target: Annotated[str | None, typer.Option(help="Only of this target.")] = None,
    deployment: Annotated[str | None, typer.Option(help="Only of this deployment.")] = None,
    baselines: Baselines = Path("baselines"),
    json: Json = False,
) -> None:
    """Every figure that was accepted, by deployment and date."""
    from edgeofa.jsonio import dumps
    from edgeofa.regression.history import accepted_history
    from edgeofa.regression.reports import history_text

    found = accepted_history(baselines, target, deployment)
    typer.echo(dumps(found) if json else history_text(found))
