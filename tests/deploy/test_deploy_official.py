"""From official files to a .tflite: table, predictor and supernet imported, deployed (about 20 s).

The weights are seeded, in the official form; the table is the Galaxy Note10's, and this machine
stands in the phone's place.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from material import material
from PIL import Image
from typer.testing import CliRunner

from edgeofa.accuracy.mlp import import_ofa_predictor
from edgeofa.cli.main import app, command
from edgeofa.deployment import load_deployment
from edgeofa.elastic.bundles import load_bundle
from edgeofa.elastic.official import build, to_official
from edgeofa.errors import MissingMaterial
from edgeofa.networks import TrainedWeights
from edgeofa.spaces import load_space

TARGET = """\
schema_version = 1
name = "note10"
description = "this machine in a phone's place"
device = "local"
default_space = "ofa_mbv3_w12"
backends = ["litert"]
precisions = ["float32"]
"""


def invoke(*arguments: str | Path) -> str:
    command()  # registers the verbs
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folders, a target file, a seeded checkpoint and a few pictures."""
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "tables"))
    monkeypatch.setenv("EDGEOFA_SUPERNETS", str(tmp_path / "supernets"))
    (tmp_path / "note10.toml").write_text(TARGET)
    torch.manual_seed(0)
    torch.save(to_official(build("ofa_mbv3_w12")), tmp_path / "ofa_mbv3_d234_e346_k357_w1.2")
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path


def test_official_table_predictor_and_supernet_give_a_tflite(home: Path) -> None:
    data, target = material("ofa"), home / "note10.toml"
    table = data / "note10" / "160_lookup_table.yaml"
    invoke("import", "table", table, "--target", target, "--device", "Samsung Note10")
    checkpoint = home / "ofa_mbv3_d234_e346_k357_w1.2"
    predictor, pictures = data / "acc_predictor.pth", home / "pictures"
    options = ("--predictor", predictor, "--calibration", pictures, "--json")
    imported = json.loads(invoke("import", "supernet", checkpoint, *options))
    assert imported["net"] == checkpoint.name
    assert (imported["space"], imported["entries"]) == ("ofa_mbv3_w12", 475)
    assert (imported["calibration_images"], imported["predictor"]) == (12, True)

    # what the table says of the phone
    solved = json.loads(invoke("solve", "--target", target, "--latency", "25ms", "--json"))
    best = solved["selection"]["best"]
    assert 22 < best["latency"]["ms"] <= 25
    space = load_space("ofa_mbv3_w12")
    model = import_ofa_predictor(predictor, space)
    assert best["accuracy"] == pytest.approx(model.accuracy(space.parse(best["subnet"])), abs=1e-6)

    # what is deployed must not depend on how busy this machine is
    invoke("deploy", "--target", target, "--latency", "20s", "--out", home / "out")
    record = load_deployment(home / "out" / "deployment.json")
    assert (record.verdict, record.weights, record.evidence) == ("met", "trained", "measured")
    assert record.subnet.startswith("ofa_mbv3_w12@160/")
    assert record.accuracy.predicted is not None
    assert record.accuracy.predicted > best["accuracy"]
    assert record.output_error.max_relative < 1e-4
    assert (home / "out" / "model.tflite").stat().st_size > 10 << 20


def test_a_supernet_alone_claims_no_accuracy_and_asks_for_pictures(home: Path) -> None:
    assert "no accuracy predictor" in invoke(
        "import", "supernet", home / "ofa_mbv3_d234_e346_k357_w1.2", "--source", "seeded"
    )
    bundle = load_bundle(load_space("ofa_mbv3_w12"))
    assert bundle.card["imported"]["source"] == "seeded"
    assert not bundle.accuracy.claims_accuracy
    with pytest.raises(MissingMaterial, match=r"without calibration images(.|\n)*--calibration"):
        TrainedWeights(bundle, None, 0)
