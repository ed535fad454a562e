"""Supernet checkpoints: a safetensors file that is checked entry by entry before use."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.paths import write_atomic
from edgeofa.spaces import Space, load_space, space_names

__all__ = ["load_supernet", "save_supernet"]

_SCHEMA = 1
#: one entry alone: the order of several in the file would differ from run to run
_METADATA = "edgeofa"
_MAX_BYTES = 1 << 30


def _entries(supernet: Supernet) -> dict[str, Tensor]:
    state = supernet.state_dict()
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def save_supernet(supernet: Supernet, path: Path) -> None:
    """Writes all weights; weights in float16, batch-norm entries in float32 (variances may be
    below what float16 holds)."""
    tensors = {
        name: (value.float() if ".norm." in name else value.half()).contiguous()
        for name, value in _entries(supernet).items()
    }
    header = json.dumps({"schema_version": _SCHEMA, "space": supernet.space.name})
    write_atomic(path, save(tensors, {_METADATA: header}))


def load_supernet(path: Path) -> Supernet:
    """The supernet of a checkpoint, in evaluation mode.

    Errors: ``MissingMaterial`` where there is no file; ``FileFormatError`` that names the first
    missing, foreign or misshapen entry.
    """
    if not path.is_file():
        raise MissingMaterial("no such checkpoint", where=path)
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError("a checkpoint is at most 1 GiB", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            supernet = Supernet(_space((file.metadata() or {}).get(_METADATA, ""), path))
            expected = _entries(supernet)
            names = set(file.keys())
            _check_names(names, set(expected), path)
            for name, target in expected.items():
                shape = file.get_slice(name).get_shape()
                if list(shape) != list(target.shape):
                    raise FileFormatError(
                        f"entry {name} has shape {list(shape)}, not {list(target.shape)}",
                        where=path,
                    )
                value = file.get_tensor(name)
                if not torch.isfinite(value).all():
                    raise FileFormatError(f"entry {name} is not finite", where=path)
                target.copy_(value)
    except SafetensorError as error:
        raise FileFormatError(f"not a safetensors file: {error}", where=path) from error
    supernet.eval()
    return supernet.requires_grad_(False)


def _space(header: str, path: Path) -> Space:
    try:
        content = json.loads(header)
        version, name = content["schema_version"], content["space"]
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError("not a checkpoint of edgeofa", where=path) from error
    if version != _SCHEMA:
        raise FileFormatError(f"schema version {version!r}, not {_SCHEMA}", where=path)
    if name not in space_names():
        raise FileFormatError(f"a checkpoint of an unknown space {name!r}", where=path)
    return load_space(name)


def _check_names(found: set[str], expected: set[str], path: Path) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing:
        raise FileFormatError(f"entry {missing[0]} is missing ({len(missing)} in all)", where=path)
    if extra:
        raise FileFormatError(f"entry {extra[0]} is foreign ({len(extra)} in all)", where=path)
