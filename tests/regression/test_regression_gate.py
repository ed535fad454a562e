"""The gate: no alarm in A/A runs, an alarm for a slow-down, ``unstable`` for a moved machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from regression_world import Bench, make_deployment

from edgeofa.devices.base import DeviceState, Job, Measurement
from edgeofa.errors import DeviceError
from edgeofa.regression.timing import (
    FLOORS,
    Comparison,
    Gate,
    Timing,
    compare,
    gate_of,
    measure_latency,
    pool,
    settle,
    summarize,
)

GATE = Gate(0.06, 0.004)
OLD = Timing(1.0, 0.99, 1.01, "measured", 75, 0, (30.0, 30.3, 30.6), 33_000.0)


def batches(
    ms: float,
    *,
    machine: float = 1.0,
    seed: int = 0,
    noise: float = 0.005,
    count: int = 15,
    preempted: int = 0,
) -> list[Measurement]:
    """Batches of a machine that is ``machine`` times as slow, some of them interrupted."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        bad = number < preempted
        samples = ms * machine * (1 + np.abs(rng.normal(0, noise, 9))) * (2.5 if bad else 1)
        found.append(
            Measurement(
                job=Job(Path("x"), "litert"),
                samples_ns=tuple(1e6 * samples),
                evidence="measured",
                yardstick_ns=(33_000 * machine, 33_000 * machine * 1.3),
                preemptions=9 if bad else 0,
            )
        )
    return found


def judged(ms: float, **how: object) -> Comparison:
    return compare(summarize(batches(ms, **how)), OLD, GATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_a_a_runs_raise_no_alarm_and_a_slow_down_does(seed: int) -> None:
    assert judged(1.0, seed=seed, noise=0.02).change == "same"
    assert judged(1.15, seed=seed, noise=0.02).change == "slower"
    assert judged(0.85, seed=seed, noise=0.02).change == "faster"


def test_both_the_relative_and_the_absolute_change_must_be_exceeded() -> None:
    assert judged(1.05).change == "same"
    assert compare(summarize(batches(1.1)), OLD, Gate(0.06, 0.2)).change == "same"
    assert compare(summarize(batches(1.1)), OLD, Gate(0.12, 0.0)).change == "same"


def test_intervals_are_compared_not_points() -> None:
    wide = replace(OLD, low_ms=0.8, high_ms=1.2, yardsticks=(24.0, 30.3, 37.0))
    assert compare(summarize(batches(1.15)), wide, GATE).change == "same"
    assert compare(summarize(batches(1.3)), wide, GATE).change == "slower"


@pytest.mark.parametrize("machine", [0.8, 1.25, 1.6])
def test_a_slower_or_faster_machine_is_unstable_not_an_alarm(machine: float) -> None:
    found = judged(1.0, machine=machine)
    assert found.change == "unstable"
    assert "the machine itself is" in found.reason
    assert found.machine == pytest.approx(machine)


def test_a_slow_down_on_a_machine_that_is_slower_too_is_still_one() -> None:
    assert judged(1.3, machine=1.2).change == "slower"
    # and one that a faster machine hides is not passed silently
    assert judged(1.25, machine=0.8).change == "unstable"


def test_interrupted_batches_are_void() -> None:
    timing = summarize(batches(1.0, preempted=5))
    assert (timing.rounds, timing.void) == (10, 5)
    assert timing.ms == pytest.approx(1.0, rel=0.02)
    found = judged(1.0, preempted=10)
    assert found.change == "unstable"
    assert "10 of 15 batches are void" in found.reason
    # all of them: what there is is shown, and not believed
    assert judged(1.0, preempted=15).change == "unstable"


def test_a_throttled_batch_is_void() -> None:
    hot = [replace(b, after=DeviceState(throttled=True)) for b in batches(2.0, count=6)]
    assert summarize([*batches(1.0), *hot]).void == 6


def test_modelled_latencies_are_compared_as_points() -> None:
    old = Timing(2.0, 1.6, 2.4, "modelled", 1, 0)
    gate = Gate(FLOORS["modelled"], 0.0)
    for ratio, change in ((1.0, "same"), (1.019, "same"), (1.05, "slower"), (0.95, "faster")):
        new = replace(old, ms=2.0 * ratio)
        assert compare(new, old, gate).change == change


def test_the_gate_is_set_by_a_a_runs_and_never_below_its_floor() -> None:
    quiet = [replace(OLD, ms=1.0 + 0.001 * i) for i in range(5)]
    assert gate_of(quiet).relative == FLOORS["measured"]
    noisy = [replace(OLD, ms=ms) for ms in (1.0, 1.05, 0.98, 1.01, 1.0)]
    assert gate_of(noisy).relative == pytest.approx(0.10)
    pooled = pool([replace(OLD, ms=m, low_ms=m - 0.01, high_ms=m + 0.02) for m in (1.0, 1.1, 0.9)])
    assert (pooled.ms, pooled.low_ms, pooled.high_ms) == pytest.approx((1.0, 0.89, 1.12))


def test_an_unstable_measurement_is_repeated_and_a_slow_down_confirmed() -> None:
    rests: list[float] = []

    def script(*values: float) -> tuple[str, int]:
        left = list(values)
        _, found, times = settle(
            lambda: summarize(batches(left.pop(0))),
            lambda new: compare(new, OLD, GATE),
            rest=rests.append,
        )
        return found.change, times

    assert script(1.0) == ("same", 1)
    assert script(1.2, 1.2) == ("slower", 2)
    assert script(1.2, 1.0) == ("same", 2)
    assert script(0.8) == ("faster", 1)
    assert len(rests) == 2

    left = iter([1.6, 1.6, 1.6, 1.0])
    _, found, times = settle(
        lambda: summarize(batches(1.0, machine=next(left))),
        lambda new: compare(new, OLD, GATE),
        rest=rests.append,
    )
    assert (found.change, times) == ("same", 4)


def test_a_device_is_measured_as_it_is(tmp_path: Path) -> None:
    artifact = make_deployment(tmp_path / "d") / "model.tflite"
    measured = measure_latency(Bench(ms=2.0, ms_per_kb=0.0), artifact, "litert")
    assert measured.ms == pytest.approx(2.0, rel=0.01)
    assert measured.rounds == 15
    assert measured.yardsticks is not None
    modelled = measure_latency(Bench(evidence="modelled", ms_per_kb=0.0), artifact, "litert")
    assert (modelled.rounds, modelled.yardsticks, modelled.load_ms) == (1, None, None)
    assert modelled.low_ms == pytest.approx(0.8 * modelled.ms)
    with pytest.raises(DeviceError, match="refused"):
        measure_latency(Bench(refuses=True), artifact, "litert")
