"""Trials that were made, so that an interrupted tuning repeats none of them.

One SQLite file in the user's cache for each machine, device and state of the schedules: what a
configuration costs belongs to those three. A lock lets one tuning at a time use it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from edgeofa.backends.tvm.templates import Config
from edgeofa.errors import EdgeofaError, FileFormatError, UsageError
from edgeofa.tuning.search import Frozen, freeze

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    kernel TEXT NOT NULL, config TEXT NOT NULL, ns REAL, high_ns REAL NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY (kernel, config)
) STRICT
"""


@dataclass(frozen=True)
class Trial:
    """What a configuration of a kernel costs: its time, and what it is at most (the same where
    times are modelled). None and a reason where it is out."""

    kernel: str
    config: Config
    ns: float | None
    high_ns: float = 0.0
    reason: str = ""


class TuningJournal:
    """Trials by kernel; a context manager. ``subject`` says what they belong to.

    Raises ``UsageError`` where another process tunes with the same journal, ``FileFormatError``
    for a corrupt file, ``EdgeofaError`` where the disk refuses.
    """

    def __init__(self, folder: Path, machine: str, subject: Mapping[str, str]) -> None:
        text = json.dumps(dict(subject), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = folder / f"{machine}-{digest}.sqlite"
        self._lock = filelock.FileLock(self.path.with_suffix(".lock"))
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> TuningJournal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                "another edgeofa tune works for this device",
                where=self.path,
                hint="wait until it ends, or give this run its own cache with EDGEOFA_CACHE",
            ) from None
        try:
            with self._explained():
                self._database = sqlite3.connect(self.path, isolation_level=None)
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute(_SCHEMA)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

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

    def trials(self, kernel: str) -> dict[Frozen, Trial]:
        """What is known of a kernel, in the order of the trials."""
        with self._explained():
            rows = self._db.execute(
                "SELECT config, ns, high_ns, reason FROM trials WHERE kernel = ? ORDER BY rowid",
                (kernel,),
            ).fetchall()
        found = {}
        for text, ns, high_ns, reason in rows:
            try:
                config = dict(json.loads(text))
            except (ValueError, TypeError) as error:
                raise self._refusal(f"corrupt record: {error}") from error
            found[freeze(config)] = Trial(kernel, config, ns, high_ns, reason)
        return found

    def add(self, trials: Sequence[Trial]) -> None:
        """Store trials, all or none."""
        rows = [
            (t.kernel, json.dumps(sorted(t.config.items())), t.ns, t.high_ns, t.reason)
            for t in trials
        ]
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT INTO trials VALUES (?, ?, ?, ?, ?)", rows)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def forget(self, kernel: str) -> None:
        """Everything about a kernel, so that it is tried again."""
        with self._explained():
            self._db.execute("DELETE FROM trials WHERE kernel = ?", (kernel,))

    def _refusal(self, what: str) -> FileFormatError:
        return FileFormatError(
            what, where=self.path, hint="delete this file; its trials are then made again"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:  # a trial made twice: a bug, not the file's fault
            raise
        except sqlite3.OperationalError as error:
            raise EdgeofaError(
                f"the journal of trials cannot be used: {error}",
                where=self.path,
                hint="mend that and run the same command again: finished trials are kept",
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._refusal(f"corrupt: {error}") from error
