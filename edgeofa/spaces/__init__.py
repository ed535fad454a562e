"""Declared search spaces: load by name, or from a user's TOML file."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces.space import Block, Layer, Space, Subnet

__all__ = ["Block", "Layer", "Space", "Subnet", "load_space", "space_names"]

_MAX_FILE_BYTES = 1 << 20


def space_names() -> list[str]:
    """Names of the shipped spaces."""
    folder = resources.files("edgeofa.spaces")
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


@lru_cache(maxsize=32)
def load_space(name: str) -> Space:
    """A shipped space by name, or a space file by path (anything that ends in ``.toml``)."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UsageError("no such space file", where=path)
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise FileFormatError("a space file is at most 1 MiB", where=path)
        text, where = path.read_text(encoding="utf-8", errors="strict"), str(path)
    elif name in space_names():
        text = (resources.files("edgeofa.spaces") / f"{name}.toml").read_text(encoding="utf-8")
        where = f"space {name}"
    else:
        raise UsageError(
            f"unknown space {name!r}", hint=f"one of {', '.join(space_names())}, or a .toml file"
        )
    try:
        return Space.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise FileFormatError(f"not a valid space: {error}", where=where) from error
