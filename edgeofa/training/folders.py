"""Pictures in folders: which there are, what is wrong with them, their pixels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Space

__all__ = ["Split", "all_pictures", "class_pictures", "folder_splits", "read_pictures"]

Split = Literal["train", "held_out", "test"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_FORMS = ", ".join(sorted(_SUFFIXES))
_MAX_FILES = 2_000_000
#: a smaller picture shows nothing, and a larger one is no photograph
_MIN_SIDE, _MAX_SIDE = 8, 20_000
#: of every class, for choosing (held out) and for reporting (test)
_SHARE = 0.15


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def all_pictures(folder: Path) -> list[Path]:
    """Every picture anywhere below a folder, in a stable order; at least one."""
    if not folder.is_dir():
        raise MissingMaterial("no such folder of pictures", where=folder)
    files = sorted(islice((p for p in folder.rglob("*") if _is_picture(p)), _MAX_FILES))
    if not files:
        raise MissingMaterial("no picture here", where=folder, hint=f"files {_FORMS}")
    return files


def class_pictures(folder: Path, space: Space) -> dict[str, list[Path]]:
    """Pictures by class, one sub-folder a class, classes and pictures in alphabetical order.

    Raises:
        MissingMaterial: no such folder, or a class without a picture (named).
        UsageError: one class, or not as many as the space has.
    """
    if not folder.is_dir():
        raise MissingMaterial("no such folder of pictures", where=folder)
    names = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    hint = "one sub-folder a class, as many as the space has classes"
    if len(names) != space.classes:
        raise UsageError(
            f"{len(names)} classes (sub-folders) here, the space {space.name} has {space.classes}",
            where=folder,
            hint=hint if len(names) != 1 else f"{hint}; one class is nothing to learn",
        )
    found = {}
    for name in names:
        found[name.name] = sorted(p for p in name.iterdir() if _is_picture(p))
        if not found[name.name]:
            raise MissingMaterial("a class without a picture", where=name, hint=f"files {_FORMS}")
    if sum(map(len, found.values())) > _MAX_FILES:
        raise UsageError(f"more than {_MAX_FILES} pictures", where=folder)
    return found


def folder_splits(data: Path, space: Space) -> dict[Split, list[tuple[Path, int]]]:
    """Pictures with labels, in three parts that depend on the names alone.

    Of ``<data>/<class>/<picture>`` 15% of every class (one picture at least) are held out, for
    choosing, and as many are the test pictures, for reporting. Of
    ``<data>/<train|test>/<class>/<picture>`` the test pictures are the latter, the held-out ones
    are of the former.

    Raises:
        MissingMaterial: no such folder, or a class without a picture (named).
        UsageError: not as many classes as the space has, other ones in ``test``, or a class with
            too few pictures (named).
    """
    if not ((data / "train").is_dir() and (data / "test").is_dir()):
        return _split(class_pictures(data, space), ("train", "held_out", "test"))
    train, test = class_pictures(data / "train", space), class_pictures(data / "test", space)
    if list(train) != list(test):
        raise UsageError("train and test have classes of different names", where=data)
    labelled = [(p, label) for label, files in enumerate(test.values()) for p in files]
    return _split(train, ("train", "held_out")) | {"test": labelled}


def _split(
    classes: dict[str, list[Path]], names: tuple[Split, ...]
) -> dict[Split, list[tuple[Path, int]]]:
    """A share of every class for each name but the first, which gets the rest."""
    parts: dict[Split, list[tuple[Path, int]]] = {name: [] for name in names}
    for label, (class_name, files) in enumerate(classes.items()):
        count = max(1, round(_SHARE * len(files)))
        rest = len(files) - count * (len(names) - 1)
        if rest < 1:
            raise UsageError(
                f"{len(files)} pictures of class {class_name}, at least {len(names)} are needed",
                where=files[0].parent,
            )
        order = list(files)
        random.Random(f"split {class_name}").shuffle(order)
        ends = [rest + count * i for i in range(len(names))]
        for name, start, end in zip(names, [0, *ends], ends, strict=False):
            parts[name] += [(p, label) for p in order[start:end]]
    return parts


def read_pictures(files: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Pixels ``[N, size, size, 3]``, every picture resized to a square.

    Raises:
        FileFormatError: a picture that cannot be read, or of an impossible size (named).
    """
    pixels = np.empty((len(files), size, size, 3), dtype=np.uint8)
    for i, path in enumerate(files):
        try:
            with Image.open(path) as image:
                if not _MIN_SIDE <= min(image.size) <= max(image.size) <= _MAX_SIDE:
                    width, height = image.size
                    raise FileFormatError(
                        f"a picture of {width}x{height} px",
                        where=path,
                        hint=f"sides from {_MIN_SIDE} to {_MAX_SIDE} px",
                    )
                resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise FileFormatError(f"not a picture: {error}", where=path) from error
        pixels[i] = np.asarray(resized)
    return pixels
