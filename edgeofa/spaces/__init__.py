"""Declared search spaces: load by name, or from a user's TOML file."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

from edgeofa.datafile import check_data, parse_toml, read_bytes
from edgeofa.errors import UsageError
from edgeofa.spaces.space import Block, Layer, Space, SpaceV1, Subnet

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
        return _read(read_bytes(path, "space", _MAX_FILE_BYTES), path).read_from(name)
    if name not in space_names():
        raise UsageError(
            f"unknown space {name!r}", hint=f"one of {', '.join(space_names())}, or a .toml file"
        )
    content = (resources.files("edgeofa.spaces") / f"{name}.toml").read_bytes()
    return _read(content, f"space {name}")


def _read(content: bytes, where: str | Path) -> Space:
    data = parse_toml(content, where)
    if data.get("schema_version") == 1:
        # checked as what it is, so that mistakes are named in its own words
        old = check_data(data, SpaceV1, where, content.decode())
        return check_data(old.upgraded(), Space, where)
    return check_data(data, Space, where, content.decode())
