"""Supernet checkpoints: a safetensors file that is checked entry by entry before use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgeofa.elastic.resnet import ResNetSupernet
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.paths import write_atomic
from edgeofa.spaces import Space, load_space, space_names

__all__ = ["load_resnet", "load_supernet", "save_imported", "save_supernet"]

_SCHEMA = 1
#: one entry alone: the order of several in the file would differ from run to run
_METADATA = "edgeofa"
_MAX_BYTES = 1 << 30


def _entries(supernet: nn.Module) -> dict[str, Tensor]:
    state = supernet.state_dict()
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def save_supernet(supernet: Supernet, path: Path) -> None:
    """Writes all weights; weights in float16, batch-norm entries in float32 (variances may be
    below what float16 holds)."""
    tensors = {
        name: (value.float() if ".norm." in name else value.half()).contiguous()
        for name, value in _entries(supernet).items()
    }
    _write(tensors, supernet.space.name, path)


def save_imported(supernet: Supernet | ResNetSupernet, path: Path) -> None:
    """Writes all weights as they are: an imported supernet computes what its source does."""
    name = supernet.space.name if isinstance(supernet, Supernet) else supernet.name
    _write({k: v.contiguous() for k, v in _entries(supernet).items()}, name, path)


def _write(tensors: dict[str, Tensor], name: str, path: Path) -> None:
    header = json.dumps({"schema_version": _SCHEMA, "space": name})
    write_atomic(path, save(tensors, {_METADATA: header}))


def load_supernet(path: Path, space: Space | None = None) -> Supernet:
    """The supernet of a checkpoint, in evaluation mode.

    Args:
        space: the space that it must be of; by default the shipped one of its name.

    Errors: ``MissingMaterial`` where there is no file; ``FileFormatError`` that names the first
    missing, foreign or misshapen entry, or another space.
    """
    with _opened(path) as file:
        supernet = Supernet(_space(file, path, space))
        _fill(supernet, file, path)
    supernet.eval()
    return supernet.requires_grad_(False)


def load_resnet(path: Path) -> ResNetSupernet:
    """The same for an imported ResNet50."""
    with _opened(path) as file:
        supernet = ResNetSupernet()
        name = _name(file, path)
        if name != supernet.name:
            raise FileFormatError(f"a checkpoint of {name!r}, not of {supernet.name}", where=path)
        _fill(supernet, file, path)
    supernet.eval()
    return supernet.requires_grad_(False)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise MissingMaterial("no such checkpoint", where=path)
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError("a checkpoint is at most 1 GiB", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise FileFormatError(f"not a safetensors file: {error}", where=path) from error


def _fill(supernet: nn.Module, file: Any, path: Path) -> None:
    expected = _entries(supernet)
    _check_names(set(file.keys()), set(expected), path)
    for name, target in expected.items():
        shape = file.get_slice(name).get_shape()
        if list(shape) != list(target.shape):
            raise FileFormatError(
                f"entry {name} has shape {list(shape)}, not {list(target.shape)}", where=path
            )
        value = file.get_tensor(name)
        if not torch.isfinite(value).all():
            raise FileFormatError(f"entry {name} is not finite", where=path)
        target.copy_(value)


def _name(file: Any, path: Path) -> str:
    try:
        content = json.loads((file.metadata() or {}).get(_METADATA, ""))
        version, name = content["schema_version"], content["space"]
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError("not a checkpoint of edgeofa", where=path) from error
    if version != _SCHEMA:
        raise FileFormatError(f"schema version {version!r}, not {_SCHEMA}", where=path)
    return str(name)


def _space(file: Any, path: Path, wanted: Space | None) -> Space:
    name = _name(file, path)
    if wanted is not None:
        if name != wanted.name:
            raise FileFormatError(f"weights of space {name}, not {wanted.name}", where=path)
        return wanted
    if name not in space_names():
        raise FileFormatError(f"a checkpoint of an unknown space {name!r}", where=path)
    return load_space(name)


def _check_names(found: set[str], expected: set[str], path: Path) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing:
        raise FileFormatError(f"entry {missing[0]} is missing ({len(missing)} in all)", where=path)
    if extra:
        raise FileFormatError(f"entry {extra[0]} is foreign ({len(extra)} in all)", where=path)
