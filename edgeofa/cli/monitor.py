"""``edgeofa monitor``: what runs on a microcontroller board."""

from __future__ import annotations

from typing import Annotated

import typer


def monitor(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    port: Annotated[
        str | None, typer.Option(help="Serial port: /dev/ttyACM0, or socket://host:port.")
    ] = None,
    network: Annotated[
        int | None, typer.Option(help="Also run this network of the image.", min=0)
    ] = None,
    runs: Annotated[int, typer.Option(help="How often.", min=1, max=64)] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Ask the firmware on a serial port who it is, and how its networks run."""
    from edgeofa.devices.monitor import observe
    from edgeofa.jsonio import dumps
    from edgeofa.report.boards import observation_text
    from edgeofa.targets import load_target

    found = observe(load_target(target), port, network=network, runs=runs)
    typer.echo(dumps(found) if json else observation_text(found))
