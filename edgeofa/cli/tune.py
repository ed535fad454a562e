"""``edgeofa tune``: search faster schedules for a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def tune(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    subnet: Annotated[
        list[str] | None,
        typer.Option(help="A network to tune for; may be given several times."),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(help="A block to tune for, by its key; may be given several times."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, int8, or both.")] = "both",
    budget: Annotated[str, typer.Option(help="Time to spend.")] = "10min",
    trials: Annotated[
        int, typer.Option(help="Configurations of one kernel, at most.", min=2, max=1000)
    ] = 48,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the records; your own by default.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A configured device, an address or a kind.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Search the back end tvm's configurations for the kernels of some networks, heaviest first,
    and record the best ones; every later compilation uses them. Go on with the same command."""
    from edgeofa.jsonio import dumps
    from edgeofa.report.tuning import TuneStatus, tuning_text
    from edgeofa.tuning.request import TuneRequest, tune_pieces
    from edgeofa.tuning.run import Limits
    from edgeofa.units import parse_quantity

    request = TuneRequest(
        target=target,
        space=space,
        pieces=(*(subnet or ()), *(block or ())),
        precision=precision,
        limits=Limits(parse_quantity(budget, "time") / 1e3, trials),
        out=out,
        device=device,
        seed=seed,
    )
    with TuneStatus() as bar:
        result = tune_pieces(request, bar)
    typer.echo(dumps(result) if json else tuning_text(result))
