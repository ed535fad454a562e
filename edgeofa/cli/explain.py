"""``edgeofa explain``: why a block or a network is slow or fast on a device."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    piece: Annotated[
        str,
        typer.Argument(
            help="A block's key, a subnet, or SUBNET:3 for its block 3.", metavar="BLOCK"
        ),
    ],
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Back end; several times to compare. All of the target by default."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="int8 or float32; the target's first by default.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Space to look in; by default all that are bundled.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A configured device, an address or a kind.")
    ] = None,
    hot: Annotated[int, typer.Option(help="Machine-code blocks to show.", min=0, max=100)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where the time of a block or a network goes, side by side for several back ends."""
    from edgeofa.cli.profile import _precision
    from edgeofa.devices.registry import device_for
    from edgeofa.explain import explain
    from edgeofa.jsonio import dumps
    from edgeofa.pieces import find_piece
    from edgeofa.report.explanation import explanation_text
    from edgeofa.report.progress import Steps
    from edgeofa.targets import load_target

    kind = load_target(target)
    with Steps() as steps, steps("compile and run"):
        found = explain(
            find_piece(piece, space),
            kind,
            device_for(kind, device),
            tuple(dict.fromkeys(backend or kind.backends)),
            _precision(precision or kind.precisions[0]),
            hot=hot,
            seed=seed,
        )
    typer.echo(dumps(found) if json else explanation_text(found))
