"""Trials that were made, so that an interrupted tuning repeats none of them.

One SQLite file in the user's cache for each machine, device and state of the schedules: what a
configuration costs belongs to those three. A lock lets one tuning at a time use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.tvm.templates import Config
from edgeofa.journalfile import JournalFile
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


class TuningJournal(JournalFile):
    """Trials by kernel. ``subject`` says what they belong to."""

    called = "the journal of trials"
    busy = "another edgeofa tune works for this device"
    finished = "trials"
    again = "its trials are then made again"

    def __init__(self, folder: Path, machine: str, subject: Mapping[str, str]) -> None:
        text = json.dumps(dict(subject), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        super().__init__(folder / f"{machine}-{digest}.sqlite")

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(_SCHEMA)

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
        self._insert("INSERT INTO trials VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, kernel: str) -> None:
        """Everything about a kernel, so that it is tried again."""
        with self._explained():
            self._db.execute("DELETE FROM trials WHERE kernel = ?", (kernel,))
