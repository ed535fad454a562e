"""From a finished training to a bundle: weights, calibration images, and the facts for its card."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from edgeofa.accuracy.features import subnet_macs
from edgeofa.accuracy.measure import measure_subnets
from edgeofa.elastic.checkpoint import save_supernet
from edgeofa.elastic.extract import extract
from edgeofa.elastic.official import store_statistics
from edgeofa.elastic.supernet import ElasticConv, Supernet
from edgeofa.paths import write_atomic
from edgeofa.spaces.space import Space, Subnet
from edgeofa.training.data import Images, preprocess
from edgeofa.training.fast import fast_path
from edgeofa.training.recalibrate import recalibrate, subnet_statistics
from edgeofa.training.state import Progress, load_state
from edgeofa.training.synthesize import Nearness, nearness

__all__ = [
    "CalibrationCost",
    "Facts",
    "SubnetResult",
    "export_weights",
    "judge",
    "save_calibration",
]

_RANDOM = 20
_CALIBRATED = 10


def export_weights(state: Path, space: Space, recalibration: Tensor, out: Path) -> Progress:
    """Writes the averaged weights of a training state as a checkpoint.

    Its batch norms hold the largest subnet's statistics (at the middle resolution); every other
    subnet has to be recalibrated.
    """
    supernet, unused = Supernet(space), Supernet(space)
    progress = load_state(state, space.name, unused, supernet, None)
    forward = fast_path(space)
    largest = space.largest(space.resolutions[len(space.resolutions) // 2])
    if forward is None:
        network = extract(supernet, largest)
        images = preprocess(recalibration, largest.resolution, space).permute(0, 3, 1, 2)
        recalibrate(network, images)
        store_statistics(supernet, largest, network)
        save_supernet(supernet, out)
        return progress
    statistics = subnet_statistics(forward, supernet, recalibration, largest)
    convolutions = {n: m for n, m in supernet.named_modules() if isinstance(m, ElasticConv)}
    for name, (mean, var) in statistics.items():
        norm = convolutions[name].norm
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(var)
    save_supernet(supernet, out)
    return progress


def save_calibration(images: Tensor, out: Path) -> None:
    """Writes calibration images uint8 ``[N, h, w, 3]``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images.numpy())
    write_atomic(out, buffer.getvalue())


@dataclass(frozen=True)
class SubnetResult:
    """Test accuracy of a subnet, 0 to 1, recalibrated on real and on the bundle's own images."""

    role: str
    subnet: str
    macs: int
    accuracy: float
    accuracy_synthetic: float | None


@dataclass(frozen=True)
class CalibrationCost:
    """Points (of 100) that calibration on the bundle's images loses against real ones."""

    subnets: int
    real_images: int
    synthetic_images: int
    mean_points: float
    worst_points: float


@dataclass(frozen=True)
class Facts:
    """What was measured on a finished supernet."""

    test_images: int
    results: tuple[SubnetResult, ...]
    calibration: CalibrationCost
    nearness: Nearness
    #: the same figures of as many test images, as a yardstick
    nearness_test: Nearness


def judge(
    supernet: Supernet,
    calibration: Tensor,
    train: Images,
    test: Images,
    journals: Path,
    recalibration_images: int = 2000,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> Facts:
    """Accuracies of the largest, the smallest and 20 random subnets on the test images, the cost
    of the bundle's calibration images on 10 of these, and their distance to the training images.

    Args:
        journals: folder for finished subnets, so that an interrupted run goes on; of this very
            supernet and these images alone.
    """
    space = supernet.space
    real = train.pixels[:recalibration_images]
    rng = random.Random(f"judge {seed}")
    middle = space.resolutions[len(space.resolutions) // 2]
    chosen: list[tuple[str, Subnet]] = [
        ("largest", space.largest(middle)),
        ("smallest", space.smallest()),
        *((f"random {i}", space.sample_by_choice(rng)) for i in range(_RANDOM)),
    ]

    def tell(number: int, subnet: Subnet, accuracy: float) -> None:
        if log is not None:
            log(f"{number + 1}: {subnet} {100 * accuracy:.2f}%")

    subnets = [s for _, s in chosen]
    some = subnets[2 : 2 + _CALIBRATED]
    own = dict(measure_subnets(supernet, some, calibration, test, journals / "own.jsonl", tell))
    accuracies = dict(measure_subnets(supernet, subnets, real, test, journals / "real.jsonl", tell))
    results = []
    for number, (role, subnet) in enumerate(chosen):
        synthetic = own[subnet] if 2 <= number < 2 + _CALIBRATED else None
        macs = subnet_macs(space, subnet)
        results.append(SubnetResult(role, str(subnet), macs, accuracies[subnet], synthetic))
    lost = [
        100 * (r.accuracy - r.accuracy_synthetic)
        for r in results
        if r.accuracy_synthetic is not None
    ]
    cost = CalibrationCost(len(lost), len(real), len(calibration), sum(lost) / len(lost), max(lost))
    yardstick = test.pixels[: len(calibration)]
    return Facts(
        test_images=len(test),
        results=tuple(results),
        calibration=cost,
        nearness=nearness(calibration, train.pixels),
        nearness_test=nearness(yardstick, train.pixels),
    )
