"""Image data sets: CIFAR-10's JPEG archive, an image folder, preprocessing and augmentation.

Pixels travel as uint8 ``[N, height, width, 3]``; JPEG is decoded once into the user's cache.
"""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.npyfile import UNREADABLE
from edgeofa.paths import atomic_path, cache_dir
from edgeofa.spaces.space import Space
from edgeofa.training.folders import Split, folder_splits, read_pictures

__all__ = ["HELD_OUT", "Images", "augment", "is_archive", "load_images", "preprocess"]

#: The last training images are never trained on: choices and accuracy models use them, and the
#: test images are for reporting alone.
HELD_OUT = 5000

_MAX_IMAGES = 2_000_000


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels uint8 ``[N, height, width, 3]`` and int64 labels ``[N]``."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Images:
        return Images(self.pixels[:count], self.labels[:count])


def is_archive(data: Path) -> bool:
    """Whether ``data`` holds CIFAR-10 as two archives."""
    return (data / "cifar10_train_jpeg.npz").is_file()


def load_images(data: Path, split: Split, space: Space | None = None) -> Images:
    """A split of the data set at ``data``.

    ``data`` is either a folder with ``cifar10_train_jpeg.npz`` and ``cifar10_test_jpeg.npz``
    (arrays ``blob`` of concatenated JPEGs, ``offsets``, ``labels``), or a folder
    ``<train|test>/<class>/<image>`` or ``<class>/<image>``, of whose training images 15% of every
    class are held out, and without a ``test`` another 15% are the test images. Images of folders
    are resized to the largest resolution of ``space``, whose number of classes they must have.

    Raises:
        MissingMaterial: nothing of that form is there, or a class without an image.
        UsageError: not as many classes as the space has, or too few images of one.
        FileFormatError: an image cannot be read (named).
    """
    part = "test" if split == "test" else "train"
    archive = data / f"cifar10_{part}_jpeg.npz"
    if archive.is_file():
        images = _load_archive(archive)
        if part == "test":
            return images
        if len(images) <= HELD_OUT:
            raise MissingMaterial(f"needs more than {HELD_OUT} training images", where=data)
        cut = len(images) - HELD_OUT
        part_of = slice(0, cut) if split == "train" else slice(cut, None)
        return Images(images.pixels[part_of], images.labels[part_of])
    if not data.is_dir() or space is None or not any(p.is_dir() for p in data.iterdir()):
        raise MissingMaterial(
            "no data set here",
            where=data,
            hint=f"a folder with {archive.name}, with <class>/<image>, or with "
            "<train|test>/<class>/<image>",
        )
    return _load_folder(data, split, space)


def _load_folder(data: Path, split: Split, space: Space) -> Images:
    chosen = folder_splits(data, space)[split]
    # in no order that the labels could be told from
    random.Random("order").shuffle(chosen)
    pixels = read_pictures([path for path, _ in chosen], space.resolutions[-1])
    return _to_images(pixels, np.array([label for _, label in chosen], dtype=np.int64))


def _load_archive(path: Path) -> Images:
    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cached = cache_dir() / "datasets" / f"{path.stem}-{key}.npz"
    if cached.is_file():
        with np.load(cached, allow_pickle=False) as file:
            return _to_images(file["pixels"], file["labels"])
    pixels, labels = _decode_archive(path)
    with atomic_path(cached) as temporary, temporary.open("wb") as out:
        np.savez(out, pixels=pixels, labels=labels)
    return _to_images(pixels, labels)


def _decode_archive(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            blob, offsets, labels = file["blob"].tobytes(), file["offsets"], file["labels"]
        if (
            len(offsets) != len(labels) + 1
            or len(labels) > _MAX_IMAGES
            or (np.diff(offsets) <= 0).any()
        ):
            raise ValueError("offsets and labels do not fit together")
        pixels = [
            np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB"))
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]
        return np.stack(pixels), labels.astype(np.int64)
    except UNREADABLE as error:
        raise FileFormatError(f"not an image archive: {error}", where=path) from error


def _to_images(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Images:
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


@lru_cache(maxsize=64)
def _resize_matrix(size: int, resolution: int) -> Tensor:
    """Bilinear interpolation (antialiased when smaller) as a matrix ``[resolution, size]``."""
    eye = torch.eye(size).view(1, 1, size, size)
    resized = F.interpolate(
        eye, (resolution, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.view(resolution, size)


def preprocess(pixels: Tensor, resolution: int, space: Space) -> Tensor:
    """Network input ``[N, resolution, resolution, 3]`` float32 of pixels ``[N, h, w, 3]``.

    Pixels are 0 to 255; resized bilinearly with antialiasing, normalised as the space declares.
    uint8 pixels are whole numbers after resizing too, as a camera's pipeline gives them: smooth
    fractions of an enlarged small image would be what an int8 input cannot hold. Float pixels stay
    differentiable.
    """
    mean, std = torch.tensor(space.preprocess.mean), torch.tensor(space.preprocess.std)
    x = pixels.float()
    n, height, width, _ = x.shape
    if (height, width) != (resolution, resolution):
        vertical, horizontal = _resize_matrix(height, resolution), _resize_matrix(width, resolution)
        x = torch.matmul(vertical, x.reshape(n, height, width * 3))
        x = torch.matmul(horizontal, x.reshape(n * resolution, width, 3))
        x = x.view(n, resolution, resolution, 3)
        if pixels.dtype == torch.uint8:
            x = x.round_()
    return (x - mean) / std


def augment(pixels: Tensor, generator: torch.Generator, shift: int = 4) -> Tensor:
    """Random flips, and shifts by up to ``shift`` pixels with a mirrored border; uint8 stays."""
    n, height, width, _ = pixels.shape
    flips = torch.rand(n, 1, generator=generator) < 0.5
    dy = torch.randint(-shift, shift + 1, (n, 1), generator=generator)
    dx = torch.randint(-shift, shift + 1, (n, 1), generator=generator)
    rows = _mirror(torch.arange(height) + dy, height)
    columns = _mirror(torch.arange(width) + dx, width)
    columns = torch.where(flips, width - 1 - columns, columns)
    return pixels[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _mirror(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
