"""``edgeofa baseline``: what deployments are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Accept, compare and list baselines.")

Root = Annotated[Path, typer.Option(help="Folder of the baselines.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def accept(
    target: Annotated[str, typer.Option(help="Target key or file.")],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Deployments, or folders of them.", metavar="[DIR]..."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A configured device, an address or a kind.")
    ] = None,
    baselines: Root = Path("baselines"),
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    runs: Annotated[int, typer.Option(help="Runs in a row.", min=1, max=4096)] = 1000,
    emulator_time: Annotated[
        str, typer.Option(help="What an emulator spends on the runs in a row.")
    ] = "12s",
    data: Annotated[
        Path | None, typer.Option(help="Labelled images: record the accuracy on the device.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="File of their space, where it is one of your own.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many of them.", min=1, max=10_000)] = 50,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Json = False,
) -> None:
    """Measure deployments several times on one device and write what was found as their baseline.
    Wrong outputs are not accepted (exit code 6)."""
    from edgeofa.devices.registry import device_for
    from edgeofa.jsonio import dumps
    from edgeofa.regression.accept import accept
    from edgeofa.regression.deployed import find_deployments
    from edgeofa.regression.reports import baseline_text
    from edgeofa.regression.suite import Plan
    from edgeofa.report.progress import Steps
    from edgeofa.targets import load_target
    from edgeofa.units import parse_quantity

    kind = load_target(target)
    found = find_deployments(folders or [Path("deployments")], kind.name)
    plan = Plan(
        baselines=baselines,
        runs=runs,
        emulator_s=parse_quantity(emulator_time, "time") / 1e3,
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
    baselines: Root = Path("baselines"),
    json: Json = False,
) -> None:
    """Every figure that was accepted, by deployment and date."""
    from edgeofa.jsonio import dumps
    from edgeofa.regression.history import accepted_history
    from edgeofa.regression.reports import history_text

    found = accepted_history(baselines, target, deployment)
    typer.echo(dumps(found) if json else history_text(found))
