"""An accuracy model from a file or a folder, whatever kind it is."""

from __future__ import annotations

import json
from pathlib import Path

from edgeofa.accuracy.base import AccuracyModel
from edgeofa.accuracy.mlp import load_predictor
from edgeofa.accuracy.model import load_accuracy
from edgeofa.accuracy.pairwise import load_pairwise
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces.space import Space

_MAX_BYTES = 64 << 20


def load_model(path: Path, space: Space) -> AccuracyModel:
    """The model of ``path``: a fitted or a pairwise one (``.json``), or a network
    (``.safetensors``); of a folder its only such file, or its ``accuracy.json``.

    Raises:
        MissingMaterial: there is none.
        UsageError: another kind of file, or a model of another space.
        FileFormatError: a corrupt file.
    """
    file = _in_folder(path) if path.is_dir() else path
    if not file.is_file():
        raise MissingMaterial("no such accuracy model", where=file)
    if file.suffix == ".safetensors":
        return load_predictor(file, space)
    if file.suffix == ".json":
        pairwise = _kind(file) == "pairwise"
        return load_pairwise(file, space) if pairwise else load_accuracy(file, space)
    hint = "a .json or .safetensors file"
    if file.suffix in (".pth", ".pt"):
        hint = f"edgeofa import predictor {file} --out predictor.safetensors"
    raise UsageError("not an accuracy model's file", where=file, hint=hint)


def _in_folder(folder: Path) -> Path:
    preferred = folder / "accuracy.json"
    if preferred.is_file():
        return preferred
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    if len(files) != 1:
        raise MissingMaterial(
            f"{len(files)} files in this folder could be an accuracy model",
            where=folder,
            hint="name the file itself",
        )
    return files[0]


def _kind(file: Path) -> object:
    if file.stat().st_size > _MAX_BYTES:
        raise FileFormatError(f"larger than {_MAX_BYTES} bytes, not an accuracy model", where=file)
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError("not JSON, so not an accuracy model", where=file) from error
    return content.get("kind") if isinstance(content, dict) else None
