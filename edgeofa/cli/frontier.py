"""``edgeofa frontier``: everything that targets offer, from the fastest subnet to the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.solver.record import FrontierRecord

_SHOWN = 16


def frontier(
    target: Annotated[
        str,
        typer.Option(
            "--target", "--targets", help="Target key, file or imported name; several: rpi4,host."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(help="One or two of latency, energy, weight, peak; also latency@host."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space; the target's own by default.")] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="Accuracy model, a file or a folder with one.")
    ] = None,
    precision: Annotated[str, typer.Option(help="int8, float32 or auto.")] = "auto",
    backend: Annotated[str, typer.Option(help="litert, onnxruntime, tvm or auto.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads on the device.", min=1, max=64)] = 1,
    sram: Annotated[
        str | None, typer.Option(help="Peak activations, such as 512KB; per target as 512KB,-.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Plan by work alone, no accuracy claimed.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for PNG, SVG and CSV.")] = None,
    seed: Annotated[int, typer.Option(help="Not used: the answer is exact.")] = 0,  # noqa: ARG001
    json: Annotated[bool, typer.Option("--json", help="Print every point as JSON.")] = False,
) -> None:
    """Every subnet that no other beats in accuracy and in one cost, or in two at once."""
    from edgeofa.jsonio import dumps
    from edgeofa.report.progress import Steps
    from edgeofa.solver.inputs import load_named
    from edgeofa.solver.record import frontier_record, parse_goals, write_frontier
    from edgeofa.units import parse_each

    targets = tuple(t.strip() for t in target.split(","))
    goals = parse_goals(against, targets)
    peaks = [None if p is None else int(p) for p in parse_each(sram, "memory", len(targets))]
    candidates = load_named(
        targets, space, backend, precision, threads, proxy=random_weights, predictor=predictor
    )
    with Steps() as steps:
        record = frontier_record(
            candidates,
            goals,
            peaks=peaks,
            progress=lambda done, count: steps.show(f"{done} of {count} resolutions and ties"),
        )
    files = () if out is None else write_frontier(record, out)
    typer.echo(dumps(record) if json else _text(record))
    for path in files:
        typer.echo(str(path), err=json)


def _text(record: FrontierRecord) -> str:
    from edgeofa.solver.record import UNITS

    points = record.points
    planned = sorted({f"{p.backend} {p.precision}" for plans in record.tables for p in plans})
    lines = [
        f"{len(points)} non-dominated subnets of {record.space} on {' and '.join(record.targets)}, "
        f"{', '.join(planned)}, {record.tables[0][0].threads} thread(s)",
        "accuracy against " + " and ".join(record.label(g) for g in range(len(record.goals))),
    ]
    if any(record.slack):
        near = " and ".join(
            f"{s:g} {UNITS[g.cost]}" for s, g in zip(record.slack, record.goals, strict=True)
        )
        lines.append(f"thinned: to within {near}")
    last = len(points) - 1
    for n in sorted({round(i * last / (_SHOWN - 1)) for i in range(_SHOWN)}):
        p = points[n]
        worth = f"score {p.score:.4g}" if p.accuracy is None else f"{100 * p.accuracy:.2f}%"
        costs = "  ".join(
            f"{record.cost(p, g):9.3f} ms"
            if goal.cost == "latency"
            else f"{record.cost(p, g):9.1f} {UNITS[goal.cost]}"
            for g, goal in enumerate(record.goals)
        )
        lines.append(f"{costs}  {worth:>8}  {p.subnet}")
    return "\n".join(lines)
