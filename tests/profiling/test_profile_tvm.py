"""Tables of the back end tvm: the code lies in the artifacts, and its compiler in the header."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fake_device import FakeDevice
from tiny_space import tiny_space

from edgeofa.backends.tvm.backend import TvmBackend
from edgeofa.backends.tvm.installed import tvm_problem
from edgeofa.emulation.runtimes import runtime_of
from edgeofa.errors import UsageError
from edgeofa.paths import data_dir
from edgeofa.profiling.profile import profile
from edgeofa.tables.freshness import staleness
from edgeofa.tables.store import read_table
from edgeofa.tables.table import Header
from edgeofa.targets import load_target

RPI4 = load_target("rpi4")
needs_tvm = pytest.mark.skipif(tvm_problem() is not None, reason=f"{tvm_problem()}")


def published(**device: str) -> Header:
    """The header of a published table, as if the back end tvm had made it."""
    header = read_table(
        data_dir() / "latency_tables" / "rpi4" / "cifar_micro-litert-int8.csv"
    ).header
    runtime = runtime_of("tvm")
    assert runtime is not None
    return dataclasses.replace(
        header,
        backend="tvm",
        runtime_version=runtime.version,
        runtime_digest=runtime.library_sha256[:16],
        device={**header.device, **device},
    )


def test_other_schedules_make_a_table_stale() -> None:
    now = TvmBackend().for_target(RPI4).version()
    assert staleness(published(compiler=now), RPI4) is None
    assert "other schedules" in str(staleness(published(compiler=f"{now}0"), RPI4))
    assert "unknown ones" in str(staleness(published(), RPI4))
    runtime = dataclasses.replace(published(compiler=now), runtime_digest="0" * 16)
    assert "edgeofa setup brings" in str(staleness(runtime, RPI4))


def test_several_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compute on one thread"):
        profile(RPI4, tiny_space(tmp_path), TvmBackend(), "float32", threads=2, device=FakeDevice())


@needs_tvm
def test_artifacts_are_for_the_target_and_the_header_says_by_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    space = tiny_space(tmp_path)
    machines: list[int] = []

    class Looking(FakeDevice):
        def identity(self) -> dict[str, str]:
            return {"model": "fake", "tvm": f"0.27.0.post1 sha256:{'5' * 64}"}

        def _one(self, job, threads):  # type: ignore[no-untyped-def]
            machines.append(int.from_bytes(job.path.read_bytes()[18:20], "little"))
            return super()._one(job, threads)

    table = profile(
        RPI4,
        space,
        TvmBackend(),
        "float32",
        resolutions=space.resolutions[:1],
        subnets=0,
        device=Looking(),
        out=tmp_path / "tables",
    )
    assert set(machines) == {183}, "ELF machine of AArch64"
    assert (table.header.runtime_version, table.header.runtime_digest) == ("0.27.0.post1", "5" * 16)
    assert table.header.device["compiler"] == TvmBackend().for_target(RPI4).version()
    assert {row.status for row in table.rows.values()} == {"ok"}
