"""Pre-flight: the accuracy of one subnet on given pictures, beside what was predicted for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from edgeofa.elastic.bundles import load_bundle
from edgeofa.graph.ir import DType
from edgeofa.networks import TrainedWeights
from edgeofa.spaces import Space, Subnet

__all__ = ["AccuracyCheck", "Measured", "check_accuracy"]

_PRECISIONS: tuple[DType, ...] = ("float32", "int8")


@dataclass(frozen=True)
class Measured:
    """Top-1, 0 to 1, in a graph's own arithmetic; ``standard_error`` is that of counting images."""

    precision: DType
    accuracy: float
    standard_error: float
    #: measured minus predicted; None where nothing is predicted
    off: float | None


@dataclass(frozen=True)
class AccuracyCheck:
    """What was measured, on ``images`` pictures, of a subnet with the accuracy ``predicted``.

    The prediction, with its mean absolute error, is of the float32 network.
    """

    subnet: str
    predicted: float | None
    predicted_error: float | None
    images: int
    calibration_images: int
    measured: tuple[Measured, ...]


def check_accuracy(space: Space, subnet: Subnet, data: Path, seed: int = 0) -> AccuracyCheck:
    """Cut the subnet out, recalibrate it on some of ``data``, count right answers on others.

    Both as ``edgeofa deploy --data`` does them, in edgeofa's own executor, which runtimes
    agree with.

    Raises:
        UsageError: the subnet is not of the space, or the classes differ from the space's.
        MissingMaterial: no trained supernet, or no pictures.
    """
    space.validate_subnet(subnet)
    bundle = load_bundle(space)
    weights = TrainedWeights(bundle, data, seed)
    model = bundle.accuracy
    predicted = float(model.rerank([subnet])[0]) if model.claims_accuracy else None
    measured, images = [], 0
    for precision in _PRECISIONS:
        found = weights.accuracy(weights.network(subnet, precision))
        assert found is not None  # noqa: S101 - the data was given
        accuracy, images = found
        error = sqrt(max(accuracy * (1 - accuracy), 1 / images) / images)
        off = None if predicted is None else accuracy - predicted
        measured.append(Measured(precision, accuracy, error, off))
    return AccuracyCheck(
        subnet=str(subnet),
        predicted=predicted,
        predicted_error=model.error,
        images=images,
        calibration_images=weights.calibration_images,
        measured=tuple(measured),
    )
