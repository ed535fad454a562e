"""Trained supernets: weights, calibration images, accuracy model, model card.

A bundle is a folder ``<space>/`` with ``weights.safetensors`` and ``card.json``, among the user's
own supernets or the shipped ones. A shipped one has ``calibration.npz``, ``accuracy.json`` and
``card.md`` too. An imported one may lack calibration images, and its accuracy model, if it has one,
is a network in ``accuracy.safetensors``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.base import AccuracyModel, MacsProxy
from edgeofa.accuracy.load import load_model
from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.npyfile import UNREADABLE
from edgeofa.paths import data_dir, own_supernets_dir
from edgeofa.spaces import Space

if TYPE_CHECKING:
    from edgeofa.elastic.supernet import Supernet

__all__ = ["Bundle", "bundle_dir", "load_bundle", "load_calibration"]

_MAX_BYTES = 64 << 20
_MAX_IMAGES = 10_000


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained supernet with all that a deployment needs.

    ``calibration``: uint8 ``[N, h, w, 3]``; None where an import brought none. ``accuracy`` claims
    none where an import brought no predictor.
    """

    space: Space
    folder: Path
    calibration: NDArray[np.uint8] | None
    accuracy: AccuracyModel
    card: dict[str, Any]

    @property
    def weights_path(self) -> Path:
        return self.folder / "weights.safetensors"

    def supernet(self) -> Supernet:
        """The trained supernet in evaluation mode; loads torch."""
        from edgeofa.elastic.checkpoint import load_supernet

        return load_supernet(self.weights_path, self.space)


def bundle_dir(space_name: str) -> Path:
    """The folder of a space's bundle: the user's own where there is one, else the shipped one's."""
    own = own_supernets_dir() / space_name
    return own if own.is_dir() else data_dir() / "supernets" / space_name


def load_bundle(space: Space) -> Bundle:
    """The bundle of a space; its weights are read by :meth:`Bundle.supernet`."""
    folder = bundle_dir(space.name)
    if not (folder / "weights.safetensors").is_file():
        _ = space.staged  # of another shape there never is one, and it says so
        raise MissingMaterial(
            f"no trained supernet for space {space.name}",
            where=folder,
            hint="train one (edgeofa train run), import an official one (edgeofa import supernet), "
            "or deploy for latency alone (--random-weights)",
        )
    card = _load_card(folder / "card.json")
    imported = "imported" in card
    images = folder / "calibration.npz"
    return Bundle(
        space=space,
        folder=folder,
        calibration=None if imported and not images.exists() else load_calibration(images),
        accuracy=_load_accuracy(folder, space, imported=imported),
        card=card,
    )


def _load_accuracy(folder: Path, space: Space, *, imported: bool) -> AccuracyModel:
    network = folder / "accuracy.safetensors"
    file = network if network.is_file() else folder / "accuracy.json"
    return MacsProxy(space) if imported and not file.is_file() else load_model(file, space)


def _bounded(path: Path) -> Path:
    if not path.is_file():
        raise MissingMaterial("the bundle is incomplete", where=path)
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError("a file of a bundle is at most 64 MiB", where=path)
    return path


def load_calibration(path: Path) -> NDArray[np.uint8]:
    """Calibration images, uint8 ``[N, h, w, 3]``."""
    try:
        with np.load(_bounded(path), allow_pickle=False) as file:
            images = file["images"]
    except UNREADABLE as error:
        raise FileFormatError(f"not calibration images: {error}", where=path) from error
    fits = images.ndim == 4 and images.shape[3] == 3 and 0 < len(images) <= _MAX_IMAGES
    if images.dtype != np.uint8 or not fits:
        raise FileFormatError(f"calibration images {images.dtype} {images.shape}", where=path)
    return np.ascontiguousarray(images, dtype=np.uint8)


def _load_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(_bounded(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"not a model card: {error}", where=path) from error
    if not isinstance(card, dict):
        raise FileFormatError("not a model card", where=path)
    return card
