"""The frontier as a record: what ``edgeofa frontier`` prints and writes."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

from edgeofa.devices.base import Evidence
from edgeofa.graph.ir import DType
from edgeofa.paths import write_atomic
from edgeofa.solver.frontier import FrontierPoint, frontier
from edgeofa.solver.inputs import Inputs


@dataclass(frozen=True)
class FrontierRecord:
    """All non-dominated subnets of a space on one table, fastest first."""

    target: str
    space: str
    backend: str
    precision: DType
    threads: int
    table: str
    evidence: Evidence
    resolutions: tuple[int, ...]
    claims_accuracy: bool
    points: tuple[FrontierPoint, ...]


def frontier_record(inputs: Inputs, *, peak_bytes: int | None = None) -> FrontierRecord:
    """The latency frontier of ``inputs``; ``NoSubnetFits`` where ``peak_bytes`` leaves nothing."""
    h = inputs.table.header
    return FrontierRecord(
        target=h.target,
        space=h.space,
        backend=h.backend,
        precision=h.precision,
        threads=h.threads,
        table=inputs.table.name,
        evidence=h.evidence,
        resolutions=inputs.problem.resolutions,
        claims_accuracy=inputs.accuracy.claims_accuracy,
        points=frontier(inputs.problem, peak_bytes=peak_bytes).points(),
    )


def write_frontier(record: FrontierRecord, folder: Path) -> tuple[Path, ...]:
    """``frontier-TARGET-TABLE`` as .csv, .png and .svg in ``folder``; returns the paths."""
    from edgeofa.report.plots import save_frontier

    name = f"frontier-{record.target}-{record.table}"
    text = io.StringIO(newline="")
    columns = [f.name for f in dataclasses.fields(FrontierPoint)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for point in record.points:
        values = (getattr(point, c) for c in columns)
        writer.writerow(
            "" if v is None else f"{v:.6f}" if isinstance(v, float) else v for v in values
        )
    table = folder / f"{name}.csv"
    write_atomic(table, text.getvalue())
    pictures = save_frontier(
        [(p.latency_ms, p.score if p.accuracy is None else p.accuracy) for p in record.points],
        folder,
        name,
        title=f"{record.space} on {record.target}: {record.backend} {record.precision}, "
        f"{record.threads} thread{'s' if record.threads > 1 else ''}",
        evidence=record.evidence,
        claims_accuracy=record.claims_accuracy,
    )
    return table, *pictures
