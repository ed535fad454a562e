"""``edgeofa profile``: build the latency and energy table of a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.graph.ir import DType


def profile(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    device: Annotated[
        str | None,
        typer.Option(help="Device name (see `edgeofa device list`) or address; the target's own."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    backend: Annotated[str | None, typer.Option(help="litert, onnxruntime or tvm.")] = None,
    precision: Annotated[str | None, typer.Option(help="int8 or float32.")] = None,
    resolutions: Annotated[
        str | None, typer.Option(help="Such as 128,160; all of the space by default.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    subnets: Annotated[
        int, typer.Option(help="Whole subnets that calibrate the sums; 0 for none.", min=0)
    ] = 30,
    out: Annotated[Path | None, typer.Option(help="Folder of tables; the user's own.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what an earlier run finished.")
    ] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only what the table at hand lacks; completes it.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print header and rows as JSON.")] = False,
) -> None:
    """Measure every block of a space on a device, and write its table. An interrupted run goes on
    where it stopped when the same command is given again."""
    from edgeofa.backends.registry import get_backend
    from edgeofa.devices.registry import device_for
    from edgeofa.paths import table_dirs
    from edgeofa.profiling.profile import profile
    from edgeofa.report.tables import ProfileProgress, table_summary
    from edgeofa.spaces import load_space
    from edgeofa.tables.export import export_table
    from edgeofa.tables.store import find_table, table_path
    from edgeofa.targets import load_target

    kind = load_target(target)
    reached = device_for(kind, device)
    typer.echo(f"device: {reached.name} ({reached.evidence})", err=True)
    of, compiler = load_space(space or kind.default_space), get_backend(backend or kind.backends[0])
    kept = _precision(precision or kind.precisions[0])
    known = None
    if missing:
        known = find_table(kind, of.name, compiler.name, kept, threads, source=of.source)
    with ProfileProgress() as progress:
        table = profile(
            kind,
            of,
            compiler,
            kept,
            resolutions=_resolutions(resolutions),
            threads=threads,
            device=reached,
            subnets=subnets,
            seed=seed,
            out=out,
            fresh=fresh,
            known=known,
            progress=progress,
        )
    if json:
        typer.echo(export_table(table, "json"))
    else:
        typer.echo(table_summary(table, table_path(out or table_dirs()[0], table)))


def _precision(text: str) -> DType:
    from edgeofa.errors import UsageError

    if text == "int8":
        return "int8"
    if text == "float32":
        return "float32"
    raise UsageError(f"unknown precision {text!r}", hint="int8 or float32")


def _resolutions(text: str | None) -> tuple[int, ...] | None:
    from edgeofa.errors import UsageError

    if text is None:
        return None
    parts = [p.strip() for p in text[:1000].split(",")]
    if not all(p.isascii() and p.isdigit() for p in parts):
        raise UsageError(f"not resolutions: {text[:80]!r}", hint="write them as 128,160")
    return tuple(int(p) for p in parts)
