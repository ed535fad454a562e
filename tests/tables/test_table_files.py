"""Table files: what is written reads back, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import warnings
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_samples import make_row, make_table

from edgeofa.emulation.model import CORTEX_A72
from edgeofa.emulation.runtimes import RUNTIMES
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.paths import data_dir
from edgeofa.spaces import load_space
from edgeofa.tables.freshness import staleness
from edgeofa.tables.store import (
    find_table,
    list_tables,
    open_table,
    read_header,
    read_table,
    write_table,
)
from edgeofa.tables.table import Additivity, Table
from edgeofa.tables.verify import check_table
from edgeofa.targets import load_target

PUBLISHED = sorted((data_dir() / "latency_tables").glob("*/*.toml"))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return write_table(make_table(), tmp_path)[0]


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    table = make_table(rows=40)
    path, written = write_table(table, tmp_path)
    assert path == tmp_path / "rpi4" / "cifar_lite-litert-int8.csv"
    assert read_table(path) == written
    assert written.rows == table.rows
    assert written.header == table.header
    assert list(written.rows) == sorted(written.rows)
    assert read_header(path).header == table.header


def test_threads_are_in_the_name(tmp_path: Path) -> None:
    table = make_table()
    four = Table(dataclasses.replace(table.header, threads=4), table.rows)
    assert write_table(four, tmp_path)[0].name == "cifar_lite-litert-int8-4threads.csv"


def test_same_table_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    table = make_table(rows=30)
    back = Table(table.header, dict(reversed(list(table.rows.items()))))
    paths = [write_table(t, tmp_path / str(i))[0] for i, t in enumerate((table, back))]
    for suffix in (".csv", ".toml"):
        assert len({p.with_suffix(suffix).read_bytes() for p in paths}) == 1


_ms = st.integers(1, 10**12).map(lambda n: n / 1e6)


@given(
    a=st.integers(-(10**9), 10**9).map(lambda n: n / 1e6),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    latency=_ms,
    energy=st.none() | _ms,
)
@settings(max_examples=60, deadline=None)
def test_any_text_and_number_survives(
    tmp_path_factory: pytest.TempPathFactory,
    a: float,
    text: str,
    latency: float,
    energy: float | None,
) -> None:
    folder = tmp_path_factory.mktemp("t")
    table = make_table()
    row = dataclasses.replace(
        make_row(0),
        latency_ms=latency,
        latency_low_ms=latency,
        latency_high_ms=latency,
        energy_mj=energy,
        energy_low_mj=energy,
        energy_high_mj=energy,
    )
    header = dataclasses.replace(
        table.header,
        device={text: text, "b": ""},
        additivity=Additivity(a, 1.5, 0.25, 9, 1.0, -0.5, 1.0, 2.0),
    )
    path, written = write_table(Table(header, {row.block: row}), folder)
    assert read_table(path) == written == Table(header, {row.block: row})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.replace("latency_ms,", "latency_us,", 1), "line 1"),
        (lambda s: s.replace(",ok,\n", ",fine,\n", 1), "line 2: status = 'fine'"),
        (lambda s: s.replace(",ok,\n", ",ok,-4\n", 1), "line 2: code_bytes = '-4'"),
        (lambda s: s.replace(",ok,\n", ",ok\n", 1), "line 2: 13 cells where 14"),
        (lambda s: s.replace("modelled", "guessed", 1), "line 2: evidence = 'guessed'"),
        (lambda s: s.replace("modelled", "measured", 1), "line 2: evidence measured in a table"),
        (lambda s: s.replace(",1,1,", ",1,-1,", 1), "line 2: rounds = '-1'"),
        (lambda s: s.replace(".", ",", 1), "line 2"),
        (lambda s: s.replace(".", "e", 1), "line 2: latency_ms"),
        (lambda s: s[:-1], "cut off"),
        (lambda s: s[: s.index("\n") + 1], "0 rows"),
        (lambda s: s + s.splitlines()[-1] + "\n", "out of order or repeated"),
        (lambda s: "\n".join([*s.split("\n")[:2], *s.split("\n")[3:]]), "rows where the header"),
        (lambda s: s.replace("0.100000", "0.100001", 1), "not those that the header"),
        (lambda s: s.replace("0.100000", "0.900000", 1), "line 2: latency is outside"),
        (lambda s: s.replace("0.100000", "nan", 1), "line 2: latency_ms = 'nan'"),
        (lambda s: s.replace("0.100000", "9" * 5000, 1), "line 2: latency_ms"),
        (lambda s: s.replace("head", "h\u00e4d", 1), "not ASCII"),
        (lambda s: s[:0], "line 1"),
    ],
)
def test_a_changed_csv_is_refused_with_line_and_reason(pair: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    text = pair.read_text()
    changed = change(text)
    assert changed != text
    pair.write_text(changed, encoding="utf-8")
    with pytest.raises(FileFormatError) as caught:
        read_table(pair)
    assert says in str(caught.value)
    assert str(pair) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema_version = 2", "schema_version = 3", "schema version 3"),
        ("schema_version = 2\n", "", "schema version None"),
        ("threads = 1", "threads = 'one'", "threads"),
        ("threads = 1", "threads = 1.5", "threads"),
        ('precision = "int8"', 'precision = "int4"', "precision"),
        ("seed = 0", "seed = 0\ncolour = 1", "unknown key 'colour'"),
        ("b = 1.0", "c = 1.0", "unknown key 'c'"),
        ("b = 1.0", "b = nan\n#", "a value that no header holds"),
        ("b = 1.0", "b = -1.0", "b is not positive"),
        ("rows = 5", "rows = 4", "5 rows where"),
        ("rows = 5\n", "", "rows or csv_sha256"),
        ('date = "2026-11-25"', "date = 2026-11-25", "a value that no header holds"),
        ("seed = 0", "seed = ", "not a TOML file"),
        ('target = "rpi4"', f'target = "{"r" * 500}"', "longer than"),
    ],
)
def test_a_changed_header_is_refused(pair: Path, old: str, new: str, says: str) -> None:
    path = pair.with_suffix(".toml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=r"\.toml|\.csv") as caught:
        read_table(pair)
    assert says in str(caught.value)


def test_code_bytes_come_back(tmp_path: Path) -> None:
    table = make_table()
    rows = {
        key: dataclasses.replace(row, code_bytes=n or None)
        for n, (key, row) in enumerate(table.rows.items())
    }
    path, written = write_table(Table(table.header, rows), tmp_path)
    found = read_table(path)
    assert found == written
    assert found.rows == rows
    assert {r.flash_bytes - r.weight_bytes for r in found.rows.values()} == set(range(len(rows)))


def test_a_table_of_version_1_has_no_code_bytes(tmp_path: Path) -> None:
    table = make_table()
    path, _ = write_table(table, tmp_path)
    lines = path.read_text().splitlines()
    old = "".join(line.rpartition(",")[0] + "\n" for line in lines)
    path.write_text(old)
    header = path.with_suffix(".toml")
    text = re.sub(
        'csv_sha256 = ".*"',
        f'csv_sha256 = "{sha256(old.encode()).hexdigest()}"',
        header.read_text(),
    )
    header.write_text(text.replace("schema_version = 2", "schema_version = 1"))
    found = read_table(path)
    assert found.header.schema_version == 1
    assert found.rows == table.rows
    # and is of the newest version once it is written again
    _, again = write_table(found, tmp_path / "again")
    assert again == table


def test_a_torn_pair_is_refused(tmp_path: Path) -> None:
    path, _ = write_table(make_table(), tmp_path)
    header = path.with_suffix(".toml").read_bytes()
    write_table(make_table(scale=2.0), tmp_path)
    path.with_suffix(".toml").write_bytes(header)
    with pytest.raises(FileFormatError, match="torn"):
        read_table(path)
    path.unlink()
    with pytest.raises(FileFormatError, match="half of a table"):
        read_table(path)


@given(data=st.binary(max_size=400))
@settings(max_examples=50, deadline=None)
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path, _ = write_table(make_table(), tmp_path_factory.mktemp("t"))
    path.with_suffix(".toml").write_bytes(data)
    with pytest.raises(FileFormatError):
        read_table(path)


def test_a_failed_write_leaves_the_old_pair(tmp_path: Path) -> None:
    path, old = write_table(make_table(), tmp_path)
    bad = make_table(scale=2.0)
    rows = {k: dataclasses.replace(r, latency_ms=-1.0) for k, r in bad.rows.items()}
    with pytest.raises(ValueError, match="cannot be stored"):
        write_table(Table(bad.header, rows), tmp_path)
    assert read_table(path) == old
    assert len(list(path.parent.iterdir())) == 2


# ------------------------------------------------------------------------------------ finding


def test_the_users_table_goes_before_the_published_one(tmp_path: Path) -> None:
    target = load_target("rpi4")
    own, published = tmp_path / "own", tmp_path / "published"
    with pytest.raises(MissingMaterial, match="edgeofa profile --target rpi4"):
        find_table(target, "cifar_lite", "litert", "int8", folders=(own, published))
    write_table(make_table(digest=target.digest), published)
    find = lambda **more: find_table(  # noqa: E731
        target, "cifar_lite", "litert", "int8", folders=(own, published), **more
    )
    assert find().rows == make_table().rows
    write_table(make_table(digest=target.digest, scale=3.0), own)
    assert find().rows == make_table(scale=3.0).rows
    # a stale own table: the published fresh one is used
    write_table(make_table(digest="0123456789abcdef", scale=5.0), own)
    assert find().rows == make_table().rows
    # only stale ones: refused, or taken with a warning
    write_table(make_table(digest="0123456789abcdef", scale=7.0), published)
    with pytest.raises(UsageError, match="another version of the target file rpi4"):
        find()
    with pytest.warns(UserWarning, match="another version"):
        assert find(stale_ok=True).rows == make_table(scale=5.0).rows


def test_a_partial_table_of_the_user_does_not_hide_the_whole_one(tmp_path: Path) -> None:
    target = load_target("rpi4")
    own, published = tmp_path / "own", tmp_path / "published"
    whole = make_table(digest=target.digest)
    header = dataclasses.replace(whole.header, resolutions=(64,))
    partial = make_table(digest=target.digest, scale=3.0)
    write_table(whole, published)
    path, _ = write_table(Table(header, partial.rows), own)
    find = lambda: find_table(  # noqa: E731
        target, "cifar_lite", "litert", "int8", folders=(own, published)
    )
    with pytest.warns(UserWarning, match=rf"{path.name} covers 64 only"):
        assert find().rows == whole.rows
    # what was measured is not given up for what was modelled
    rows = {k: dataclasses.replace(r, evidence="measured") for k, r in partial.rows.items()}
    write_table(Table(dataclasses.replace(header, evidence="measured"), rows), own)
    assert find().rows == rows


def emulated(table: Table, **changes: str) -> Table:
    """``table`` as if the emulator of this edgeofa had made it, but for ``changes``."""
    pinned = next(r for r in RUNTIMES if r.backend == table.header.backend)
    fields = {
        "latency_model": CORTEX_A72.identity,
        "runtime_version": pinned.version,
        "runtime_digest": pinned.library_sha256[:16],
        **changes,
    }
    device = {**table.header.device, "latency_model": fields.pop("latency_model")}
    return Table(dataclasses.replace(table.header, device=device, **fields), table.rows)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latency_model": "cortex-a72 944542034c71de86"}, "other constants of the latency model"),
        ({"runtime_version": "2.2.0"}, r"made with litert 2\.2\.0 .*edgeofa setup brings"),
        ({"runtime_digest": "9d63d60496ebef25"}, "edgeofa setup brings"),
    ],
)
def test_a_table_of_another_model_or_runtime_is_stale(
    tmp_path: Path, change: dict[str, str], says: str
) -> None:
    target = load_target("rpi4")
    fresh = make_table(digest=target.digest)
    find = lambda **more: find_table(  # noqa: E731
        target, "cifar_lite", "litert", "int8", folders=(tmp_path / "own", tmp_path), **more
    )
    write_table(emulated(fresh), tmp_path)
    assert find().rows == fresh.rows
    stale = emulated(make_table(digest=target.digest, scale=3.0), **change)
    write_table(stale, tmp_path / "own")
    assert find().rows == fresh.rows
    findings = check_table(stale, load_space("cifar_lite"), target)
    assert any(re.search(says, f.what) for f in findings if f.severity == "error")
    write_table(stale, tmp_path)
    with pytest.raises(UsageError, match=says) as caught:
        find()
    assert "edgeofa profile --target rpi4 --space cifar_lite" in str(caught.value)
    with pytest.warns(UserWarning, match=says):
        assert find(stale_ok=True).rows == stale.rows


def test_staleness_needs_nothing_heavy() -> None:
    code = "import sys, edgeofa.tables.freshness; print(set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"'torch'", "'onnx'", "'ai_edge_litert'"} & set(re.findall(r"'\w+'", done.stdout))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_published_tables_are_fresh_and_name_the_pinned_library(path: Path) -> None:
    header = read_header(path).header
    assert staleness(header, load_target(header.target)) is None
    pinned = next((r for r in RUNTIMES if r.backend == header.backend), None)
    # firmware has no library: its kernels are edgeofa's own, and staleness compares them
    assert pinned is not None or header.backend == "firmware"
    if pinned is not None:
        assert header.runtime_digest == pinned.library_sha256[:16]


def test_a_table_in_the_wrong_place_is_foreign(tmp_path: Path) -> None:
    target = load_target("rpi4")
    path, _ = write_table(make_table(digest=target.digest), tmp_path)
    for suffix in (".csv", ".toml"):
        moved = path.with_name("cifar_lite-litert-float32").with_suffix(suffix)
        path.with_suffix(suffix).rename(moved)
    with pytest.raises(FileFormatError, match="foreign table: precision is 'int8'"):
        find_table(target, "cifar_lite", "litert", "float32", folders=(tmp_path,))


def test_listing_and_opening_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path))
    path, table = write_table(make_table(target="mine"), tmp_path)
    (tmp_path / "mine" / "broken.toml").write_text("x")
    with pytest.warns(UserWarning, match=r"broken\.toml"):
        found = list_tables("mine")
    assert [(t.path, t.rows) for t in found] == [(path, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert open_table("mine/cifar_lite-litert-int8") == (path, table)
        assert open_table(str(path)) == (path, table)
        with pytest.raises(MissingMaterial, match="did you mean mine/cifar_lite-litert-int8"):
            open_table("mine/cifar_light-litert-int8")
    with pytest.raises(MissingMaterial, match="no such table"):
        open_table(str(tmp_path / "none.csv"))
