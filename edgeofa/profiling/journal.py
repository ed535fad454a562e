"""The journal of a profiling run: finished work survives ``kill -9``.

One SQLite file (write-ahead log) in the user's cache for each subject: everything that can
change a number is in the subject, so a row is reused only where measuring again would be
repeating. Rows are added and never replaced. A lock file lets one process at a time fill a
journal; the lock is the operating system's and ends with the process, however that ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import filelock
from pydantic import TypeAdapter, ValidationError

from edgeofa.errors import EdgeofaError, FileFormatError, UsageError
from edgeofa.graph.ir import DType
from edgeofa.tables.table import Row, Status

#: "EOFA", so that another program's database is known as foreign
_APPLICATION_ID = 0x454F4641
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE subject (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sessions (id INTEGER PRIMARY KEY, started TEXT NOT NULL) STRICT;
CREATE TABLE blocks (
    key TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, record TEXT NOT NULL
) STRICT;
CREATE TABLE subnets (
    key TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, record TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Subject:
    """What the numbers of one journal are about."""

    target: str
    target_digest: str
    space: str
    space_digest: str
    backend: str
    backend_version: str
    precision: DType
    threads: int
    runtime_digest: str
    protocol_version: int
    edgeofa_version: str
    seed: int

    @property
    def digest(self) -> str:
        text = json.dumps(dataclasses.asdict(self))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class WholeSubnet:
    """A whole subnet's latency, for the additivity fit. 0 where it failed."""

    subnet: str
    latency_ms: float
    status: Status


_T = TypeVar("_T")
_ROW = TypeAdapter(Row)
_WHOLE = TypeAdapter(WholeSubnet)


class Journal:
    """Finished blocks and subnets of one subject. Use as a context manager.

    ``fresh`` forgets what an earlier run finished, so that everything is measured again.

    Raises ``UsageError`` where another process fills the same journal, ``FileFormatError`` for a
    corrupt or foreign file, ``EdgeofaError`` where the disk refuses.
    """

    def __init__(self, folder: Path, subject: Subject, *, fresh: bool = False) -> None:
        s = subject
        name = f"{s.target}-{s.space}-{s.backend}-{s.precision}-{s.threads}t-{s.digest}"
        self.path = folder / f"{name}.sqlite"
        self._subject = subject
        self._fresh = fresh
        self._lock = filelock.FileLock(self.path.with_suffix(".lock"))
        self._session = 0
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                "another edgeofa profile is filling this table",
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

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    def _open(self) -> None:
        if self._fresh:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._database = sqlite3.connect(self.path, isolation_level=None)
        run = self._database.execute
        marks = (self._one("PRAGMA application_id"), self._one("PRAGMA user_version"))
        # an empty one may also be what a kill left between making the file and its first commit
        is_empty = marks == (0, 0) and self._one("SELECT count(*) FROM sqlite_master") == 0
        if not is_empty:
            self._check(marks)
        run("PRAGMA journal_mode = WAL")
        # a commit must survive the machine's end too, not only the process's
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")
        if is_empty:
            # not executescript, which would commit first: a kill must leave all of it or nothing
            for statement in _SCHEMA.split(";")[:-1]:
                run(statement)
            run(f"PRAGMA application_id = {_APPLICATION_ID}")
            run(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            for key, value in dataclasses.asdict(self._subject).items():
                run("INSERT INTO subject VALUES (?, ?)", (key, json.dumps(value)))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        cursor = run("INSERT INTO sessions (started) VALUES (?)", (now,))
        self._session = int(cursor.lastrowid or 0)
        run("COMMIT")

    def _one(self, query: str) -> object:
        return self._db.execute(query).fetchone()[0]

    def _check(self, marks: tuple[object, object]) -> None:
        if marks != (_APPLICATION_ID, _SCHEMA_VERSION):
            raise self._refusal("not a profiling journal of this version of edgeofa")
        if self._one("PRAGMA integrity_check(1)") != "ok":
            raise self._refusal("corrupt")
        stored = dict(self._db.execute("SELECT key, value FROM subject"))
        for key, value in dataclasses.asdict(self._subject).items():
            if stored.get(key) != json.dumps(value):
                raise self._refusal(f"a foreign journal: its {key} is {stored.get(key)}")

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the journal is not open")
        return self._database

    def _refusal(self, what: str) -> FileFormatError:
        return FileFormatError(
            what,
            where=self.path,
            hint="delete this file (and its -wal and -shm); its blocks are then measured again",
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:  # a block measured twice: a bug, not the file's fault
            raise
        except sqlite3.OperationalError as error:  # full disk, read-only folder, locked by another
            raise EdgeofaError(
                f"the journal cannot be used: {error}",
                where=self.path,
                hint="mend that and run the same command again: finished blocks are kept",
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._refusal(f"corrupt: {error}") from error

    @property
    def started(self) -> str:
        """UTC time of the first session, ISO 8601."""
        with self._explained():
            return str(self._db.execute("SELECT started FROM sessions ORDER BY id").fetchone()[0])

    def blocks(self) -> dict[str, Row]:
        """Finished blocks by key."""
        return {key: self._parse(_ROW, text) for key, text in self._records("blocks")}

    def subnets(self) -> dict[str, WholeSubnet]:
        """Finished whole subnets by their text."""
        return {key: self._parse(_WHOLE, text) for key, text in self._records("subnets")}

    def add_blocks(self, rows: Sequence[Row]) -> None:
        """Store finished blocks, all or none. A block that is there already is a bug."""
        self._add("blocks", [(r.block, r) for r in rows])

    def add_subnets(self, subnets: Sequence[WholeSubnet]) -> None:
        """Store finished whole subnets, all or none."""
        self._add("subnets", [(s.subnet, s) for s in subnets])

    def drop_failed(self) -> None:
        """Forget blocks and subnets that failed, so that this run tries them again."""
        failed = [k for k, row in self.blocks().items() if row.status == "failed"]
        lost = [k for k, whole in self.subnets().items() if whole.status == "failed"]
        with self._explained():
            self._db.executemany("DELETE FROM blocks WHERE key = ?", [(k,) for k in failed])
            self._db.executemany("DELETE FROM subnets WHERE key = ?", [(k,) for k in lost])

    def _records(self, table: str) -> list[tuple[str, str]]:
        with self._explained():
            return self._db.execute(f"SELECT key, record FROM {table} ORDER BY key").fetchall()  # noqa: S608

    def _add(self, table: str, records: Sequence[tuple[str, Row | WholeSubnet]]) -> None:
        values = [(k, self._session, json.dumps(dataclasses.asdict(r))) for k, r in records]
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", values)  # noqa: S608
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _parse(self, kind: TypeAdapter[_T], text: str) -> _T:
        try:
            return kind.validate_json(text)
        except ValidationError as error:
            raise self._refusal(f"corrupt record: {error.errors()[0]['msg']}") from error
