"""``edgeofa import``: what others made, in edgeofa's own formats: tables, predictors, supernets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Import what others made.")

SpaceName = Annotated[str, typer.Option(help="The space that the files are about.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(help="Not used: an import has no choices.")]


@app.command()
def table(
    files: Annotated[list[Path], typer.Argument(help="RESOLUTION_lookup_table.yaml, one or more.")],
    target: Annotated[
        str, typer.Option(help="The device's kind, such as note10, or its target file.")
    ],
    device: Annotated[str, typer.Option(help="The device that was timed, as its source names it.")],
    space: SpaceName = "ofa_mbv3_w12",
    backend: Annotated[str, typer.Option(help="What ran there, as a back end.")] = "litert",
    precision: Annotated[str, typer.Option(help="float32 or int8.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads that were timed.", min=1, max=64)] = 1,
    runtime: Annotated[str, typer.Option(help="What ran there, in words.")] = "TensorFlow Lite",
    date: Annotated[str, typer.Option(help="When it was timed, as far as known.")] = "unknown",
    out: Annotated[Path | None, typer.Option(help="Folder; your own tables by default.")] = None,
    seed: Seed = 0,  # noqa: ARG001
    json: Json = False,
) -> None:
    """Once-for-all's look-up tables as one latency table of measured rows."""
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space
    from edgeofa.tables.lookup import store_lookups

    path, stored = store_lookups(
        files,
        load_space(space),
        target=target,
        device=device,
        backend=backend,
        precision=precision,
        threads=threads,
        runtime=runtime,
        date=date,
        folder=out,
    )
    if json:
        typer.echo(dumps({"path": path, "header": stored.header, "rows": len(stored.rows)}))
    else:
        pixels = ", ".join(map(str, stored.header.resolutions))
        typer.echo(f"{path}: {len(stored.rows)} blocks at {pixels} px, measured on {device}")


@app.command()
def predictor(
    file: Annotated[Path, typer.Argument(help="The official acc_predictor.pth.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    space: SpaceName = "ofa_mbv3_w12",
    source: Annotated[str, typer.Option(help="Where it comes from, kept in the file.")] = "",
    seed: Seed = 0,  # noqa: ARG001
    json: Json = False,
) -> None:
    """An accuracy predictor that is a network, without running code from its file."""
    from edgeofa.accuracy.mlp import import_ofa_predictor, save_predictor
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space

    model = import_ofa_predictor(file, load_space(space), source=source)
    save_predictor(model, out)
    widths = [model.encoder.features, *(len(b) for b in model.network.biases)]
    if json:
        typer.echo(dumps({"path": out, "widths": widths, "description": model.description}))
    else:
        typer.echo(f"{out}: a network of {'-'.join(map(str, widths))} for space {space}")


@app.command()
def supernet(
    file: Annotated[Path, typer.Argument(help="An official once-for-all checkpoint.")],
    net: Annotated[
        str | None, typer.Option(help="Official net; by default the one that the file fits.")
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="Accuracy predictor: the official file, or an imported one.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures, to recalibrate batch norm on.")
    ] = None,
    source: Annotated[str, typer.Option(help="Where it comes from, kept in the card.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder of supernets; your own by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which pictures are taken, if there are many.")] = 0,
    json: Json = False,
) -> None:
    """An official supernet, for `deploy`, without running code from its file."""
    from edgeofa.elastic.importing import import_bundle
    from edgeofa.jsonio import dumps

    found = import_bundle(
        file,
        net=net,
        predictor=predictor,
        calibration=calibration,
        source=source,
        folder=out,
        seed=seed,
    )
    if json:
        typer.echo(dumps(found))
        return
    typer.echo(
        f"{found.folder}: {found.net}, {found.entries} entries, {found.parameters:,} weights"
    )
    if found.space is None:
        typer.echo("no space describes this net: use it from Python (edgeofa.elastic.resnet)")
        return
    pictures = f"{found.calibration_images} calibration images"
    known = "with its accuracy predictor" if found.predictor else "no accuracy predictor"
    typer.echo(f"{pictures}, {known}; edgeofa deploy --space {found.space} finds it")


@app.command("net-config")
def net_config(
    file: Annotated[Path, typer.Argument(help="net.config of a specialised network.")],
    resolution: Annotated[
        int | None, typer.Option(help="Input size; by default that of run.config beside it.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Its checkpoint (init); random weights without.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Compile it: a .tflite or .onnx file to write.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    json: Json = False,
) -> None:
    """A specialised network: its space's subnet, or a network of its own; compiled with --out."""
    from edgeofa.elastic.specialised import import_net_config
    from edgeofa.jsonio import dumps

    found = import_net_config(file, resolution=resolution, weights=weights, out=out, seed=seed)
    if json:
        typer.echo(dumps(found))
        return
    typer.echo(found.subnet or f"{file}: {found.name}, in no shipped space")
    typer.echo(
        f"{found.resolution} px, {found.macs / 1e6:.1f} million MACs, {found.parameters:,} weights"
    )
    if found.artifact is not None:
        typer.echo(f"{found.artifact}: float32, {found.weights} weights")
