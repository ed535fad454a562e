"""``edgeofa frontier``: everything that a target offers, from the fastest subnet to the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.solver.record import FrontierRecord

_SHOWN = 16


def frontier(
    target: Annotated[str, typer.Option(help="Target key (see `edgeofa target list`) or file.")],
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    precision: Annotated[
        str, typer.Option(help="int8, float32, or auto: the target's first that has a table.")
    ] = "auto",
    backend: Annotated[str, typer.Option(help="litert, onnxruntime or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    sram: Annotated[str | None, typer.Option(help="Peak activations, such as 512KB.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Plan by work alone, no accuracy claimed.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for PNG, SVG and CSV.")] = None,
    seed: Annotated[int, typer.Option(help="Not used: the answer is exact.")] = 0,  # noqa: ARG001
    json: Annotated[bool, typer.Option("--json", help="Print every point as JSON.")] = False,
) -> None:
    """Every subnet that no other beats in both latency and accuracy, in one exact pass."""
    from edgeofa.jsonio import dumps
    from edgeofa.solver.inputs import load_candidates
    from edgeofa.solver.record import frontier_record, write_frontier
    from edgeofa.spaces import load_space
    from edgeofa.targets import load_target
    from edgeofa.units import parse_quantity

    found = load_target(target)
    inputs = load_candidates(
        found,
        load_space(space or found.default_space),
        backend,
        precision,
        threads,
        proxy=random_weights,
    )[0]
    peak = None if sram is None else int(parse_quantity(sram, "memory"))
    record = frontier_record(inputs, peak_bytes=peak)
    files = () if out is None else write_frontier(record, out)
    typer.echo(dumps(record) if json else _text(record))
    for path in files:
        typer.echo(str(path), err=json)


def _text(record: FrontierRecord) -> str:
    points = record.points
    lines = [
        f"{len(points)} non-dominated subnets of {record.space} on {record.target}, "
        f"{record.backend} {record.precision}, {record.threads} thread(s), "
        f"{record.evidence} latencies"
    ]
    last = len(points) - 1
    for n in sorted({round(i * last / (_SHOWN - 1)) for i in range(_SHOWN)}):
        p = points[n]
        worth = f"score {p.score:.4g}" if p.accuracy is None else f"{100 * p.accuracy:.2f}%"
        lines.append(f"{p.latency_ms:9.3f} ms  {worth:>8}  {p.subnet}")
    return "\n".join(lines)
