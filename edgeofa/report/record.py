"""Puts a deployment's record together, and writes it with its page."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeofa import __version__
from edgeofa.backends.base import Artifact
from edgeofa.deployment import (
    Accuracy,
    ArtifactRecord,
    BlockRecord,
    ChoiceRecord,
    Deployment,
    FrontierPoint,
    InputRecord,
    ModelRecord,
    RunnerUp,
    TiesRecord,
    save_deployment,
)
from edgeofa.devices.base import Device
from edgeofa.emulation.energy import energy_mj
from edgeofa.errors import UsageError
from edgeofa.model_data import RAW_PIXELS
from edgeofa.networks import WeightSource
from edgeofa.paths import write_atomic

if TYPE_CHECKING:
    from edgeofa.deploy import Choice, Request, Turn
    from edgeofa.deploy_model import ModelRequest
    from edgeofa.placement import Placement
    from edgeofa.regression.material import Material
    from edgeofa.targets import Target

#: mean or standard deviation of each channel; a user's own model does not say
Normalisation = tuple[float, float, float] | None
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
    choice = best.choice
    space, table = choice.inputs.space, choice.inputs.table
    fit = table.fit
    points, frontier_points = _frontier(choice)
    preprocess = (space.preprocess.mean, space.preprocess.std)
    return Deployment(
        **_found(best.target, device, best.placement, request, seconds, preprocess),
        verdict="missed" if best.missed else "met",
        missed=best.missed,
        space=space.name,
        weights=weights.kind,
        subnet=str(choice.subnet),
        predicted_ms=choice.predicted_ms,
        accuracy=Accuracy(
            predicted=choice.accuracy,
            predicted_error=choice.inputs.accuracy.error,
            measured=None if accuracy is None else accuracy[0],
            images=None if accuracy is None else accuracy[1],
        ),
        blocks=tuple(
            BlockRecord(block=b.key, latency_ms=table.row(b).latency_ms)
            for b in space.blocks(choice.subnet)
        ),
        choice=ChoiceRecord(
            table=f"{table.header.target}/{table.name} "
            f"({table.header.evidence}, {table.header.date})",
            additivity={
                "a_ms": fit.a_ms,
                "b": fit.b,
                "q95_percent": fit.q95_percent,
                "subnets": fit.subnets,
                "mape_percent": fit.mape_percent,
                "spearman": fit.spearman,
            },
            calibration_images=weights.calibration_images,
            attempts=tuple(t.attempt for t in turns),
            runners_up=_runners_up(choice),
            ties=_ties(choice),
            frontier=points,
            frontier_points=frontier_points,
        ),
    )


def make_model_record(
    request: ModelRequest,
    target: Target,
    device: Device,
    model: ModelRecord,
    placement: Placement,
    missed: tuple[str, ...],
    accuracy: tuple[float, int] | None,
    seconds: dict[str, float],
) -> Deployment:
    """The record of a model of the user's own: nothing was chosen, nothing is predicted."""
    measured, images = (None, None) if accuracy is None else accuracy
    verdict = "missed" if missed else "unbudgeted" if request.budget.is_empty else "met"
    return Deployment(
        **_found(target, device, placement, request, seconds, _normalisation(request)),
        verdict=verdict,
        missed=missed,
        weights="own",
        model=model,
        accuracy=Accuracy(measured=measured, images=images),
    )


def _normalisation(request: ModelRequest) -> tuple[Normalisation, Normalisation]:
    """How the pictures of ``--data`` became inputs; unknown where there were none."""
    if request.data is None or not request.data.is_dir():
        return None, None
    return request.normalisation or RAW_PIXELS


def _found(
    target: Target,
    device: Device,
    placement: Placement,
    request: Request | ModelRequest,
    seconds: dict[str, float],
    preprocess: tuple[Normalisation, Normalisation],
) -> dict[str, Any]:
    """What a record says of the network on the device, wherever the network is from."""
    artifact, latency = placement.artifact, placement.latency
    energy = energy_mj(target, latency.ms, request.threads)
    q = artifact.input.quantization
    return {
        "target": target.name,
        "device": device.name,
        "device_identity": dict(device.identity()),
        "evidence": latency.evidence,
        "threads": request.threads,
        "backend": artifact.backend,
        "precision": artifact.precision,
        "budget": request.budget,
        "measured_ms": latency.ms,
        "interval_ms": (latency.low_ms, latency.high_ms),
        "status": placement.status,
        "energy_mj": None if energy is None else energy.mj,
        "energy_interval_mj": None if energy is None else (energy.low_mj, energy.high_mj),
        "weight_bytes": artifact.weight_bytes,
        "peak_bytes": artifact.peak_bytes,
        "memory": placement.memory,
        "output_error": placement.error,
        "artifact": ArtifactRecord(
            path=str(artifact.path), sha256=artifact.sha256, bytes=artifact.file_bytes
        ),
        "input": InputRecord(
            shape=artifact.input.shape,
            layout=artifact.input.layout,
            dtype=artifact.input.dtype,
            mean=preprocess[0],
            std=preprocess[1],
            scale=None if q is None else q.scale,
            zero_point=None if q is None else q.zero_point,
        ),
        "parts_ms": placement.parts_ms,
        "layers": placement.layers,
        "candidates": placement.candidates,
        "seed": request.seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "versions": _versions(f"{artifact.backend} {placement.runtime}"),
    }


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
    for name in ("torch", "numpy", "ai-edge-litert", "onnxruntime", "apache-tvm"):
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
