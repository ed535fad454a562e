"""Where edgeofa finds what it ships, and where it keeps what it makes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import platformdirs

from edgeofa.errors import SetupError


@cache
def data_dir() -> Path:
    """Root of ``targets/``, ``latency_tables/``, ``supernets/``, ``firmware_scripts/``.

    In a wheel they lie inside the package, in a checkout beside it.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_data", package.parent):
        if (root / "targets").is_dir():
            return root
    raise SetupError(
        "the folders targets/ and latency_tables/ are missing",
        where=package,
        hint="install edgeofa again",
    )


def cache_dir() -> Path:
    """The user's cache for edgeofa (``EDGEOFA_CACHE`` overrides); created when missing."""
    override = os.environ.get("EDGEOFA_CACHE")
    path = Path(override) if override else platformdirs.user_cache_path("edgeofa")
    path.mkdir(parents=True, exist_ok=True)
    return path


def config_dir() -> Path:
    """The user's settings for edgeofa (``EDGEOFA_CONFIG`` overrides); not created."""
    override = os.environ.get("EDGEOFA_CONFIG")
    return Path(override) if override else platformdirs.user_config_path("edgeofa")


def table_dirs() -> tuple[Path, ...]:
    """Folders that hold latency tables: the user's own first, then the published ones.

    The user's lie in ``EDGEOFA_TABLES``, or else in the platform's data directory.
    """
    override = os.environ.get("EDGEOFA_TABLES")
    own = Path(override) if override else platformdirs.user_data_path("edgeofa") / "latency_tables"
    return own, data_dir() / "latency_tables"


def tuning_dirs() -> tuple[Path, ...]:
    """Folders that hold records of tuning: the user's own first, then the shipped ones.

    The user's lie in ``EDGEOFA_TUNING``, or else in the platform's data directory.
    """
    override = os.environ.get("EDGEOFA_TUNING")
    own = Path(override) if override else platformdirs.user_data_path("edgeofa") / "tuning"
    return own, data_dir() / "targets" / "tuning"


def own_supernets_dir() -> Path:
    """The user's own supernets: ``EDGEOFA_SUPERNETS``, or else in the platform's data directory."""
    override = os.environ.get("EDGEOFA_SUPERNETS")
    return Path(override) if override else platformdirs.user_data_path("edgeofa") / "supernets"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends without an error.

    The content reaches the disk before the rename, so that a crash leaves either the old file or
    the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp is private to the user; a published file follows the umask instead
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file, or nothing."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
