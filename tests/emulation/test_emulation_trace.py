"""Traces: what the plugin writes is read back; anything else is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeofa.emulation.trace import BlockCount, parse_trace
from edgeofa.errors import FileFormatError

GOOD = b"""edgeofa-trace 1
B 1 aa1502b5d65f03c0
B 2 91000400
C 1 3 4 5 1 2
C 2 10 0 0 0 0
R 1 2 7 0
C 2 1 0 1 0 1
R 2 1 0 0
"""


def write(folder: Path, content: bytes) -> Path:
    path = folder / "trace"
    path.write_bytes(content)
    return path


def test_regions_are_read(tmp_path: Path) -> None:
    first, second = parse_trace(write(tmp_path, GOOD))
    assert first.blocks == (
        BlockCount("aa1502b5d65f03c0", 3, 4, 5, 1, 2),
        BlockCount("91000400", 10, 0, 0, 0, 0),
    )
    assert (first.written_back, first.foreign, first.instructions) == (7, 0, 16)
    assert second.blocks == (BlockCount("91000400", 1, 0, 1, 0, 1),)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (GOOD.replace(b"trace 1", b"trace 2"), 1),
        (b"", 1),
        (GOOD.replace(b"B 2 91000400", b"B 1 91000400"), 3),
        (GOOD.replace(b"91000400", b"9100040"), 3),
        (GOOD.replace(b"C 1 3 4 5 1 2", b"C 9 3 4 5 1 2"), 4),
        (GOOD.replace(b"C 2 10 0 0 0 0", b"C 1 3 4 5 1 2"), 5),
        (GOOD.replace(b"C 2 10 0", b"C 2 -1 0"), 5),
        (GOOD.replace(b"C 2 10 0", b"C 2 9999999999999999999 0"), 5),
        (GOOD.replace(b"R 1 2 7 0", b"R 1 3 7 0"), 6),
        (GOOD.replace(b"R 1 2", b"R 2 2"), 6),
        (GOOD + b"x" * 100_000, 9),
    ],
)
def test_damage_is_refused_with_its_line(tmp_path: Path, damage: bytes, line: int) -> None:
    with pytest.raises(FileFormatError, match=f"line {line}:"):
        parse_trace(write(tmp_path, damage))


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="No such file"):
        parse_trace(tmp_path / "none")


@given(end=st.integers(min_value=0, max_value=len(GOOD) - 1))
def test_a_cut_trace_never_gives_half_a_region(
    tmp_path_factory: pytest.TempPathFactory, end: int
) -> None:
    path = write(tmp_path_factory.mktemp("cut"), GOOD[:end])
    try:
        regions = parse_trace(path)
    except FileFormatError:
        return
    assert GOOD[:end].endswith(b"R 1 2 7 0\n")
    assert len(regions) == 1


@given(content=st.binary(max_size=300))
def test_foreign_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("foreign")
    for noise in (content, b"edgeofa-trace 1\n" + content):
        with pytest.raises(FileFormatError):
            parse_trace(write(folder, noise))
