"""How a deployment came to be what it is: every figure that was accepted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeofa.devices.base import Evidence
from edgeofa.errors import MissingMaterial
from edgeofa.regression.baseline import Baseline, list_baselines
from edgeofa.regression.record import Point
from edgeofa.regression.timing import Timing

#: marks the point of a run that nobody has accepted
THIS_RUN = " (this run)"


@dataclass(frozen=True)
class History:
    """Everything that was accepted of one deployment on one target, the oldest first."""

    target: str
    deployment: str
    points: tuple[Point, ...]


def stored_points(
    root: Path, target: str, deployment: str, backend: str, evidence: Evidence
) -> list[Point]:
    """What was accepted of one deployment with one back end, the oldest first."""
    points: list[Point] = []
    for _, baseline in list_baselines(root, target, deployment):
        if (baseline.backend, baseline.evidence) == (backend, evidence):
            points += _points(baseline)
    return sorted(points, key=lambda p: p.date)


def point_of_run(timing: Timing, date: str, runtime: str, artifact: str) -> Point:
    """What was measured just now, beside what was accepted."""
    return Point(
        date=date,
        runtime=f"{runtime}{THIS_RUN}",
        latency_ms=timing.ms,
        low_ms=timing.low_ms,
        high_ms=timing.high_ms,
        evidence=timing.evidence,
        artifact=artifact,
    )


def accepted_history(
    root: Path, target: str | None = None, deployment: str | None = None
) -> tuple[History, ...]:
    """``MissingMaterial`` when nothing was accepted."""
    points: dict[tuple[str, str], list[Point]] = {}
    for _, baseline in list_baselines(root, target, deployment):
        key = (baseline.target, baseline.deployment)
        points.setdefault(key, []).extend(_points(baseline))
    if not points:
        raise MissingMaterial("no baselines", where=root, hint="edgeofa baseline accept")
    return tuple(
        History(target, name, tuple(sorted(found, key=lambda p: p.date)))
        for (target, name), found in sorted(points.items())
    )


def _points(baseline: Baseline) -> list[Point]:
    """A baseline's own history and itself."""
    latency = baseline.latency
    figures = [(h.date, h.latency_ms, h.low_ms, h.high_ms, h.artifact) for h in baseline.history]
    figures.append((baseline.date, latency.ms, latency.low_ms, latency.high_ms, baseline.artifact))
    return [
        Point(
            date=date,
            runtime=baseline.runtime,
            latency_ms=ms,
            low_ms=low,
            high_ms=high,
            evidence=baseline.evidence,
            artifact=artifact,
        )
        for date, ms, low, high, artifact in figures
    ]
