"""Top-1 of the artifact on the device, on labelled pictures."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.devices.base import Device
from edgeofa.errors import UsageError
from edgeofa.graph.ir import Array
from edgeofa.graph.reference import quantization, quantize_array, run
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.material import Material
from edgeofa.regression.outputs import run_images
from edgeofa.regression.record import Check

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Labelled:
    """Preprocessed pictures (NHWC float32), their labels, and a digest of both."""

    images: Array
    labels: Array

    @property
    def digest(self) -> str:
        content = self.images.tobytes() + self.labels.astype(np.int64).tobytes()
        return hashlib.sha256(content).hexdigest()[:32]


def load_pictures(
    data: Path, deployed: Deployed, count: int, seed: int, space_file: str | None = None
) -> Labelled:
    """``count`` seeded pictures of ``data`` as the deployment's network takes them; of a model of
    the user's own, labelled inputs as ``edgeofa deploy --model`` takes them.

    Args:
        space_file: of the deployment's space, where it is not a shipped one.
    """
    if deployed.record.model is not None:
        return _examples(data, deployed, count, seed)
    from edgeofa.spaces import load_space, space_names
    from edgeofa.training.data import preprocess
    from edgeofa.training.labelled import load_labelled

    name = deployed.record.title
    if space_file is None and name not in space_names():
        raise UsageError(
            f"{name} is a space of your own: its pictures' sizes and classes are in its file",
            where=deployed.folder,
            hint="--space FILE",
        )
    space = load_space(space_file or name)
    if space.name != name:
        raise UsageError(
            f"the deployment is of the space {name}, the file of {space.name}", where=space_file
        )
    test = load_labelled(data, space, calibration=1, test=count, seed=seed).test
    resolution = space.parse(deployed.record.network).resolution
    return Labelled(preprocess(test.pixels, resolution, space).numpy(), test.labels.numpy())


def _examples(data: Path, deployed: Deployed, count: int, seed: int) -> Labelled:
    from edgeofa.model_data import RAW_PIXELS, load_examples

    if deployed.material is None:
        raise UsageError("it carries no graph: deploy again", where=deployed.folder)
    i = deployed.record.input
    normalisation = RAW_PIXELS if i.mean is None or i.std is None else (i.mean, i.std)
    found = load_examples(data, deployed.material.graph, count, seed, normalisation)
    if found.labels is None:
        raise UsageError(
            "inputs without labels tell no accuracy",
            where=data,
            hint="an .npz file with inputs and labels, or a folder of pictures for each class",
        )
    return Labelled(found.inputs, found.labels)


def check_accuracy(
    device: Device,
    deployed: Deployed,
    material: Material,
    pictures: Labelled,
    *,
    baseline: float | None,
) -> Check:
    """The device must be right where the reference is, chance aside, and as often as before.

    Two classifiers of the same pictures are told apart by those on which one of them is right:
    ``lost`` against ``won``. By chance these differ by more than two standard deviations,
    ``2 sqrt(lost + won)``, once in twenty times (McNemar's test); one picture more is allowed.
    """
    stored = pictures.images
    if material.graph.precision == "int8":
        stored = quantize_array(stored, quantization(material.graph, material.graph.input))
    outputs = run_images(device, deployed, material.graph, stored)
    answers = [int(o.reshape(-1).argmax()) for o in outputs]
    reference = np.concatenate(
        [run(material.graph, stored[i : i + _BATCH]) for i in range(0, len(stored), _BATCH)]
    ).reshape(len(stored), -1)
    right = np.array(answers) == pictures.labels
    wanted = reference.argmax(axis=-1) == pictures.labels
    accuracy = float(right.mean())
    lost, won = int((wanted & ~right).sum()), int((right & ~wanted).sum())
    summary = (
        f"{100 * accuracy:.1f}% of {len(right)} pictures, the reference "
        f"{100 * float(wanted.mean()):.1f}%"
    )
    failed = lost - won > 2 * math.sqrt(lost + won) + 1
    if baseline is not None:
        summary += f", the baseline {100 * baseline:.1f}%"
        # the same pictures on the same device: a picture more or less is all that rounding does
        failed = failed or (baseline - accuracy) * len(right) > max(2.0, 0.01 * len(right))
    return Check(
        name="accuracy",
        status="failed" if failed else "passed",
        summary=summary,
        value=accuracy,
        baseline=baseline,
        unit="top-1",
    )
