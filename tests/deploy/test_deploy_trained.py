"""The walk as a user makes it: a shipped bundle, a published table, the emulated board."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeofa.deployment import load_deployment
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.paths import data_dir
from edgeofa.spaces import load_space
from edgeofa.targets import load_target
from edgeofa.training.labelled import load_labelled

EDGEOFA = Path(sys.executable).parent / "edgeofa"


def pictures(folder: Path, classes: int, each: int, seed: int = 0) -> None:
    """Random pictures of various sizes, one folder a class."""
    rng = np.random.default_rng(seed)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(each):
            size = (int(rng.integers(20, 60)), int(rng.integers(20, 60)), 3)
            image = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
            image.save(folder / f"class{c}" / f"{i}.png")


@pytest.mark.emulated
def test_a_trained_subnet_on_the_emulated_board(tmp_path: Path) -> None:
    pictures(tmp_path / "data", classes=10, each=16)
    options = "deploy --target rpi4 --space cifar_micro --latency 2ms --precision int8 --json"
    done = subprocess.run(
        [EDGEOFA, *options.split(), "--data", tmp_path / "data", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = load_deployment(tmp_path / "out" / "deployment.json")
    assert json.loads(done.stdout) == record.model_dump(mode="json")
    assert record.verdict == "met"
    assert (record.evidence, record.weights) == ("modelled", "trained")
    assert record.choice is not None
    tried = {c.backend: c.measured_ms for c in record.candidates}
    assert set(tried) == set(load_target("rpi4").backends)
    # the table that planned is one back end's; the fastest of all is kept
    planned = next(ms for name, ms in tried.items() if f"-{name}-" in record.choice.table)
    assert planned is not None
    assert planned > 0.8 * 2, "the budget is not used"
    assert record.predicted_ms == pytest.approx(planned, rel=0.05)
    assert record.measured_ms == min(ms for ms in tried.values() if ms is not None)
    assert record.output_error.sqnr_db is not None
    assert record.output_error.sqnr_db > 20
    assert None not in (tried["litert"], tried["onnxruntime"])
    assert record.accuracy.predicted is not None
    assert record.accuracy.predicted > 0.5
    # random pictures teach nothing: the measured accuracy is honest about them
    assert record.accuracy.images == 20
    assert record.accuracy.measured is not None
    assert record.accuracy.measured < 0.5
    assert record.choice.frontier_points >= len(record.choice.frontier) > 10


def test_bundles_that_ship_have_what_a_deployment_needs() -> None:
    from edgeofa.elastic.bundles import load_bundle

    for folder in sorted(p for p in (data_dir() / "supernets").iterdir() if p.is_dir()):
        bundle = load_bundle(load_space(folder.name))
        assert bundle.calibration.shape[0] >= 64
        assert bundle.accuracy.error < 0.05
        assert bundle.card


def test_a_flat_folder_is_split_without_overlap(tmp_path: Path) -> None:
    pictures(tmp_path, classes=10, each=6)
    found = load_labelled(tmp_path, load_space("cifar_micro"), calibration=1000, test=1000)
    assert (len(found.calibration), len(found.test)) == (40, 10)
    both = np.concatenate([found.calibration.pixels.numpy(), found.test.pixels.numpy()])
    assert both.shape[1:] == (48, 48, 3)
    assert len(np.unique(both.reshape(len(both), -1), axis=0)) == 50
    few = load_labelled(tmp_path, load_space("cifar_micro"), calibration=7, test=3)
    assert (len(few.calibration), len(few.test)) == (7, 3)


def test_train_and_test_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "train", classes=10, each=3)
    pictures(tmp_path / "test", classes=10, each=1, seed=1)
    found = load_labelled(tmp_path, load_space("cifar_micro"), calibration=1000, test=1000)
    assert (len(found.calibration), len(found.test)) == (20, 10)
    assert sorted(found.test.labels.tolist()) == list(range(10))


def test_wrong_data_is_named(tmp_path: Path) -> None:
    space = load_space("cifar_micro")
    with pytest.raises(MissingMaterial, match="no such folder"):
        load_labelled(tmp_path / "none", space, calibration=1, test=1)
    pictures(tmp_path / "three", classes=3, each=2)
    with pytest.raises(UsageError, match="3 classes"):
        load_labelled(tmp_path / "three", space, calibration=1, test=1)
    pictures(tmp_path / "broken", classes=10, each=4)
    for path in (tmp_path / "broken" / "class4").iterdir():
        path.write_bytes(b"\x89PNG not really")
    with pytest.raises(FileFormatError, match=r"class4.*not a picture"):
        load_labelled(tmp_path / "broken", space, calibration=99, test=99)
