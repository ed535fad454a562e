"""What ``edgeofa test`` and ``edgeofa baseline accept`` both take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.regression.suite import Plan

Folders = Annotated[
    list[Path] | None,
    typer.Argument(help="Deployments, or folders of them.", metavar="[DIR]..."),
]
Device = Annotated[str | None, typer.Option(help="A configured device, an address or a kind.")]
Baselines = Annotated[Path, typer.Option(help="Folder of the baselines.")]
EmulatorTime = Annotated[str, typer.Option(help="What an emulator spends on the runs in a row.")]
Data = Annotated[Path | None, typer.Option(help="Labelled images, for the accuracy on the device.")]
SpaceFile = Annotated[
    str | None, typer.Option(help="File of their space, where it is one of your own.")
]
Images = Annotated[int, typer.Option(help="How many of them.", min=1, max=10_000)]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def make_plan(
    *,
    baselines: Path,
    runs: int,
    emulator_time: str,
    data: Path | None,
    space: str | None,
    images: int,
    seed: int,
) -> Plan:
    """The options as the library takes them."""
    from edgeofa.regression.suite import Plan
    from edgeofa.units import parse_quantity

    return Plan(
        baselines=baselines,
        runs=runs,
        emulator_s=parse_quantity(emulator_time, "time") / 1e3,
        data=data,
        space=space,
        images=images,
        seed=seed,
    )
