"""The profiling loop on a device of the test's own: what it measures, stores, resumes, refuses."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest
from fake_device import FakeDevice
from tiny_space import tiny_space

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.errors import DeviceError, EdgeofaError, UsageError
from edgeofa.graph.ir import DType
from edgeofa.profiling.artifacts import sample_subnets
from edgeofa.profiling.groups import MAX_ITEMS, block_groups, subnet_groups
from edgeofa.profiling.profile import Progress, profile
from edgeofa.profiling.protocol import Rules
from edgeofa.profiling.spot import spot_check
from edgeofa.spaces import Space, load_space
from edgeofa.tables.store import find_table, table_path
from edgeofa.tables.table import Table
from edgeofa.tables.verify import check_table
from edgeofa.targets import load_target

RPI4 = load_target("rpi4")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "tables"))


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return tiny_space(tmp_path)


def run(space: Space, device: FakeDevice, precision: DType = "float32", **more: object) -> Table:
    options = {"subnets": 6, **more}
    return profile(RPI4, space, LiteRtBackend(), precision, device=device, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_every_block_once_and_a_calibrated_table(
    space: Space, precision: DType, tmp_path: Path
) -> None:
    device = FakeDevice()
    seen: list[Progress] = []
    table = run(space, device, precision, progress=seen.append)
    blocks = space.all_blocks()
    assert set(table.rows) == {b.key for b in blocks}
    names = [j.path.stem for j in device.jobs]
    assert len(names) == len(set(names)) == 2 + len(blocks) + 6
    assert [j.cold for j in device.jobs] == [True] * (2 + len(blocks)) + [False] * 6
    assert table.header.overhead_ms > 0.05
    assert table.header.evidence == "modelled"
    fit = table.header.additivity
    assert fit is not None
    assert fit.subnets == 6
    assert fit.a_ms == pytest.approx(table.header.overhead_ms, rel=0.2)
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == ("subnets", 6, 6)
    assert check_table(table, space, RPI4) == ()
    assert find_table(RPI4, "tiny", "litert", precision) == table
    assert not list((tmp_path / "cache" / "profiles").glob("*.work"))


def test_what_a_row_says(space: Space) -> None:
    table = run(space, FakeDevice())
    small, large = (
        table.row(space.layer_block(8, 0, 0, layer)) for layer in space.stages[0].layers_at(0)[:2]
    )
    assert 0 < small.latency_ms < large.latency_ms
    assert small.latency_low_ms == pytest.approx(0.8 * small.latency_ms, rel=0.01)
    assert small.weight_bytes < large.weight_bytes
    assert small.peak_bytes > 0
    power = RPI4.power
    assert power is not None
    watts = power.idle_w.value + power.core_w.value
    assert small.energy_mj == pytest.approx(watts * small.latency_ms, rel=0.01)
    assert small.energy_low_mj is not None
    low = (power.idle_w.low + power.core_w.low) * small.latency_low_ms
    assert small.energy_low_mj == pytest.approx(low, rel=0.01)


def test_a_target_without_power_figures_has_no_energies(space: Space) -> None:
    host = load_target("host")
    table = profile(host, space, LiteRtBackend(), "float32", device=FakeDevice(), subnets=0)
    assert {r.energy_mj for r in table.rows.values()} == {None}
    assert table.header.additivity is None


def test_an_interrupted_run_repeats_nothing_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tiny_space(tmp_path)
    whole = FakeDevice()
    straight = table_path(tmp_path / "tables", run(space, whole))
    expected = [straight.with_suffix(s).read_bytes() for s in (".csv", ".toml")]
    for dies_after in (0, 5, 11, 22, 25):
        cache = tmp_path / f"cache{dies_after}"
        monkeypatch.setenv("EDGEOFA_CACHE", str(cache))
        broken = FakeDevice(dies_after=dies_after)
        with pytest.raises(DeviceError, match="gone"):
            run(space, broken)
        again = FakeDevice()
        out = tmp_path / f"out{dies_after}"
        first: list[Progress] = []
        path = table_path(out, run(space, again, out=out, progress=first.append))
        assert [path.with_suffix(s).read_bytes() for s in (".csv", ".toml")] == expected
        finished = {j.path.stem for j in whole.jobs} - {j.path.stem for j in again.jobs}
        assert len(finished) + len(again.jobs) == len(whole.jobs)
        # what was under way when it died is all that is done twice
        assert len(broken.jobs) - len(finished) < MAX_ITEMS
        assert first[0].reused == sum(not f.startswith(("subnet", "trivial")) for f in finished)


def test_another_resolution_reuses_the_first(space: Space) -> None:
    first, second = FakeDevice(), FakeDevice()
    small = run(space, first, resolutions=(8,), subnets=0)
    assert small.header.resolutions == (8,)
    both = run(space, second, resolutions=(12, 8), subnets=0)
    assert both.header.resolutions == (8, 12)
    assert not {j.path.stem for j in first.jobs} & {j.path.stem for j in second.jobs}
    assert {k: both.rows[k] for k in small.rows} == small.rows
    again = FakeDevice()
    run(space, again, resolutions=(8,), subnets=0, fresh=True)
    assert len(again.jobs) == len(first.jobs)


def test_a_table_is_completed_by_what_it_lacks_alone(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(space, FakeDevice())
    lost, failed = sorted(whole.rows)[:2]
    rows = {k: row for k, row in whole.rows.items() if k != lost}
    rows[failed] = dataclasses.replace(rows[failed], status="failed", latency_ms=0.0)
    holed = dataclasses.replace(whole, rows=rows)
    # another cache: nothing of it is in a journal
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "elsewhere"))
    device = FakeDevice()
    again = run(space, device, known=holed)
    assert sorted(j.path.stem for j in device.jobs) == [lost, failed]
    assert again.rows == whole.rows
    assert again.header.additivity == whole.header.additivity
    foreign = dataclasses.replace(whole.header, runtime_digest="0" * 16)
    with pytest.raises(UsageError, match="its runtime is 0000"):
        run(space, FakeDevice(), known=dataclasses.replace(holed, header=foreign))


def test_another_device_is_not_the_same_subject(space: Space) -> None:
    run(space, FakeDevice(), subnets=0)

    class Other(FakeDevice):
        def identity(self) -> dict[str, str]:
            return {"model": "another"}

    other = Other()
    run(space, other, subnets=0)
    assert len(other.jobs) == 2 + len(space.all_blocks())


def test_a_crashing_block_is_a_failed_row_and_is_tried_again(space: Space) -> None:
    block = space.layer_block(8, 0, 0, space.stages[0].layers_at(0)[0])
    table = run(space, FakeDevice(crashes=(block.key,)))
    row = table.rows[block.key]
    assert (row.status, row.latency_ms, row.energy_mj) == ("failed", 0, None)
    assert [f.where for f in check_table(table, space, RPI4) if f.severity == "error"] == [
        block.key
    ]
    mended = FakeDevice()
    table = run(space, mended)
    assert table.rows[block.key].status == "ok"
    names = [j.path.stem for j in mended.jobs]
    assert names[0] == block.key
    assert all(n.startswith("subnet") for n in names[1:])


def test_a_runtime_that_runs_nothing_leaves_no_table(space: Space, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="nothing runs: signal 11"):
        run(space, FakeDevice(crashes=("",)))
    assert not (tmp_path / "tables").exists()


def test_a_measured_device(space: Space) -> None:
    device = FakeDevice("measured", noise=0.002)
    rules = Rules(warm_up_s=0.0, bootstrap=50)
    table = run(space, device, rules=rules, subnets=5)
    assert table.header.evidence == "measured"
    assert {r.status for r in table.rows.values()} == {"ok"}
    assert min(r.rounds for r in table.rows.values()) >= 7
    for row in table.rows.values():
        assert row.latency_low_ms <= row.latency_ms <= row.latency_high_ms


def test_a_full_disk_is_said(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "model.tflite")

    monkeypatch.setattr("edgeofa.backends.base.write_atomic", full)
    with pytest.raises(EdgeofaError, match=r"No space left.*\n.*run the same command again"):
        run(space, FakeDevice())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resolutions": (8, 10)}, r"resolutions \[10\]"),
        ({"subnets": 3}, "3 subnets"),
        ({"threads": 5}, "5 threads"),
        ({"precision": "int4"}, "no int4"),
    ],
)
def test_what_cannot_be_profiled_is_refused(
    space: Space, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        run(space, FakeDevice(), **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize("name", ["cifar_lite", "cifar_micro", "ofa_mbv3"])
def test_groups_hold_every_block_once_and_depend_on_no_other_resolution(name: str) -> None:
    space = load_space(name)
    groups = block_groups(space, space.resolutions)
    blocks = [b for g in groups for b in g]
    assert len(blocks) == len(set(blocks)) == len(space.all_blocks())
    assert max(map(len, groups)) <= MAX_ITEMS
    assert groups[: len(block_groups(space, space.resolutions[:2]))] == block_groups(
        space, space.resolutions[:2]
    )
    subnets = sample_subnets(space, space.resolutions, 30, 0)
    assert [s for g in subnet_groups(space, subnets) for s in g] == list(subnets)


def test_sampled_subnets() -> None:
    space = load_space("cifar_lite")
    subnets = sample_subnets(space, (64, 96, 128), 30, 0)
    assert len(set(subnets)) == 30
    assert {s.resolution for s in subnets} == {64, 96, 128}
    assert sample_subnets(space, (64, 96, 128), 12, 0) == subnets[:12]
    others = sample_subnets(space, (64, 96, 128), 30, 1, exclude=subnets)
    assert not set(others) & set(subnets)


def test_a_small_space_has_fewer_subnets(space: Space) -> None:
    one = dataclasses.replace(space.smallest())
    everything = sample_subnets(space, (8,), 1000, 0)
    assert len(everything) == len(set(everything)) == space.count() // 2
    assert one in everything


def test_spot_check_finds_what_moved(space: Space) -> None:
    table = run(space, FakeDevice())
    backend = LiteRtBackend()
    same = spot_check(table, RPI4, space, backend, blocks=8, device=FakeDevice())
    assert len(same) == 8
    assert not any(differs for _, differs in same)
    slower = FakeDevice()
    slower.drift = 0.01
    moved = spot_check(table, RPI4, space, backend, blocks=8, device=slower)
    assert any(differs for _, differs in moved)
    with pytest.raises(UsageError):
        spot_check(table, RPI4, space, backend, blocks=0, device=FakeDevice())
