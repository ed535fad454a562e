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
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from edgeofa.graph.ir import DType
from edgeofa.journalfile import JournalFile
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


class Journal(JournalFile):
    """Finished blocks and subnets of one subject.

    ``fresh`` forgets what an earlier run finished, so that everything is measured again.
    """

    called = "the journal"
    busy = "another edgeofa profile is filling this table"
    finished = "blocks"
    again = "its blocks are then measured again"

    def __init__(self, folder: Path, subject: Subject, *, fresh: bool = False) -> None:
        s = subject
        name = f"{s.target}-{s.space}-{s.backend}-{s.precision}-{s.threads}t-{s.digest}"
        super().__init__(folder / f"{name}.sqlite")
        self._subject = subject
        self._fresh = fresh
        self._session = 0

    def _open(self) -> None:
        if self._fresh:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        super()._open()

    def _prepare(self) -> None:
        run = self._db.execute
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
        self._insert(f"INSERT INTO {table} VALUES (?, ?, ?)", values)  # noqa: S608

    def _parse(self, kind: TypeAdapter[_T], text: str) -> _T:
        try:
            return kind.validate_json(text)
        except ValidationError as error:
            raise self._refusal(f"corrupt record: {error.errors()[0]['msg']}") from error
