"""Many runs in a row: does the output change, does memory grow, does the time drift?"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.devices.base import Device, Endurance, Failure, Job, Measurement
from edgeofa.regression.record import Check

#: runs by which the emulator's speed is found
_TRIAL = 16
#: growth from a quarter of the runs on; a page now and then is the C library's own bookkeeping
LEAK_BYTES = 256 << 10
#: of the fastest tenth of the last third of the runs over the first third
DRIFT = 0.15
#: real time that a device may spend on it
_DEVICE_S = 100.0


@dataclass(frozen=True)
class Enduring:
    """The check, and the C library's high-water mark (None where the device does not tell)."""

    check: Check
    heap_bytes: int | None


def check_endurance(
    device: Device,
    path: Path,
    backend: str,
    *,
    runs: int,
    latency_ms: float,
    emulator_s: float,
    threads: int,
) -> Enduring:
    """``runs`` invokes in one process; fewer where they would take too long, which is then said.

    Args:
        latency_ms: of one run, by which a real device's time is planned.
        emulator_s: wall time for an emulator, which takes some 50 times as long as the device.
    """
    real = device.evidence == "measured"
    planned = runs
    trial: Measurement | str | None = None
    if real:
        planned = min(runs, max(_TRIAL, int(1e3 * _DEVICE_S / latency_ms)))
    else:
        begin = time.monotonic()
        trial = _run(device, path, backend, min(_TRIAL, runs), threads)
        seconds = time.monotonic() - begin
        if isinstance(trial, str):
            return Enduring(_failed(trial), None)
        if trial.endurance is None:
            return Enduring(_unwatched(device), None)
        planned = min(runs, max(_TRIAL, int(_TRIAL * emulator_s / seconds)))
    # where there is no time for more, the trial is all
    enough = trial is not None and planned <= _TRIAL
    found = trial if enough and trial else _run(device, path, backend, planned, threads)
    drift = 0.0
    if not isinstance(found, str) and real:
        drift = _drift(found)
        if abs(drift) > DRIFT:  # once may be the machine's other work
            again = _run(device, path, backend, planned, threads)
            if not isinstance(again, str):
                drift = min(drift, _drift(again), key=abs)
                found = again
    if isinstance(found, str):
        return Enduring(_failed(found), None)
    if found.endurance is None:
        return Enduring(_unwatched(device), None)
    return _judge(found, runs, drift, real)


def _run(device: Device, path: Path, backend: str, runs: int, threads: int) -> Measurement | str:
    job = Job(path, backend, runs=runs, watch=True)
    (outcome,) = device.run([job], threads=threads)
    return outcome.reason if isinstance(outcome, Failure) else outcome


def _unwatched(device: Device) -> Check:
    return Check(
        name="endurance", status="skipped", summary=f"{device.name} does not watch runs in a row"
    )


def _failed(reason: str) -> Check:
    return Check(name="endurance", status="failed", summary=f"it does not run through: {reason}")


def _drift(found: Measurement) -> float:
    """How much slower the end is than the beginning, by their fastest tenths."""
    third = len(found.samples_ns) // 3
    if third < 10:
        return 0.0
    first, last = (
        float(np.quantile(part, 0.1))
        for part in (found.samples_ns[:third], found.samples_ns[-third:])
    )
    return last / first - 1 if first > 0 else 0.0


def _judge(found: Measurement, wanted: int, drift: float, real: bool) -> Enduring:
    seen = found.endurance
    assert seen is not None  # noqa: S101  (checked by the caller)
    problems = []
    if seen.changed:
        problems.append(f"{seen.changed} outputs differ from the first one")
    leak = _leak(seen)
    if leak > LEAK_BYTES:
        problems.append(f"memory grew by {leak / 1024:.0f} KB")
    if real and drift > DRIFT:
        problems.append(f"the time drifted by {100 * drift:.0f}%")
    of = f"{seen.compared} runs in a row"
    if seen.compared < wanted:
        of += f" (of {wanted}: {'the emulator' if not real else 'the network'} is too slow for all)"
    summary = f"{of}: "
    if problems:
        summary += ", ".join(problems)
    else:
        summary += "the same output, no leak" + (
            f", drift {100 * drift:+.1f}%" if real else "; time is not known on an emulator"
        )
    check = Check(
        name="endurance",
        status="failed" if problems else "passed",
        summary=summary,
        value=float(seen.compared),
        unit="runs",
    )
    return Enduring(check, seen.heap_bytes)


def _leak(seen: Endurance) -> int:
    """What the C library says is in use is exact; resident memory moves by itself."""
    if seen.heap_growth_bytes is not None:
        return max(seen.heap_growth_bytes, (seen.resident_growth_bytes or 0) // 4)
    return seen.resident_growth_bytes or 0


def limit_bytes(baseline: int) -> int:
    """The most that a high-water mark may be."""
    return baseline + max(math.ceil(0.1 * baseline), LEAK_BYTES)
