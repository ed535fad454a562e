"""From a folder of pictures to a deployed network: train, bundle, profile, deploy (about 20 s)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_device import FakeDevice
from PIL import Image
from tiny_space import tiny_space
from typer.testing import CliRunner

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.cli.main import app, command
from edgeofa.deploy import Request, deploy
from edgeofa.deployment import Budget
from edgeofa.devices.local import LocalDevice
from edgeofa.elastic.bundles import load_bundle
from edgeofa.profiling.profile import profile
from edgeofa.report.progress import Steps
from edgeofa.targets import load_target

EACH = 75


def stripes(folder: Path) -> None:
    """Four classes that differ in the direction of their stripes; phase, colour and size vary."""
    rng = np.random.default_rng(0)
    for name, (along, down) in {"a": (1, 0), "b": (0, 1), "c": (1, 1), "d": (1, -1)}.items():
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            size = int(rng.integers(24, 40))
            y, x = np.mgrid[:size, :size] * (12 / size)
            wave = np.sin(1.6 * (along * x + down * y) + rng.uniform(0, 6.3))
            colour = rng.uniform(30, 110, 3)
            pixels = 128 + wave[..., None] * colour + rng.normal(0, 12, (size, size, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
                folder / name / f"{i}.png"
            )


def invoke(*arguments: str | Path) -> str:
    command()  # registers the verbs
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_from_train_to_deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "TABLES", "SUPERNETS"):
        monkeypatch.setenv(f"EDGEOFA_{name}", str(tmp_path / name.lower()))
    space, file = tiny_space(tmp_path), tmp_path / "tiny.toml"
    data, state = tmp_path / "pictures", tmp_path / "state"
    stripes(data)
    invoke("train", "run", "--space", file, "--data", data, "--out", state, "--steps", "250")
    options = ("--space", file, "--data", data, "--state", state, "--subnets", "40", "--json")
    made = json.loads(invoke("train", "bundle", *options))
    assert (made["training_images"], made["held_out_images"], made["test_images"]) == (212, 44, 44)
    # chance is 0.25
    assert made["largest_accuracy"] > 0.7
    bundle = load_bundle(space)
    assert bundle.folder == tmp_path / "supernets" / "tiny"
    assert bundle.calibration is not None
    assert len(bundle.calibration) == 212
    assert bundle.accuracy.claims_accuracy

    host = load_target("host")
    profile(host, space, LiteRtBackend(), "int8", device=FakeDevice())
    # what is deployed must not depend on how busy this machine is
    request = Request(
        target="host",
        budget=Budget(latency_ms=10_000),
        space=str(file),
        backend="litert",
        precision="int8",
        data=data,
        out=tmp_path / "out",
    )
    record, folder = deploy(request, Steps(), LocalDevice())
    assert (record.verdict, record.weights, record.space) == ("met", "trained", "tiny")
    assert (folder / "model.tflite").is_file()
    assert record.accuracy.images == 44
    assert record.accuracy.measured is not None
    assert record.accuracy.predicted is not None
    assert record.accuracy.measured > 0.6
    assert abs(record.accuracy.measured - record.accuracy.predicted) < 0.25
