"""``edgeofa test``: on-device regression tests of deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def regression(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Deployments, or folders of them.", metavar="[DIR]..."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A configured device, an address or a kind.")
    ] = None,
    baselines: Annotated[Path, typer.Option(help="Folder of the baselines.")] = Path("baselines"),
    runs: Annotated[
        int, typer.Option(help="Runs in a row; 0 leaves them out.", min=0, max=4096)
    ] = 1000,
    emulator_time: Annotated[
        str, typer.Option(help="What an emulator spends on the runs in a row.")
    ] = "12s",
    data: Annotated[
        Path | None, typer.Option(help="Labelled images: check the accuracy on the device.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="File of their space, where it is one of your own.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many of them.", min=1, max=10_000)] = 50,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with history plots.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Append Markdown; GITHUB_STEP_SUMMARY by default.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the record as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Run deployments on their device and compare outputs, latency, energy, memory and endurance
    with the reference and the baseline (exit code 6 on a regression, 5 when too unstable to tell,
    4 when the device fails)."""
    from edgeofa.devices.registry import device_for
    from edgeofa.regression.deployed import find_deployments
    from edgeofa.regression.reports import raise_for, report_text, write_reports
    from edgeofa.regression.suite import Plan, run_tests
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
    with Steps() as steps:
        with steps("reach the device"):
            reached = device_for(kind, device)
        result = run_tests(kind, reached, found, plan, steps)
    write_reports(result, junit=junit, html=html, summary=summary, report_file=report)
    typer.echo(result.model_dump_json(indent=2) if json else report_text(result))
    raise_for(result)
