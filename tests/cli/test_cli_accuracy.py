"""``edgeofa accuracy`` on the shipped micro supernet and a few pictures of colour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edgeofa.cli.accuracy import app
from edgeofa.errors import UsageError

SMALLEST = "cifar_micro@20/3x2/3x2/3x2/3x2"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten classes of noise, four pictures each."""
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = tmp_path / f"class{label}"
        folder.mkdir()
        for n in range(4):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
    return tmp_path


def test_report_says_how_good_the_model_is() -> None:
    result = CliRunner().invoke(app, ["report", "--space", "cifar_micro", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["pairs"] >= 40
    assert 0 < found["additive_points"] < 5
    assert 0 < found["additive_tau"] <= 1


def test_check_measures_both_precisions_beside_the_prediction(pictures: Path) -> None:
    result = CliRunner().invoke(
        app, ["check", "--subnet", SMALLEST, "--data", str(pictures), "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [m["precision"] for m in found["measured"]] == ["float32", "int8"]
    # of each class 15% judge, at least one
    assert found["images"] == 10
    for one in found["measured"]:
        # noise has no class, so far fewer are right than of real pictures
        assert one["accuracy"] < found["predicted"]
        assert one["off"] == pytest.approx(one["accuracy"] - found["predicted"])


def test_a_subnet_of_another_space_is_refused(pictures: Path) -> None:
    result = CliRunner().invoke(
        app, ["check", "--subnet", "cifar_micro@21/3x2/3x2/3x2/3x2", "--data", str(pictures)]
    )
    assert isinstance(result.exception, UsageError)
    assert "21" in str(result.exception)
