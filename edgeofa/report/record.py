"""Puts a deployment's record together, and writes it with its page."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeofa import __version__
from edgeofa.backends.base import Artifact
from edgeofa.deployment import (
    Accuracy,
    ArtifactRecord,
    BlockRecord,
    Deployment,
    FrontierPoint,
    InputRecord,
    RunnerUp,
    TiesRecord,
    save_deployment,
)
from edgeofa.devices.base import Device
from edgeofa.emulation.energy import energy_mj
from edgeofa.errors import UsageError
from edgeofa.networks import WeightSource
from edgeofa.paths import write_atomic

if TYPE_CHECKING:
    from edgeofa.deploy import Choice, Request, Turn
    from edgeofa.regression.material import Material

_RUNNERS_UP = 5
#: points of the frontier that the record keeps: enough for a smooth picture
_FRONTIER_POINTS = 200


def make_record(
    request: Request,
    device: Device,
    weights: WeightSource,
    turns: Sequence[Turn],
    best: Turn,
    accuracy: tuple[float, int] | None,
    seconds: dict[str, float],
) -> Deployment:
    """The record of one of the turns; all of them are listed in ``attempts``.

    Args:
        accuracy: top-1 on labelled images and their number, where there were any.
    """
    choice, placement, latency = best.choice, best.placement, best.placement.latency
    space, table = choice.inputs.space, choice.inputs.table
    artifact = placement.artifact
    energy = energy_mj(best.target, latency.ms, request.threads)
    fit = table.fit
    q = artifact.input.quantization
    points, frontier_points = _frontier(choice)
    return Deployment(
        verdict="missed" if best.missed else "met",
        missed=best.missed,
        target=best.target.name,
        device=device.name,
        device_identity=dict(device.identity()),
        evidence=latency.evidence,
        threads=request.threads,
        space=space.name,
        weights=weights.kind,
        subnet=str(choice.subnet),
        backend=artifact.backend,
        precision=artifact.precision,
        budget=request.budget,
        predicted_ms=choice.predicted_ms,
        measured_ms=latency.ms,
        interval_ms=(latency.low_ms, latency.high_ms),
        status=placement.status,
        accuracy=Accuracy(
            predicted=choice.accuracy,
            predicted_error=choice.inputs.accuracy.error,
            measured=None if accuracy is None else accuracy[0],
            images=None if accuracy is None else accuracy[1],
        ),
        energy_mj=None if energy is None else energy.mj,
        energy_interval_mj=None if energy is None else (energy.low_mj, energy.high_mj),
        weight_bytes=artifact.weight_bytes,
        peak_bytes=artifact.peak_bytes,
        output_error=placement.error,
        artifact=ArtifactRecord(
            path=str(artifact.path), sha256=artifact.sha256, bytes=artifact.file_bytes
        ),
        input=InputRecord(
            shape=artifact.input.shape,
            layout=artifact.input.layout,
            dtype=artifact.input.dtype,
            mean=space.preprocess.mean,
            std=space.preprocess.std,
            scale=None if q is None else q.scale,
            zero_point=None if q is None else q.zero_point,
        ),
        parts_ms=placement.parts_ms,
        blocks=tuple(
            BlockRecord(block=b.key, latency_ms=table.row(b).latency_ms)
            for b in space.blocks(choice.subnet)
        ),
        candidates=placement.candidates,
        attempts=tuple(t.attempt for t in turns),
        runners_up=_runners_up(choice),
        ties=_ties(choice),
        frontier=points,
        frontier_points=frontier_points,
        table=f"{table.header.target}/{table.name} ({table.header.evidence}, {table.header.date})",
        additivity={
            "a_ms": fit.a_ms,
            "b": fit.b,
            "q95_percent": fit.q95_percent,
            "subnets": fit.subnets,
            "mape_percent": fit.mape_percent,
            "spearman": fit.spearman,
        },
        calibration_images=weights.calibration_images,
        seed=request.seed,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds={k: round(v, 3) for k, v in seconds.items()},
        versions=_versions(f"{artifact.backend} {placement.runtime}"),
    )


def _runners_up(choice: Choice) -> tuple[RunnerUp, ...]:
    return tuple(
        RunnerUp(subnet=str(r.subnet), predicted_ms=r.latency.ms, accuracy=r.accuracy)
        for r in choice.selection.runners_up[:_RUNNERS_UP]
    )


def _ties(choice: Choice) -> TiesRecord | None:
    ties = choice.selection.ties
    if ties is None:
        return None
    best = ties.most_accurate
    return TiesRecord(
        count=ties.count,
        tolerance=ties.tolerance,
        subnet=str(best.subnet),
        predicted_ms=best.latency.ms,
        accuracy=best.accuracy,
    )


def _frontier(choice: Choice) -> tuple[tuple[FrontierPoint, ...], int]:
    """The additive model's frontier, thinned, and how many points it has in all.

    Empty where no accuracy is claimed, and where a space has more points than can be held: a
    picture is not worth a finished deployment.
    """
    from edgeofa.solver.frontier import frontier

    if choice.accuracy is None:
        return (), 0
    try:
        front = frontier(choice.inputs.problem)
    except UsageError:
        return (), 0
    latencies = front.latency_ms
    kept = np.unique(np.linspace(0, len(front) - 1, _FRONTIER_POINTS).astype(int)).tolist()
    points = []
    for i in kept:
        subnet = front.subnet(i)
        points.append(
            FrontierPoint(
                subnet=str(subnet),
                predicted_ms=latencies[i],
                accuracy=choice.inputs.accuracy.accuracy(subnet),
            )
        )
    return tuple(points), len(front)


def _versions(runtime: str) -> dict[str, str]:
    found = {"edgeofa": __version__, "python": platform.python_version(), "runtime": runtime}
    for name in ("torch", "numpy", "ai-edge-litert", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_results(
    deployment: Deployment, artifact: Artifact, material: Material, folder: Path
) -> Deployment:
    """``model.*``, what tests need, ``report.html`` and last ``deployment.json``, each whole.

    Returns the record with the artifact's final place.
    """
    from edgeofa.regression.material import save_material
    from edgeofa.report.html import deployment_html

    place = folder / f"model{artifact.path.suffix}"
    # without the old record first: a crash leaves no record rather than one of another artifact
    for old in (folder / "deployment.json", folder / "report.html", *folder.glob("model.*")):
        old.unlink(missing_ok=True)
    artifact.path.replace(place)
    moved = deployment.artifact.model_copy(update={"path": str(place)})
    test = save_material(material, folder)
    deployment = deployment.model_copy(update={"artifact": moved, "test": test})
    write_atomic(folder / "report.html", deployment_html(deployment))
    save_deployment(deployment, folder / "deployment.json")
    return deployment
