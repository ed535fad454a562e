"""An official supernet as a bundle of the user's own, that the other verbs find by its space."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeofa.elastic.checkpoint import save_imported
from edgeofa.elastic.official import OFFICIAL, RESNET, import_official, to_official
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import UsageError
from edgeofa.jsonio import dumps
from edgeofa.paths import own_supernets_dir, write_atomic
from edgeofa.spaces import Space

if TYPE_CHECKING:
    from edgeofa.accuracy.mlp import MlpAccuracy

__all__ = ["CALIBRATION_IMAGES", "ImportedSupernet", "import_bundle"]

#: pictures that are kept for recalibration; 256 at 224 px are 38 MB before compression
CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class ImportedSupernet:
    """What was imported, and where it lies. ``space`` is None for the ResNet50, which has none."""

    folder: Path
    net: str
    space: str | None
    entries: int
    parameters: int
    calibration_images: int
    predictor: bool


def import_bundle(
    file: Path,
    *,
    net: str | None = None,
    predictor: Path | None = None,
    calibration: Path | None = None,
    source: str = "",
    folder: Path | None = None,
    seed: int = 0,
) -> ImportedSupernet:
    """Read an official checkpoint and write it as a bundle; nothing is written before all is read.

    Args:
        net: official net; by default the one whose entries the file fits best.
        predictor: what ``edgeofa import predictor`` wrote for the net's space, or the official
            file itself.
        calibration: a folder of ordinary pictures, for recalibrating batch norm.
        folder: where supernets are kept, by default the user's own; the bundle is a folder in it.

    Raises:
        MissingMaterial: a file is not there.
        FileFormatError: an entry is missing, foreign or misshapen (named).
        UsageError: pictures or a predictor for a net that has no space.
    """
    supernet = import_official(file, net)
    space = supernet.space if isinstance(supernet, Supernet) else None
    name = RESNET if space is None else space.name
    if space is None and (predictor or calibration):
        raise UsageError(
            f"{name} has no space that a predictor or calibration images could be of",
            hint="leave --predictor and --calibration away",
        )
    files: dict[str, bytes] = {}
    images = 0
    if space is not None and calibration is not None:
        files["calibration.npz"], images = _calibration(calibration, space, seed)
    model = None if space is None or predictor is None else _predictor(predictor, space)
    state = to_official(supernet)
    parameters = sum(p.numel() for p in supernet.parameters())
    card: dict[str, Any] = {
        "schema_version": 1,
        "space": name,
        "imported": {
            "net": OFFICIAL[name],
            "file": file.name,
            "sha256": _sha256(file),
            "source": source[:400],
        },
        "parameters": parameters,
        "calibration": {"images": images},
    }
    bundle = (folder or own_supernets_dir()) / name
    bundle.mkdir(parents=True, exist_ok=True)
    # an older import's parts must not be taken for this one's
    for old in ("card.json", "calibration.npz", "accuracy.safetensors", "accuracy.json"):
        (bundle / old).unlink(missing_ok=True)
    save_imported(supernet, bundle / "weights.safetensors")
    for part, content in files.items():
        write_atomic(bundle / part, content)
    if model is not None:
        from edgeofa.accuracy.mlp import save_predictor

        save_predictor(model, bundle / "accuracy.safetensors")
    # last, because a bundle without its card is not read
    write_atomic(bundle / "card.json", dumps(card) + "\n")
    return ImportedSupernet(
        folder=bundle,
        net=OFFICIAL[name],
        space=None if space is None else space.name,
        entries=len(state),
        parameters=parameters,
        calibration_images=images,
        predictor=model is not None,
    )


def _calibration(pictures: Path, space: Space, seed: int) -> tuple[bytes, int]:
    from edgeofa.training.labelled import load_pictures

    images = load_pictures(pictures, space.resolutions[-1], CALIBRATION_IMAGES, seed)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images)
    return buffer.getvalue(), len(images)


def _predictor(path: Path, space: Space) -> MlpAccuracy:
    from edgeofa.accuracy.mlp import import_ofa_predictor, load_predictor

    if path.suffix == ".safetensors":
        return load_predictor(path, space)
    return import_ofa_predictor(path, space)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
