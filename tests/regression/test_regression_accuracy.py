"""Accuracy on the device, and devices that cannot do everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from regression_world import Bench, make_deployment, small_images
from tiny_space import tiny_space

from edgeofa.devices.base import Endurance
from edgeofa.errors import RegressionFound, UsageError
from edgeofa.graph.reference import quantization, quantize_array, run
from edgeofa.regression.accept import accept
from edgeofa.regression.accuracy import Labelled, check_accuracy, load_pictures
from edgeofa.regression.constants import check_constants
from edgeofa.regression.deployed import Deployed, open_deployment
from edgeofa.regression.endurance import check_endurance
from edgeofa.regression.outputs import check_outputs
from edgeofa.regression.record import Check
from edgeofa.regression.suite import Plan
from edgeofa.regression.suite import test_deployment as run_one
from edgeofa.targets import load_target


class Confused(Bench):
    """Takes one class for another."""

    def run(self, jobs, **options):  # type: ignore[no-untyped-def]
        found = super().run(jobs, **options)
        return [
            o if o.output is None else replace(o, output=np.roll(o.output, 1, axis=-1))
            for o in found
        ]


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    return open_deployment(make_deployment(tmp_path / "d"))


def pictures(deployed: Deployed, count: int = 40, wrong: int = 4) -> Labelled:
    """Labels by the reference itself, some of them wrong."""
    assert deployed.material is not None
    graph, images = deployed.material.graph, small_images(count)
    stored = quantize_array(images, quantization(graph, graph.input))
    labels = run(graph, stored).argmax(axis=-1)
    labels[:wrong] = (labels[:wrong] + 1) % 5
    return Labelled(images, labels)


def judged(deployed: Deployed, device: Bench, baseline: float | None = None) -> Check:
    assert deployed.material is not None
    shown = pictures(deployed)
    return check_accuracy(device, deployed, deployed.material, shown, baseline=baseline)


def test_as_accurate_as_the_reference(deployed: Deployed) -> None:
    found = judged(deployed, Bench())
    assert (found.status, found.value) == ("passed", 0.9)
    assert judged(deployed, Bench(), baseline=0.92).status == "passed"
    assert judged(deployed, Bench(), baseline=1.0).status == "failed"


def test_a_confused_device_fails(deployed: Deployed) -> None:
    found = judged(deployed, Confused())
    assert found.status == "failed"
    assert found.value is not None
    assert found.value < 0.3
    assert "the reference 90.0%" in found.summary


def write_pictures(folder: Path, classes: int) -> Path:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(4):
            image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            image.save(folder / f"class{c}" / f"{i}.png")
    return folder


def test_pictures_are_read_as_the_network_takes_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 10)
    made = open_deployment(make_deployment(tmp_path / "d"))
    subnet = "cifar_micro@28/5x3,5x3/5x4,5x4/5x4/5x3"
    record = made.record.model_copy(update={"space": "cifar_micro", "subnet": subnet})
    made = replace(made, record=record)
    found = load_pictures(tmp_path / "data", made, 8, 0)
    assert found.images.shape == (8, 28, 28, 3)
    assert found.labels.shape == (8,)
    assert found.digest == load_pictures(tmp_path / "data", made, 8, 0).digest
    assert found.digest != load_pictures(tmp_path / "data", made, 8, 1).digest


def test_pictures_for_a_space_of_ones_own(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 4)
    space, file = tiny_space(tmp_path), str(tmp_path / "tiny.toml")
    made = open_deployment(make_deployment(tmp_path / "d"))
    made = replace(made, record=made.record.model_copy(update={"subnet": str(space.smallest())}))
    found = load_pictures(tmp_path / "data", made, 4, 0, file)
    assert found.images.shape == (4, 8, 8, 3)
    with pytest.raises(UsageError, match="--space FILE"):
        load_pictures(tmp_path / "data", made, 8, 0)
    other = replace(made, record=made.record.model_copy(update={"space": "another"}))
    with pytest.raises(UsageError, match="the file of tiny"):
        load_pictures(tmp_path / "data", other, 8, 0, file)


def test_a_device_that_cannot_watch_is_not_blamed(deployed: Deployed) -> None:
    class Plain(Bench):
        def run(self, jobs, **options):  # type: ignore[no-untyped-def]
            return [replace(o, endurance=None) for o in super().run(jobs, **options)]

    for device in (Plain(), Plain(evidence="modelled")):
        found = check_endurance(
            device,
            deployed.artifact,
            "litert",
            runs=40,
            latency_ms=0.5,
            emulator_s=1.0,
            threads=1,
        )
        assert (found.check.status, found.heap_bytes) == ("skipped", None)
    target, plan = load_target("host"), Plan(deployed.folder.parent / "baselines", runs=40)
    _, baseline = accept(target, Plain(), deployed, plan)
    assert baseline.heap_bytes is None
    assert run_one(target, Plain(), deployed, plan).status == "passed"


def test_an_artifact_that_cannot_be_cut_is_judged_as_a_whole(
    deployed: Deployed, tmp_path: Path
) -> None:
    material = deployed.material
    assert material is not None
    record = deployed.record.model_copy(update={"backend": "firmware"})
    other = replace(deployed, record=record)
    assert check_constants(other, material.graph).status == "skipped"
    # its outputs are the reference's, bit for bit
    for change, status in ((0, "passed"), (1, "failed")):
        outputs = [
            np.clip(o.astype(int) - change, -128, 127).astype(np.int8)[None]
            for o in material.outputs
        ]
        check = check_outputs(
            Bench(), other, material, outputs, tmp_path, accepted=False, suspect=True, threads=1
        )
        assert check.status == status
        assert "no layer is named" in check.summary


def test_what_cannot_be_tested_is_not_accepted(deployed: Deployed) -> None:
    target, plan = load_target("host"), Plan(deployed.folder.parent / "baselines", runs=40)
    with pytest.raises(UsageError, match="carries no reference"):
        accept(target, Bench(), replace(deployed, material=None), plan)
    changing = Bench(endurance=Endurance(1, 1, 0, 0, 0))
    with pytest.raises(RegressionFound, match="endurance"):
        accept(target, changing, deployed, plan)
