"""The journal: nothing lost, nothing repeated, nothing foreign accepted."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from table_samples import make_row

from edgeofa.errors import EdgeofaError, FileFormatError, UsageError
from edgeofa.profiling.journal import Journal, Subject, WholeSubnet

SUBJECT = Subject(
    target="rpi4",
    target_digest="ab" * 8,
    space="cifar_lite",
    space_digest="cd" * 8,
    backend="litert",
    backend_version="2.3.0",
    precision="int8",
    threads=1,
    runtime_digest="ef" * 8,
    protocol_version=1,
    edgeofa_version="0.1.0",
    seed=0,
)
ROWS = [make_row(i) for i in range(4)]
WHOLE = WholeSubnet("cifar_lite@64/x", 1.25, "ok")


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    with Journal(tmp_path, SUBJECT) as journal:
        journal.add_blocks(ROWS[:2])
        journal.add_subnets([WHOLE])
        started = journal.started
    with Journal(tmp_path, SUBJECT) as journal:
        assert journal.blocks() == {r.block: r for r in ROWS[:2]}
        assert journal.subnets() == {WHOLE.subnet: WHOLE}
        assert journal.started == started
    with Journal(tmp_path, SUBJECT, fresh=True) as journal:
        assert journal.blocks() == {}


def test_every_part_of_the_subject_has_its_own_journal(tmp_path: Path) -> None:
    paths = {Journal(tmp_path, SUBJECT).path}
    for field in dataclasses.fields(SUBJECT):
        value = getattr(SUBJECT, field.name)
        other = {"int8": "float32"}.get(value, value + 1 if isinstance(value, int) else value + "x")
        paths.add(Journal(tmp_path, dataclasses.replace(SUBJECT, **{field.name: other})).path)
    assert len(paths) == 1 + len(dataclasses.fields(SUBJECT))


def test_a_block_is_never_stored_twice_and_a_group_is_all_or_none(tmp_path: Path) -> None:
    with Journal(tmp_path, SUBJECT) as journal:
        journal.add_blocks(ROWS[:2])
        with pytest.raises(sqlite3.IntegrityError):
            journal.add_blocks([ROWS[2], ROWS[1]])
        assert set(journal.blocks()) == {r.block for r in ROWS[:2]}
        journal.add_blocks(ROWS[2:])


def test_failed_blocks_are_tried_again(tmp_path: Path) -> None:
    failed = dataclasses.replace(ROWS[1], status="failed")
    with Journal(tmp_path, SUBJECT) as journal:
        journal.add_blocks([ROWS[0], failed])
        journal.add_subnets([WHOLE, WholeSubnet("y", 0.0, "failed")])
        journal.drop_failed()
        assert set(journal.blocks()) == {ROWS[0].block}
        assert set(journal.subnets()) == {WHOLE.subnet}


_HOLDER = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from test_journal import SUBJECT, ROWS, Journal
with Journal(Path({folder!r}), SUBJECT) as journal:
    journal.add_blocks(ROWS[:2])
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_and_kill_9_loses_nothing(tmp_path: Path) -> None:
    here = Path(__file__).resolve()
    code = _HOLDER.format(path=[str(here.parent), str(here.parents[1])], folder=str(tmp_path))
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(UsageError, match="another edgeofa profile"), Journal(tmp_path, SUBJECT):
            pass
        other = dataclasses.replace(SUBJECT, precision="float32")
        with Journal(tmp_path, other) as journal:
            assert journal.blocks() == {}
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with Journal(tmp_path, SUBJECT) as journal:
        assert set(journal.blocks()) == {r.block for r in ROWS[:2]}


def make(folder: Path) -> Path:
    with Journal(folder, SUBJECT) as journal:
        journal.add_blocks(ROWS)
    return journal.path


def refused(folder: Path, says: str) -> None:
    with pytest.raises(FileFormatError, match=says) as caught, Journal(folder, SUBJECT):
        pass
    assert "delete this file" in str(caught.value)
    assert ".sqlite" in str(caught.value)
    # the lock is free again
    with pytest.raises(FileFormatError), Journal(folder, SUBJECT):
        pass


def test_noise_is_refused(tmp_path: Path) -> None:
    make(tmp_path).write_bytes(os.urandom(8192))
    refused(tmp_path, "corrupt")


def test_damaged_pages_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    refused(tmp_path, "corrupt")


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE songs (name TEXT)")
    database.close()
    refused(tmp_path, "not a profiling journal")
    assert sqlite3.connect(path).execute("SELECT count(*) FROM songs").fetchone() == (0,)


def test_another_subjects_journal_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    other = Journal(tmp_path, dataclasses.replace(SUBJECT, runtime_digest="00" * 8))
    path.rename(other.path)
    with pytest.raises(FileFormatError, match="foreign journal: its runtime_digest"), other:
        pass


@pytest.mark.parametrize("record", ["{}", "not json", '{"block": 3}'])
def test_a_foreign_record_is_refused(tmp_path: Path, record: str) -> None:
    path = make(tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE blocks SET record = ? WHERE key = ?", (record, ROWS[0].block))
    database.close()
    with Journal(tmp_path, SUBJECT) as journal, pytest.raises(FileFormatError, match="corrupt"):
        journal.blocks()


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.write_bytes(b"")
    with Journal(tmp_path, SUBJECT) as journal:
        assert journal.blocks() == {}


def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path, SUBJECT) as journal:
        journal.add_blocks(ROWS[:2])
        # SQLite's own limit answers exactly as a full disk does
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        many = [dataclasses.replace(ROWS[2], block=f"b{i}") for i in range(2000)]
        with pytest.raises(EdgeofaError, match=r"full.*\n.*run the same command again"):
            journal.add_blocks(many)
        assert set(journal.blocks()) == {r.block for r in ROWS[:2]}
