"""``edgeofa test``: on-device regression tests of deployments."""

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


def regression(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    folders: Folders = None,
    device: Device = None,
    baselines: Baselines = Path("baselines"),
    runs: Annotated[
        int, typer.Option(help="Runs in a row; 0 leaves them out.", min=0, max=4096)
    ] = 1000,
    emulator_time: EmulatorTime = "12s",
    data: Data = None,
    space: SpaceFile = None,
    images: Images = 50,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with history plots.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Append Markdown; GITHUB_STEP_SUMMARY by default.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the record as JSON.")] = None,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Run deployments on their device and compare outputs, latency, energy, memory and endurance
    with the reference and the baseline (exit code 6 on a regression, 5 when too unstable to tell,
    4 when the device fails)."""
    from edgeofa.devices.registry import device_for
    from edgeofa.regression.deployed import find_deployments
    from edgeofa.regression.reports import raise_for, report_text, write_reports
    from edgeofa.regression.suite import run_tests
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
    with Steps() as steps:
        with steps("reach the device"):
            reached = device_for(kind, device)
        result = run_tests(kind, reached, found, plan, steps)
    write_reports(result, junit=junit, html=html, summary=summary, report_file=report)
    typer.echo(result.model_dump_json(indent=2) if json else report_text(result))
    raise_for(result)
