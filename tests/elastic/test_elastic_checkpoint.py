"""Checkpoints and bundles: read back exactly, refused with the reason where they are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeofa.elastic import bundles
from edgeofa.elastic.bundles import load_bundle, load_calibration
from edgeofa.elastic.checkpoint import load_supernet, save_supernet
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.spaces import load_space

_METADATA = {"edgeofa": '{"schema_version": 1, "space": "cifar_micro"}'}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_supernet(Supernet(load_space("cifar_micro")), path)
    return path


def test_a_checkpoint_reads_back(checkpoint: Path) -> None:
    torch.manual_seed(0)
    space = load_space("cifar_micro")
    original, loaded = Supernet(space), load_supernet(checkpoint)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for name, value in original.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=2e-3, rtol=1e-3), name
    again = checkpoint.with_name("again.safetensors")
    save_supernet(loaded, again)
    assert again.read_bytes() == checkpoint.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"entry classifier\.bias is missing"),
        ("extra", r"entry zebra is foreign"),
        ("shape", r"entry head\.weight has shape \[3\], not \[256, 112, 1, 1\]"),
        ("infinite", r"entry classifier\.bias is not finite"),
    ],
)
def test_the_first_wrong_entry_is_named(checkpoint: Path, change: str, message: str) -> None:
    tensors = load_file(checkpoint)
    if change == "missing":
        del tensors["classifier.bias"]
    elif change == "extra":
        tensors["zebra"] = torch.zeros(1)
    elif change == "shape":
        tensors["head.weight"] = torch.zeros(3)
    else:
        tensors["classifier.bias"][0] = torch.inf
    save_file(tensors, checkpoint, _METADATA)
    with pytest.raises(FileFormatError, match=message):
        load_supernet(checkpoint)


def test_foreign_files_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint)
    for header, message in (
        ('{"schema_version": 9, "space": "cifar_micro"}', "schema version 9"),
        ('{"schema_version": 1, "space": "../zebra.toml"}', "unknown space"),
        ("[1]", "not a checkpoint of edgeofa"),
    ):
        save_file(tensors, checkpoint, {"edgeofa": header})
        with pytest.raises(FileFormatError, match=message):
            load_supernet(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        load_supernet(checkpoint)
    with pytest.raises(MissingMaterial):
        load_supernet(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 32, 32, 3), np.float32),
        np.zeros((4, 32, 32, 1), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
)
def test_calibration_images_are_checked(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "calibration.npz"
    np.savez(path, images=array)
    with pytest.raises(FileFormatError, match="calibration images"):
        load_calibration(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(FileFormatError, match="not calibration images"):
        load_calibration(path)


def test_damaged_calibration_images_are_refused(tmp_path: Path) -> None:
    """Whatever the damage, there are images or an error of edgeofa's own."""
    path = tmp_path / "calibration.npz"
    rng = np.random.default_rng(0)
    np.savez_compressed(path, images=rng.integers(0, 255, (2, 4, 4, 3), dtype=np.uint8))
    good = path.read_bytes()
    refused = 0
    for _ in range(200):
        content = np.frombuffer(good, np.uint8).copy()
        content[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(content.tobytes())
        try:
            load_calibration(path)
        except FileFormatError:
            refused += 1
    assert refused > 100


def test_a_space_without_a_supernet_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "data_dir", lambda: tmp_path)
    with pytest.raises(MissingMaterial, match="no trained supernet for space cifar_micro"):
        load_bundle(load_space("cifar_micro"))


@pytest.mark.parametrize("name", ["cifar_lite", "cifar_micro"])
def test_the_shipped_bundles_are_whole(name: str) -> None:
    bundle = load_bundle(load_space(name))
    supernet = bundle.supernet()
    assert supernet.space is bundle.space
    assert len(bundle.calibration) >= 128
    largest, smallest = bundle.space.largest(), bundle.space.smallest()
    assert bundle.accuracy.accuracy(largest) > bundle.accuracy.accuracy(smallest) > 0.3
    assert bundle.card["space"] == name
    assert bundle.card["calibration"]["mean_points"] <= 0.5
    assert len(bundle.card["accuracy"]) == 22
