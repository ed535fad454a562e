"""``edgeofa flash``: write a compiled network to a microcontroller board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def flash(
    network: Annotated[
        Path, typer.Argument(help="Folder of edgeofa compile, or a deployment's .zip.")
    ],
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    method: Annotated[
        str | None, typer.Option(help="gdb, stm32flash, openocd, pyocd, esptool or copy.")
    ] = None,
    port: Annotated[
        str | None, typer.Option(help="Serial port: /dev/ttyACM0, or socket://host:port.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="GDB server, such as localhost:3333.")] = None,
    emulated: Annotated[
        bool, typer.Option("--emulated", help="An image for the emulated board.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for writing.", min=1, max=3600)] = 300.0,
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Link a compiled network into a firmware image, write it to the board, and verify it."""
    from edgeofa.devices.flash.place import flash_network
    from edgeofa.jsonio import dumps
    from edgeofa.targets import load_target

    done = flash_network(
        load_target(target),
        network,
        method=method,
        server=server,
        port=port,
        emulated=emulated,
        timeout_s=timeout,
    )
    if json:
        typer.echo(dumps(done))
    else:
        typer.echo(
            f"{done.bytes} bytes written to {done.target} by {done.method} in "
            f"{done.seconds:.1f} s, verified: {', '.join(done.verified)}"
        )
