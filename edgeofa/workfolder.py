"""Private folders for a run's temporary files, which not even ``kill -9`` leaves behind for long.

A folder belongs to a lock that the operating system releases when its process ends, however it
ends; whoever makes the next folder removes those whose lock is free.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edgeofa.paths import cache_dir


@contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """A new folder in the cache, its name beginning with ``name``; removed when the block ends."""
    root = cache_dir() / "work"
    root.mkdir(exist_ok=True)
    with FileLock(root / ".lock"):
        _sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
        lock = FileLock(_lock_path(folder))
        lock.acquire()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_path(folder).unlink(missing_ok=True)
        lock.release()


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(root: Path) -> None:
    """Remove folders of processes that are gone; nobody makes one meanwhile."""
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        try:
            with FileLock(_lock_path(folder), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                _lock_path(folder).unlink(missing_ok=True)
        except Timeout:
            continue
