"""A user's own pictures, for calibrating and judging a deployment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Space
from edgeofa.training.data import Images, load_images

__all__ = ["Labelled", "load_labelled", "load_pictures"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_MAX_FILES = 2_000_000


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures to calibrate on, and others to measure the accuracy on."""

    calibration: Images
    test: Images


def load_labelled(
    data: Path, space: Space, *, calibration: int, test: int, seed: int = 0
) -> Labelled:
    """A seeded choice of the pictures at ``data``, at most so many of each part.

    ``data`` is CIFAR-10 (see :func:`edgeofa.training.data.load_images`), a folder
    ``<train|test>/<class>/<picture>``, or a folder ``<class>/<picture>`` whose pictures are split
    in two halves. Classes are taken in alphabetical order. Pictures are read at the space's largest
    resolution.

    Raises:
        MissingMaterial: nothing of that form is there.
        UsageError: the number of classes is not the space's.
        FileFormatError: a picture cannot be read (named).
    """
    if (data / "cifar10_train_jpeg.npz").is_file():
        return Labelled(
            _choose(load_images(data, "train"), calibration, seed),
            _choose(load_images(data, "test"), test, seed),
        )
    if not data.is_dir():
        raise MissingMaterial("no such folder of pictures", where=data)
    size = space.resolutions[-1]
    if (data / "train").is_dir() and (data / "test").is_dir():
        train, held = _files(data / "train", space, seed), _files(data / "test", space, seed)
    else:
        files = _files(data, space, seed)
        train, held = files[::2], files[1::2]
    return Labelled(_labelled(train[:calibration], size), _labelled(held[:test], size))


def load_pictures(folder: Path, size: int, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """At most ``count`` pictures from anywhere below ``folder``, a seeded choice, labels unknown.

    Returns uint8 ``[N, size, size, 3]``.

    Raises:
        MissingMaterial: no such folder, or no picture in it.
        FileFormatError: a picture cannot be read (named).
    """
    if not folder.is_dir():
        raise MissingMaterial("no such folder of pictures", where=folder)
    files = sorted(islice((p for p in folder.rglob("*") if _is_picture(p)), _MAX_FILES))
    if not files:
        raise MissingMaterial(
            "no picture here", where=folder, hint=f"files {', '.join(sorted(_SUFFIXES))}"
        )
    random.Random(seed).shuffle(files)
    return _read(files[:count], size)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _choose(images: Images, count: int, seed: int) -> Images:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return Images(images.pixels[order], images.labels[order])


def _files(folder: Path, space: Space, seed: int) -> list[tuple[Path, int]]:
    """Pictures with their labels, shuffled."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) != space.classes:
        raise UsageError(
            f"{len(classes)} classes (sub-folders) here, the space {space.name} has "
            f"{space.classes}",
            where=folder,
            hint="one sub-folder a class, as many as the space has classes",
        )
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted(name.iterdir())
        if _is_picture(path)
    ]
    if len(files) < 2 or len(files) > _MAX_FILES:
        raise MissingMaterial(
            f"{len(files)} pictures here",
            where=folder,
            hint=f"files {', '.join(sorted(_SUFFIXES))}",
        )
    random.Random(seed).shuffle(files)
    return files


def _labelled(files: list[tuple[Path, int]], size: int) -> Images:
    labels = np.array([label for _, label in files], dtype=np.int64)
    pixels = _read([path for path, _ in files], size)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _read(files: Sequence[Path], size: int) -> NDArray[np.uint8]:
    pixels = np.empty((len(files), size, size, 3), dtype=np.uint8)
    for i, path in enumerate(files):
        try:
            with Image.open(path) as image:
                resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise FileFormatError(f"not a picture: {error}", where=path) from error
        pixels[i] = np.asarray(resized)
    return pixels
