"""Block prices: known blocks, and a cache that two processes and damage cannot spoil."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from edgeofa.emulation.mca import BlockPrices, Llvm, find_llvm

LLVM = find_llvm()
pytestmark = pytest.mark.skipif(LLVM is None, reason="llvm-mca is not installed")

ADD_X0 = "91000400"  # add x0, x0, #1
FMLA = "4e22cc20"  # fmla v0.4s, v1.4s, v2.4s
FMLA_OTHERS = "4e22cc23" + "4e22cc24" + "4e22cc25" + "4e22cc26"  # the same into v3 to v6
BRANCH_BACK = "54ffffe1"  # b.ne
UNDEFINED = "ffffffff"


def prices(folder: Path, llvm: Llvm | None = LLVM) -> BlockPrices:
    return BlockPrices("cortex-a72", folder / "blocks.sqlite", llvm)


def test_known_blocks(tmp_path: Path) -> None:
    chain, twice = ADD_X0 * 8, ADD_X0 * 16
    found = prices(tmp_path).cycles([chain, twice, FMLA, FMLA_OTHERS, ADD_X0 + BRANCH_BACK])
    # a chain of one-cycle additions takes a cycle each
    assert found[chain] == pytest.approx(8, abs=0.1)
    assert found[twice] == pytest.approx(16, abs=0.1)
    # a vector accumulation into itself takes its accumulation latency; into others it overlaps
    assert found[FMLA] > 3
    assert found[FMLA_OTHERS] < 4 * found[FMLA] / 2
    assert found[ADD_X0 + BRANCH_BACK] >= 1


def test_an_undefined_instruction_costs_only_itself(tmp_path: Path) -> None:
    found = prices(tmp_path).cycles([UNDEFINED, ADD_X0 * 8, UNDEFINED + ADD_X0 * 8])
    assert UNDEFINED not in found
    assert found[ADD_X0 * 8] == pytest.approx(8, abs=0.1)
    assert found[UNDEFINED + ADD_X0 * 8] == pytest.approx(8, abs=0.1)


def test_a_price_is_asked_for_once(tmp_path: Path) -> None:
    assert LLVM is not None
    first = prices(tmp_path).cycles([ADD_X0, UNDEFINED])
    absent = Llvm(Path("/nonexistent"), Path("/nonexistent"), LLVM.version)
    assert prices(tmp_path, absent).cycles([ADD_X0, UNDEFINED]) == first


def test_prices_of_another_version_are_not_used(tmp_path: Path) -> None:
    prices(tmp_path).cycles([ADD_X0])
    with sqlite3.connect(tmp_path / "blocks.sqlite") as database:
        database.execute("UPDATE price SET key = 'other', cycles = 77.0")
    assert prices(tmp_path).cycles([ADD_X0])[ADD_X0] < 2


def test_an_implausible_price_is_computed_again(tmp_path: Path) -> None:
    prices(tmp_path).cycles([ADD_X0])
    with sqlite3.connect(tmp_path / "blocks.sqlite") as database:
        database.execute("UPDATE price SET cycles = 1e9")
    assert prices(tmp_path).cycles([ADD_X0])[ADD_X0] < 2


def test_a_corrupt_cache_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "blocks.sqlite"
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    assert prices(tmp_path).cycles([ADD_X0])[ADD_X0] < 2
    assert path.with_suffix(".corrupt").is_file()
    assert prices(tmp_path).cycles([ADD_X0])[ADD_X0] < 2


def test_two_that_meet_a_corrupt_cache_keep_the_fresh_one(tmp_path: Path) -> None:
    path = tmp_path / "blocks.sqlite"
    blocks = [ADD_X0 * n for n in range(1, 9)]
    for _ in range(3):
        path.write_bytes(b"not a database, but long enough to be read as one" * 100)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: prices(tmp_path).cycles(blocks), range(8)))
        assert all(answer == answers[0] for answer in answers)
        # what was priced is in the file that is in place, not in the one that was put aside
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM price").fetchone() == (len(blocks),)


def test_a_late_finder_of_damage_leaves_the_fresh_cache_alone(tmp_path: Path) -> None:
    late = prices(tmp_path)
    first = late.cycles([ADD_X0])
    late._put_aside()  # it saw damage that another process has mended meanwhile
    assert not (tmp_path / "blocks.corrupt").exists()
    assert LLVM is not None
    absent = Llvm(Path("/nonexistent"), Path("/nonexistent"), LLVM.version)
    assert prices(tmp_path, absent).cycles([ADD_X0]) == first


def test_several_at_once(tmp_path: Path) -> None:
    blocks = [ADD_X0 * n for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: prices(tmp_path).cycles(blocks), range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]) == len(blocks)
