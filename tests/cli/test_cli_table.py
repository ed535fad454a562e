"""``edgeofa table`` and ``edgeofa profile`` as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from table_samples import make_table

from edgeofa.tables.store import write_table
from edgeofa.targets import load_target

EDGEOFA = Path(sys.executable).parent / "edgeofa"
NAME = "rpi4/cifar_lite-litert-int8"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "own"))
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    write_table(make_table(digest=load_target("rpi4").digest), tmp_path / "own")
    return tmp_path


def edgeofa(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EDGEOFA, *args], capture_output=True, text=True, check=False)


def test_list_and_show(tables: Path) -> None:
    assert NAME in edgeofa("table", "list", "--target", "rpi4").stdout
    shown = edgeofa("table", "show", NAME, "--rows", "2").stdout
    assert "modelled, ±20.0%" in shown
    assert "MAPE 1.00%" in shown
    assert shown.count(" mJ") == 2
    plain = json.loads(edgeofa("table", "show", NAME, "--json").stdout)
    assert plain["header"]["target"] == "rpi4"
    assert len(plain["rows"]) == 5


def test_diff_names_slower_blocks_and_has_its_exit_code(tables: Path) -> None:
    slower, _ = write_table(make_table(scale=1.1), tables / "other")
    own = str(tables / "own" / f"{NAME}.csv")
    done = edgeofa("table", "diff", own, str(slower))
    assert done.returncode == 6
    assert "5 changed, 0 unchanged" in done.stdout
    assert "(+10.0%)" in done.stdout
    assert "5 blocks are slower" in done.stderr
    assert edgeofa("table", "diff", str(slower), own).returncode == 0
    same = json.loads(edgeofa("table", "diff", own, own, "--json").stdout)
    assert same["changed"] == []


def test_verify_counts_what_is_wrong(tables: Path) -> None:
    done = edgeofa("table", "verify", NAME)
    assert done.returncode == 6
    assert "has no row" in done.stdout
    assert " errors, 0 of 0 blocks moved" in done.stderr


def test_export(tables: Path) -> None:
    lookup = json.loads(edgeofa("table", "export", NAME, "--format", "ofa-json").stdout)
    assert len(lookup) == 5
    out = tables / "lookup.yaml"
    assert edgeofa("table", "export", NAME, "--format", "ofa-yaml", "--out", str(out)).stdout == ""
    assert out.read_text().count("mean:") == 5


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("table", "show", "rpi4/cifar_lite-litert-int9"), "did you mean rpi4/cifar_lite-litert"),
        (("table", "export", NAME, "--format", "csv"), "ofa-yaml"),
        (("table", "verify", NAME, "--spot", "99"), "1 to 20"),
        (("profile", "--target", "rpi4", "--resolutions", "12a"), "write them as 128,160"),
        (("profile", "--target", "rpi4", "--precision", "int4"), "int8 or float32"),
        (("profile", "--target", "rpi4", "--space", "cifar"), "cifar_lite"),
        (("profile", "--target", "rpi4", "--backend", "glow"), "litert"),
    ],
)
def test_wrong_words(tables: Path, args: tuple[str, ...], says: str) -> None:
    done = edgeofa(*args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupt_table_is_refused(tables: Path) -> None:
    path = tables / "own" / f"{NAME}.csv"
    path.write_text(path.read_text().replace("modelled", "guessed", 1))
    done = edgeofa("table", "show", NAME)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "line 2: evidence" in done.stderr


def test_export_says_what_it_wrote(tables: Path) -> None:
    out = tables / "t.yaml"
    done = edgeofa("table", "export", NAME, "--format", "ofa-yaml", "--out", str(out), "--json")
    record = json.loads(done.stdout)
    assert (record["format"], record["rows"], record["file"]) == ("ofa-yaml", 5, str(out))
    assert out.is_file()
    assert edgeofa("table", "export", NAME, "--json").returncode == 2


def test_a_valid_target_as_json() -> None:
    record = json.loads(edgeofa("target", "validate", "rpi4", "--json").stdout)
    assert (record["name"], record["digest"]) == ("rpi4", load_target("rpi4").digest)
