from __future__ import annotations

from pathlib import Path

import pytest
from fake_device import Clock, FakeDevice

from edgeofa.profiling.protocol import Estimate, Rules, measure

KEYS = [f"b{i:02}" for i in range(45)]


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Path]:
    out = {}
    for i, key in enumerate(KEYS):
        out[key] = tmp_path / f"{key}.bin"
        out[key].write_bytes(bytes(100_000 * (i + 1)))
    return out


def run(
    device: FakeDevice, artifacts: dict[str, Path], clock: Clock | None = None, **rules: float
) -> dict[str, Estimate]:
    clock = clock or Clock(0.01)
    return measure(
        device,
        artifacts,
        backend="litert",
        sentinel="b30",
        cold=True,
        rules=Rules(bootstrap=200, **rules),  # type: ignore[arg-type]
        clock=clock,
        rest=clock.rest,
    )


def test_modelled_device_runs_each_job_once_in_one_call(artifacts: dict[str, Path]) -> None:
    device = FakeDevice()
    found = run(device, artifacts)
    assert device.calls == 1
    assert [j.path.stem for j in device.jobs] == KEYS
    assert all(j.cold and j.runs == 1 for j in device.jobs)
    e = found["b09"]
    assert e.ms == pytest.approx(1.05)
    assert (e.low_ms, e.high_ms) == pytest.approx((0.84, 1.26))
    assert (e.samples, e.rounds, e.evidence, e.status) == (1, 1, "modelled", "ok")


def test_quiet_device_needs_the_fewest_rounds(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.001)
    found = run(device, artifacts)
    assert {e.rounds for e in found.values()} == {7}
    assert {e.samples for e in found.values()} == {35}
    assert {e.status for e in found.values()} == {"ok"}
    for i, key in enumerate(KEYS):
        assert found[key].ms == pytest.approx(0.05 + 0.1 * (i + 1), rel=0.005)
        assert found[key].low_ms <= found[key].ms <= found[key].high_ms


def test_sentinels_and_reshuffling(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.001)
    run(device, artifacts)
    names = [j.path.stem for j in device.jobs]
    start = next(i for i in range(len(names)) if len(set(names[i : i + 4])) == 4)
    per_round = len(KEYS) + 4
    rounds = [names[start + i * per_round :][:per_round] for i in range(7)]
    for names in rounds:
        assert sorted(set(names)) == KEYS
        assert names[0] == names[21] == names[42] == names[-1] == "b30"
    assert len({tuple(names) for names in rounds}) == 7


def test_warm_up_doubles_until_half_a_second(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.001)
    run(device, artifacts, Clock(0.05))
    warm = []
    for job in device.jobs:
        if job.path.stem != "b30":
            break
        warm.append(job.runs)
    assert warm[:5] == [1, 2, 4, 8, 16]
    assert len(warm) >= 5


def test_noisy_blocks_go_on_and_quiet_ones_stop(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.25)
    found = run(device, artifacts, sentinel_drift=10.0)
    rounds = [e.rounds for e in found.values()]
    assert max(rounds) > 7
    assert min(rounds) < max(rounds)
    for e in found.values():
        half = (e.high_ms - e.low_ms) / 2 / e.ms
        assert (e.status == "ok") == (half <= 0.02)
        assert e.status == "ok" or e.rounds == 21


def test_time_budget_ends_the_rounds(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.3)
    found = run(device, artifacts, Clock(1.0), budget_s=8.0, sentinel_drift=10.0)
    assert {e.status for e in found.values()} == {"unstable"}
    assert max(e.rounds for e in found.values()) < 7


def test_drifting_rounds_are_repeated_after_a_rest(artifacts: dict[str, Path]) -> None:
    clock = Clock(0.05)
    device = FakeDevice("measured", noise=0.0001, drift=0.002)
    found = run(device, artifacts, clock)
    assert clock.rested >= 2.0
    # 200 batches later the drift has stopped, and what was kept is the settled machine
    assert found["b09"].status in ("ok", "unstable")
    assert len(device.jobs) > 7 * (len(KEYS) + 4)
    steady = FakeDevice("measured", noise=0.0001)
    still = Clock(0.05)
    run(steady, artifacts, still)
    assert still.rested == 0


def test_batches_in_which_the_clock_changed_are_void(artifacts: dict[str, Path]) -> None:
    # the warm-up is over by the 20th batch, and a round of the rest is 49 of them
    device = FakeDevice("measured", noise=0.001, slowed=frozenset(range(100, 160)))
    found = run(device, artifacts)
    assert {e.status for e in found.values()} == {"ok"}
    assert {e.rounds for e in found.values()} == {7}
    slow = FakeDevice("measured", noise=0.001, slowed=frozenset(range(40, 100_000)))
    found = run(slow, artifacts)
    assert {e.status for e in found.values()} <= {"throttled", "failed"}
    assert all("clock" in e.reason for e in found.values() if e.status == "failed")


def test_throttled_batches_are_void(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.001, throttled=frozenset(range(100, 160)))
    found = run(device, artifacts)
    assert all(e.rounds >= 7 and e.status == "ok" for e in found.values())
    hot = FakeDevice("measured", noise=0.001, throttled=frozenset(range(40, 100_000)))
    found = run(hot, artifacts)
    assert {e.status for e in found.values()} <= {"throttled", "failed"}
    assert all("throttled" in e.reason for e in found.values() if e.status == "failed")


def test_a_crash_costs_only_its_block(artifacts: dict[str, Path]) -> None:
    device = FakeDevice("measured", noise=0.001, crashes=("b07",))
    found = run(device, artifacts)
    assert found["b07"].status == "failed"
    assert found["b07"].reason == "signal 11"
    assert found["b07"].ms == 0
    assert {e.status for k, e in found.items() if k != "b07"} == {"ok"}
    assert sum(j.path.stem == "b07" for j in device.jobs) == 2
    modelled = run(FakeDevice(crashes=("b07",)), artifacts)
    assert modelled["b07"].status == "failed"
    assert modelled["b08"].status == "ok"


def test_same_seed_same_order(artifacts: dict[str, Path]) -> None:
    devices = [FakeDevice("measured", noise=0.001) for _ in range(2)]
    results = [run(d, artifacts) for d in devices]
    assert results[0] == results[1]
    assert [j.path for j in devices[0].jobs] == [j.path for j in devices[1].jobs]
