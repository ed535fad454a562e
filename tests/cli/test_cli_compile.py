"""``edgeofa compile``: sources that build, the same every time, and refusals that say why.

About 6 s.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sample_graphs
from typer.testing import CliRunner

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.cli.main import app, command
from edgeofa.errors import TooLarge, UsageError

_TARGET = ("--target", "nucleo-l4r5zi")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(LiteRtBackend().serialize(sample_graphs.int8_graph("network")))
    return path


def compiled(*arguments: str) -> dict[str, object]:
    command()
    result = CliRunner().invoke(app, ["compile", *_TARGET, "--json", *arguments])
    if result.exception is not None:
        raise result.exception
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_the_sources_are_whole_and_always_the_same(model: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    found = [compiled("--model", str(model), "--out", str(folder)) for folder in folders]
    assert found[0]["files"] == sorted(p.name for p in folders[0].iterdir())
    assert {p.name: p.read_bytes() for p in folders[0].iterdir()} == {
        p.name: p.read_bytes() for p in folders[1].iterdir()
    }
    header = (folders[0] / "edgeofa_network.h").read_text()
    assert f"#define EDGEOFA_ARENA_BYTES {found[0]['arena_bytes']}" in header
    assert f"#define EDGEOFA_WEIGHT_BYTES {found[0]['weight_bytes']}" in header


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_the_recipe_builds_two_networks_side_by_side(model: Path, tmp_path: Path) -> None:
    for prefix in ("first", "second"):
        compiled("--model", str(model), "--out", str(tmp_path / prefix), "--prefix", prefix)
    folder = tmp_path / "first"
    build = ["cmake", "-S", str(folder), "-B", str(folder / "build")]
    subprocess.run(build, check=True, capture_output=True)
    done = subprocess.run(
        ["cmake", "--build", str(folder / "build")], check=True, capture_output=True, text=True
    )
    assert "warning" not in done.stderr
    assert (folder / "build" / "libfirst_network.a").is_file()
    assert "second_run" in (tmp_path / "second" / "second_network.c").read_text()


def test_a_subnet_compiles(tmp_path: Path) -> None:
    from edgeofa.spaces import load_space

    subnet = str(load_space("cifar_micro").smallest())
    out = ("--out", str(tmp_path / "net"))
    found = compiled("--subnet", subnet, "--random-weights", *out)
    assert found["network"] == subnet


def test_too_little_memory_says_how_much_is_missing(model: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "none"))
    with pytest.raises(TooLarge, match=r"[0-9]+ more than --sram") as caught:
        compiled("--model", str(model), *out, "--sram", "1KB")
    assert "most at" in str(caught.value)
    # not even the smallest subnet would do
    assert "the leanest, cifar_micro@20/" in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_a_subnet_that_does_not_fit_is_refused_with_the_largest_that_does(tmp_path: Path) -> None:
    """What the refusal names is compiled as it stands there, and fits."""
    from edgeofa.spaces import load_space

    largest = str(load_space("cifar_micro").largest())
    less = ("--random-weights", "--sram", "24KB", "--out", str(tmp_path / "net"))
    with pytest.raises(TooLarge, match=r"the largest .most MACs. of cifar_micro") as caught:
        compiled("--subnet", largest, *less)
    assert caught.value.hint is not None
    found = compiled("--subnet", caught.value.hint.split('"')[1], *less)
    assert isinstance(found["arena_bytes"], int)
    # nearly all of it is used
    assert 22 * 1024 < found["arena_bytes"] <= 24 * 1024


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "either a model or a subnet"),
        (("--model", "none.tflite"), "no such file"),
        (("--model", "none.tflite", "--prefix", "1st"), "prefix"),
        (("--model", "none.tflite", "--emit", "rust"), "unknown output"),
        (("--model", "none.tflite", "--target", "rpi4"), "no microcontroller"),
    ],
)
def test_usage_is_checked(arguments: tuple[str, ...], what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        compiled("--out", str(tmp_path / "none"), *arguments)


def test_a_float_model_is_quantised_on_examples_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tflite"
    path.write_bytes(LiteRtBackend().serialize(sample_graphs.float_graph("network")))
    arguments = ("--model", str(path), "--out", str(tmp_path / "net"))
    with pytest.raises(UsageError, match=r"a float32 model, and .* computes in int8"):
        compiled(*arguments)
    np.save(tmp_path / "x.npy", sample_graphs.images((1, 24, 24, 3), 8))
    found = compiled(*arguments, "--data", str(tmp_path / "x.npy"))
    assert found["weight_bytes"] > 0
