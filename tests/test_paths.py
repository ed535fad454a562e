from __future__ import annotations

from pathlib import Path

import pytest

from edgeofa.paths import atomic_path, data_dir, write_atomic


def test_data_dir_holds_what_is_shipped() -> None:
    assert (data_dir() / "targets" / "rpi4.toml").is_file()
    assert (data_dir() / "latency_tables").is_dir()


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_creates_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    write_atomic(path, b"1")
    write_atomic(path, b"2")
    assert path.read_bytes() == b"2"
