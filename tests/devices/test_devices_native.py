"""Building the C sources into the cache."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeofa.devices import native
from edgeofa.errors import SetupError
from edgeofa.paths import data_dir


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sources(tmp_path, monkeypatch) -> Path:
    """A copy of everything that a build reads."""
    root = tmp_path / "sources"
    for name in ("targets", "firmware_scripts"):
        shutil.copytree(data_dir() / name, root / name)
    shutil.copy(data_dir() / "CMakeLists.txt", root)
    monkeypatch.setattr(native, "data_dir", lambda: root)
    return root


def test_concurrent_callers_share_one_build(cache) -> None:
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: native.build(native.RUNNER, "host"), range(3)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes()[:4] == b"\x7fELF"
    assert cache in paths[0].parents
    left = {p.name for p in paths[0].parent.iterdir()}
    assert left == {native.RUNNER, f".{native.RUNNER}.lock"}


def test_the_cross_built_runner_is_for_aarch64_and_reproducible(cache, monkeypatch) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no compiler for aarch64 (apt-get install gcc-aarch64-linux-gnu)")
    first = native.build(native.RUNNER, "aarch64-linux-gnu").read_bytes()
    assert int.from_bytes(first[18:20], "little") == 183, "ELF machine of AArch64"
    monkeypatch.setenv("EDGEOFA_CACHE", str(cache / "another"))
    assert native.build(native.RUNNER, "aarch64-linux-gnu").read_bytes() == first


def test_another_source_is_another_build(sources) -> None:
    before = native.source_digest()
    (sources / "targets" / "host.toml").write_text("not read by a build", encoding="utf-8")
    assert native.source_digest() == before
    with (sources / "targets" / "runtime" / "linux" / "runner.c").open("a") as file:
        file.write("/* changed */\n")
    assert native.source_digest() != before


def test_a_broken_build_says_why_and_leaves_nothing(cache, sources) -> None:
    (sources / "targets" / "runtime" / "linux" / "job.c").write_text("int broken(", "utf-8")
    with pytest.raises(SetupError, match=r"(?s)failed.*job\.c"):
        native.build(native.RUNNER, "host")
    built = [p.name for p in cache.rglob("*") if p.is_file()]
    assert built == [f".{native.RUNNER}.lock"]


def test_an_unknown_target_is_refused(cache) -> None:
    with pytest.raises(SetupError):
        native.build("no-such-target", "host")


def test_missing_tools_come_with_the_command_that_brings_them(cache, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SetupError) as caught:
        native.build(native.RUNNER, "aarch64-linux-gnu")
    assert "cmake" in caught.value.what
    assert "apt-get install" in str(caught.value.hint)
    assert "gcc-aarch64-linux-gnu" in str(caught.value.hint)
