"""Data sets, preprocessing and augmentation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from material import material
from PIL import Image

from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.spaces import load_space
from edgeofa.training import data as module
from edgeofa.training.data import augment, load_images, preprocess


def _archive(folder: Path, part: str, count: int) -> None:
    rng = np.random.default_rng(0)
    blobs = []
    for _ in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "JPEG")
        blobs.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, blobs)])
    blob = np.frombuffer(b"".join(blobs), np.uint8)
    path = folder / f"cifar10_{part}_jpeg.npz"
    np.savez(path, blob=blob, offsets=offsets, labels=np.arange(count) % 10)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "HELD_OUT", 4)


def test_the_last_training_images_are_held_out(tmp_path: Path) -> None:
    _archive(tmp_path, "train", 12)
    train, held_out = load_images(tmp_path, "train"), load_images(tmp_path, "held_out")
    assert (len(train), len(held_out)) == (8, 4)
    assert held_out.labels.tolist() == [8, 9, 0, 1]
    assert train.pixels.dtype == torch.uint8
    assert train.pixels.shape == (8, 8, 8, 3)


def test_decoded_images_are_cached_until_the_archive_changes(tmp_path: Path) -> None:
    _archive(tmp_path, "test", 5)
    first = load_images(tmp_path, "test")
    assert torch.equal(load_images(tmp_path, "test").pixels, first.pixels)
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 1
    _archive(tmp_path, "test", 6)
    assert len(load_images(tmp_path, "test")) == 6


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingMaterial, match="no data set here"):
        load_images(tmp_path, "test")
    path = tmp_path / "cifar10_test_jpeg.npz"
    path.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="not an image archive"):
        load_images(tmp_path, "test")
    blob = np.frombuffer(b"not a jpeg at all", np.uint8)
    np.savez(path, blob=blob, offsets=[0, len(blob)], labels=[3])
    with pytest.raises(FileFormatError, match="not an image archive"):
        load_images(tmp_path, "test")
    np.savez(path, blob=blob, offsets=[0, 9, 4], labels=[3, 3])
    with pytest.raises(FileFormatError, match="offsets and labels"):
        load_images(tmp_path, "test")


@pytest.mark.parametrize("resolution", [20, 32, 48])
def test_preprocessing_is_bilinear_interpolation(resolution: int) -> None:
    space = load_space("cifar_micro")
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    resized = F.interpolate(
        pixels.float().permute(0, 3, 1, 2),
        (resolution, resolution),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    ).permute(0, 2, 3, 1)
    mean, std = torch.tensor(space.preprocess.mean), torch.tensor(space.preprocess.std)
    smooth = preprocess(pixels.float(), resolution, space)
    assert torch.allclose(smooth, (resized - mean) / std, atol=1e-4)
    whole = preprocess(pixels, resolution, space) * std + mean
    assert torch.allclose(whole, whole.round(), atol=1e-3)
    assert float((whole - resized).abs().max()) <= 0.51


def test_augmentation_shifts_and_flips_and_nothing_else() -> None:
    column = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1)
    pixels = (column + 16 * column.transpose(1, 2)).expand(64, 16, 16, 3)
    shifted = augment(pixels, torch.Generator().manual_seed(0))
    assert shifted.dtype == torch.uint8
    inner = shifted[:, 4:12, 4:12, 0].long()
    steps = (inner[:, :, 1:] - inner[:, :, :-1]).flatten(1)
    # every image's middle goes right or left by one column a pixel
    assert all(len(set(s.tolist())) == 1 for s in steps)
    assert {int(s[0]) for s in steps} == {1, -1}
    rows = inner[:, 1:] - inner[:, :-1]
    assert (rows == 16).all()
    assert len({int(x) for x in inner[:, 0, 0] // 16}) > 4


def test_cifar10_is_read(tmp_path: Path) -> None:
    images = load_images(material("cifar10"), "test")
    assert images.pixels.shape == (10_000, 32, 32, 3)
    assert images.labels.bincount().tolist() == [1000] * 10
