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
    save_deployment,
)
from edgeofa.devices.base import Device
from edgeofa.networks import WeightSource
from edgeofa.paths import write_atomic
from edgeofa.targets import Target

if TYPE_CHECKING:
    from edgeofa.deploy import Choice, Request, Turn

_RUNNERS_UP = 5
#: points of the frontier that the record keeps: enough for a smooth picture
_FRONTIER_POINTS = 200


def make_record(
    request: Request,
    target: Target,
    device: Device,
    weights: WeightSource,
    turns: Sequence[Turn],
    best: Turn,
    seconds: dict[str, float],
) -> Deployment:
    """The record of one of the turns; all of them are listed in ``attempts``."""
    from edgeofa.emulation.energy import energy_mj

    choice, placement, latency = best.choice, best.placement, best.placement.latency
    space, table = choice.inputs.space, choice.inputs.table
    artifact = placement.artifact
    energy = energy_mj(target, latency.ms, request.threads)
    measured = weights.accuracy(best.network)
    fit = table.fit
    q = artifact.input.quantization
    return Deployment(
        verdict="met" if latency.ms <= request.budget.latency_ms else "missed",
        target=target.name,
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
        accuracy=Accuracy(
            predicted=choice.accuracy,
            predicted_error=choice.inputs.accuracy.error,
            measured=None if measured is None else measured[0],
            images=None if measured is None else measured[1],
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
        frontier=_frontier(choice),
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
        versions=_versions(placement.runtime_version),
    )


def _runners_up(choice: Choice) -> tuple[RunnerUp, ...]:
    return tuple(
        RunnerUp(subnet=str(r.subnet), predicted_ms=r.latency.ms, accuracy=r.accuracy)
        for r in choice.selection.runners_up[:_RUNNERS_UP]
    )


def _frontier(choice: Choice) -> tuple[FrontierPoint, ...]:
    """The additive model's frontier, thinned; none where no accuracy is claimed."""
    from edgeofa.solver.frontier import frontier

    if choice.accuracy is None:
        return ()
    front = frontier(choice.inputs.problem)
    latencies = front.latency_ms
    points = np.unique(np.linspace(0, len(front) - 1, _FRONTIER_POINTS).astype(int))
    subnets = [front.subnet(int(i)) for i in points]
    return tuple(
        FrontierPoint(
            subnet=str(s), predicted_ms=latencies[i], accuracy=choice.inputs.accuracy.accuracy(s)
        )
        for i, s in zip(points.tolist(), subnets, strict=True)
    )


def _versions(runtime: str) -> dict[str, str]:
    found = {"edgeofa": __version__, "python": platform.python_version(), "runtime": runtime}
    for name in ("torch", "numpy", "ai-edge-litert", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_results(deployment: Deployment, artifact: Artifact, folder: Path) -> Deployment:
    """``model.*``, ``deployment.json`` and ``report.html`` in ``folder``, each whole or not at all.

    Returns the record with the artifact's final place.
    """
    from edgeofa.report.html import deployment_html

    place = folder / f"model{artifact.path.suffix}"
    artifact.path.replace(place)
    moved = deployment.artifact.model_copy(update={"path": str(place)})
    deployment = deployment.model_copy(update={"artifact": moved})
    write_atomic(folder / "report.html", deployment_html(deployment))
    save_deployment(deployment, folder / "deployment.json")
    return deployment
