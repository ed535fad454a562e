"""``edgeofa compile``: a network as C for a microcontroller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compile_(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    out: Annotated[Path, typer.Option(help="Folder for the sources.")],
    model: Annotated[Path | None, typer.Option(help="A .tflite or .onnx file.")] = None,
    subnet: Annotated[str | None, typer.Option(help="A subnet, as `edgeofa solve` prints.")] = None,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Images to calibrate on; of a subnet the bundle's by default."),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="An untrained subnet, for its speed and size.")
    ] = False,
    sram: Annotated[str | None, typer.Option(help="Working memory to keep to: 48KB.")] = None,
    emit: Annotated[str, typer.Option(help="What to write: c.")] = "c",
    prefix: Annotated[str, typer.Option(help="Start of every public name.")] = "edgeofa",
    seed: Annotated[int, typer.Option(help="Seed of random weights and calibration.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a subnet, or a model of your own, as C sources with their kernels."""
    from edgeofa.compilation import CompileRequest, compile_sources
    from edgeofa.jsonio import dumps
    from edgeofa.report.compilation import compiled_text
    from edgeofa.units import parse_quantity

    request = CompileRequest(
        target=target,
        out=out,
        model=model,
        subnet=subnet,
        space=space,
        data=data,
        random_weights=random_weights,
        sram_bytes=None if sram is None else int(parse_quantity(sram, "memory")),
        emit=emit,
        prefix=prefix,
        seed=seed,
    )
    compiled = compile_sources(request)
    typer.echo(dumps(compiled) if json else compiled_text(compiled))
