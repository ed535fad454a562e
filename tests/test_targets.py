"""Target files are validated whole; an error names file, line and the nearest valid key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeofa.errors import FileFormatError, UsageError
from edgeofa.paths import data_dir
from edgeofa.targets import load_target, target_names


def _changed(tmp_path: Path, old: str, new: str) -> str:
    text = (data_dir() / "targets" / "rpi4.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    return str(path)


def test_shipped_targets_load() -> None:
    assert {"host", "rpi4"} <= set(target_names())
    for name in target_names():
        assert load_target(name).name == name


def test_unknown_target_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean rpi4"):
        load_target("rpi44")


def test_unknown_key_is_named_with_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    path = _changed(tmp_path, "clock_hz", "clokc_hz")
    with pytest.raises(FileFormatError) as caught:
        load_target(path)
    text = str(caught.value)
    line = 1 + next(
        n for n, x in enumerate(Path(path).read_text().splitlines()) if x.startswith("clokc_hz")
    )
    assert f"line {line}" in text
    assert "did you mean clock_hz" in text
    assert path in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("clock_hz = 1.5e9", "clock_hz = -1"),
        ("low = 2.2", "low = 2.9"),
        ("schema_version = 1", "schema_version = 7"),
        ('device = "qemu-user"', 'device = "magic"'),
        ("[core]", "[core"),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(FileFormatError):
        load_target(_changed(tmp_path, old, new))


def test_digest_follows_what_changes_a_number(tmp_path: Path) -> None:
    same = _changed(tmp_path, 'description = "', 'description = "another ')
    assert load_target(same).digest == load_target("rpi4").digest
    other = _changed(tmp_path, "clock_hz = 1.5e9", "clock_hz = 1.8e9")
    assert load_target(other).digest != load_target("rpi4").digest


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * (1 << 19))
    with pytest.raises(FileFormatError, match="256 KiB"):
        load_target(str(path))
