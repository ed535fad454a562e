"""``edgeofa device``: the boards that can be reached, by name."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Add, list, probe and remove devices.")

Name = Annotated[str, typer.Argument(help="Name of the device.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    name: Name,
    address: Annotated[
        str, typer.Argument(help="Such as ssh://pi@raspberrypi.local.", metavar="ADDRESS")
    ],
    target: Annotated[
        str | None, typer.Option(help="Target key or file that it is one of.")
    ] = None,
    json: Json = False,
) -> None:
    """Keep a device under a name; it need not be reachable now."""
    from edgeofa.devices.configure import configure
    from edgeofa.jsonio import dumps

    stored = configure(name, address, target)
    typer.echo(dumps(stored) if json else f"{stored.name} is {stored.address}")


@app.command("list")
def list_(json: Json = False) -> None:
    """The devices that were added."""
    from edgeofa.devices.store import stored_devices
    from edgeofa.jsonio import dumps

    found = stored_devices()
    if json:
        typer.echo(dumps(found))
        return
    for d in found:
        typer.echo(f"{d.name:<16} {d.address:<40} {d.target or 'no target yet'}")


@app.command()
def probe(
    name: Annotated[str, typer.Argument(help="Name or address of the device.", metavar="NAME")],
    json: Json = False,
) -> None:
    """Ask a device what it is, and which target it is one of."""
    from edgeofa.devices.draft import probe
    from edgeofa.jsonio import dumps
    from edgeofa.report.devices import probed_text

    found = probe(name)
    typer.echo(dumps(found) if json else probed_text(found))


@app.command()
def remove(name: Name, json: Json = False) -> None:
    """Forget a device; nothing on it is changed."""
    from edgeofa.devices.store import remove_device
    from edgeofa.jsonio import dumps

    removed = remove_device(name)
    typer.echo(dumps(removed) if json else f"forgot {removed.name} ({removed.address})")
