"""A user's own pictures: how they are split, and what is said before a training (about 3 s)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_space import tiny_space

from edgeofa.errors import EdgeofaError, FileFormatError, MissingMaterial, UsageError
from edgeofa.training.data import load_images
from edgeofa.training.folders import folder_splits, read_pictures
from edgeofa.training.session import train

CLASSES = ("ant", "bee", "cat", "dog")


def pictures(folder: Path, each: int = 10) -> None:
    """Noise around a brightness that tells the class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(50 * label, 50 * label + 40, (12 + i, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def test_splits_are_disjoint_and_of_every_class(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    pictures(tmp_path / "data")
    splits = folder_splits(tmp_path / "data", space)
    assert {k: len(v) for k, v in splits.items()} == {"train": 24, "held_out": 8, "test": 8}
    paths = [path for part in splits.values() for path, _ in part]
    assert len(set(paths)) == 40
    for part in splits.values():
        assert {label for _, label in part} == {0, 1, 2, 3}
        assert all(path.parent.name == CLASSES[label] for path, label in part)
    assert folder_splits(tmp_path / "data", space) == splits


def test_pixels_and_labels_belong_together(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    pictures(tmp_path / "data" / "train")
    pictures(tmp_path / "data" / "test", each=3)
    for split, count in (("train", 32), ("held_out", 8), ("test", 12)):
        images = load_images(tmp_path / "data", split, space)  # type: ignore[arg-type]
        assert images.pixels.shape == (count, 12, 12, 3)
        brightness = images.pixels.float().mean((1, 2, 3))
        assert ((brightness // 50).long() == images.labels).all()
        # no order that the labels could be told from
        assert images.labels.tolist() != sorted(images.labels.tolist())


def empty_class(data: Path) -> None:
    for path in (data / "cat").iterdir():
        path.unlink()


def one_class(data: Path) -> None:
    for name in CLASSES[1:]:
        (data / name).rename(data.parent / name)


def no_pictures(data: Path) -> None:
    for name in CLASSES:
        for path in (data / name).iterdir():
            path.rename(path.with_suffix(".txt"))


def broken(data: Path) -> None:
    for path in (data / "bee").iterdir():
        path.write_bytes(path.read_bytes()[:60])


def tiny(data: Path) -> None:
    for path in (data / "dog").iterdir():
        Image.new("RGB", (400, 3)).save(path)


def few(data: Path) -> None:
    for path in sorted((data / "ant").iterdir())[2:]:
        path.unlink()


def other_names(data: Path) -> None:
    (data / "train").mkdir()
    (data / "test").mkdir()
    for name in CLASSES:
        (data / name).rename(data / "train" / name)
        (data / "test" / f"{name}s").mkdir()
        Image.new("RGB", (9, 9)).save(data / "test" / f"{name}s" / "a.png")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (empty_class, MissingMaterial, r"cat: a class without a picture"),
        (one_class, UsageError, r"1 classes(.|\n)*one class is nothing to learn"),
        (no_pictures, MissingMaterial, r"ant: a class without a picture"),
        (broken, FileFormatError, r"bee/\d\.png: not a picture"),
        (tiny, FileFormatError, r"dog/\d\.png: a picture of 400x3 px"),
        (few, UsageError, r"2 pictures of class ant, at least 3"),
        (other_names, UsageError, r"train and test have classes of different names"),
        (lambda data: data.rename(data.parent / "elsewhere"), MissingMaterial, "no data set here"),
    ],
)
def test_what_is_wrong_is_said_before_training_starts(
    spoil: object, error: type[EdgeofaError], message: str, tmp_path: Path
) -> None:
    tiny_space(tmp_path)
    data, out = tmp_path / "data", tmp_path / "out"
    pictures(data)
    spoil(data)  # type: ignore[operator]
    with pytest.raises(error, match=message):
        train(str(tmp_path / "tiny.toml"), data, out, None, None, 1, 0, print)
    assert not out.exists()


def test_a_test_picture_that_cannot_be_read_is_said_too(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    pictures(tmp_path / "data")
    path, _ = folder_splits(tmp_path / "data", space)["test"][0]
    path.write_bytes(b"\x89PNG not really")
    with pytest.raises(FileFormatError, match="not a picture"):
        train(str(tmp_path / "tiny.toml"), tmp_path / "data", tmp_path, None, None, 1, 0, print)


def test_pictures_of_any_mode_are_read(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "CMYK"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (10, 30)).save(path)
        assert read_pictures([path], 16).shape == (1, 16, 16, 3)
