"""What keeps finished work until all of it is done: an SQLite file that one process fills."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock

from edgeofa.errors import EdgeofaError, FileFormatError, UsageError


class JournalFile(ABC):
    """The file, its lock, and its errors in the words of the work; a context manager.

    Raises ``UsageError`` where another process fills the same file, ``FileFormatError`` for a
    corrupt or foreign one, ``EdgeofaError`` where the disk refuses.
    """

    #: what the file is called, who else fills it, what is in it, and what deleting it costs
    called: str
    busy: str
    finished: str
    again: str

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path.with_suffix(".lock"))
        self._database: sqlite3.Connection | None = None

    @abstractmethod
    def _prepare(self) -> None:
        """Make the tables, or check those that are there; the connection is open."""

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                self.busy,
                where=self.path,
                hint="wait until it ends, or give this run its own cache with EDGEOFA_CACHE",
            ) from None
        try:
            with self._explained():
                self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _open(self) -> None:
        self._database = sqlite3.connect(self.path, isolation_level=None)
        self._prepare()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the journal is not open")
        return self._database

    def _insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """All rows or none; a row that is there already is a bug."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(statement, rows)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _refusal(self, what: str) -> FileFormatError:
        return FileFormatError(
            what,
            where=self.path,
            hint=f"delete this file (and its -wal and -shm); {self.again}",
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:  # the same work done twice: a bug, not the file's fault
            raise
        except sqlite3.OperationalError as error:  # full disk, read-only folder, locked by another
            raise EdgeofaError(
                f"{self.called} cannot be used: {error}",
                where=self.path,
                hint=f"mend that and run the same command again: finished {self.finished} are kept",
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._refusal(f"corrupt: {error}") from error
