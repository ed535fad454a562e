"""A user's own pictures, for calibrating and judging a deployment."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeofa.spaces import Space
from edgeofa.training.data import Images, is_archive, load_images
from edgeofa.training.folders import all_pictures, folder_splits, read_pictures

__all__ = ["Labelled", "load_labelled", "load_pictures"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures to calibrate on, and others to measure the accuracy on."""

    calibration: Images
    test: Images


def load_labelled(
    data: Path, space: Space, *, calibration: int, test: int, seed: int = 0
) -> Labelled:
    """A seeded choice of the pictures at ``data``, at most so many of each part.

    ``data`` is CIFAR-10, a folder ``<train|test>/<class>/<picture>``, or a folder
    ``<class>/<picture>``, split as for a training
    (:func:`edgeofa.training.folders.folder_splits`): what is measured on was not trained on.
    Pictures are read at the space's largest resolution.

    Raises:
        MissingMaterial: nothing of that form is there.
        UsageError: the classes are not as many as the space's, or one has too few pictures.
        FileFormatError: a picture cannot be read (named).
    """
    if is_archive(data):
        return Labelled(
            _choose(load_images(data, "train"), calibration, seed),
            _choose(load_images(data, "test"), test, seed),
        )
    splits = folder_splits(data, space)
    size = space.resolutions[-1]
    for files in splits.values():
        random.Random(seed).shuffle(files)
    return Labelled(_read(splits["train"][:calibration], size), _read(splits["test"][:test], size))


def load_pictures(folder: Path, size: int, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """At most ``count`` pictures from anywhere below ``folder``, a seeded choice, labels unknown.

    Returns uint8 ``[N, size, size, 3]``.

    Raises:
        MissingMaterial: no such folder, or no picture in it.
        FileFormatError: a picture cannot be read (named).
    """
    files = all_pictures(folder)
    random.Random(seed).shuffle(files)
    return read_pictures(files[:count], size)


def _choose(images: Images, count: int, seed: int) -> Images:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return Images(images.pixels[order], images.labels[order])


def _read(files: list[tuple[Path, int]], size: int) -> Images:
    labels = np.array([label for _, label in files], dtype=np.int64)
    pixels = read_pictures([path for path, _ in files], size)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))
