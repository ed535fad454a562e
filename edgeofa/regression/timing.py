"""A latency that can be compared with one of another day, and the gate that judges the change.

On a clock, a network's latency moves with everything else that the machine does. Three things
keep that apart from the network's own:

- batches that lost the processor in the middle are void (the runner counts it);
- beside every batch the runner times a *yardstick*, a fixed piece of arithmetic that no runtime
  can change: the machine's speed at that moment. A slow-down must show in the latency *and* in
  the latency over the yardstick, else it is the machine's and the verdict ``unstable``;
- the gate comes from A/A runs of one build (``edgeofa baseline accept``), and intervals are
  compared, not points.

A modelled latency is the same number every time, so its gate is the floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgeofa.devices.base import Device, DeviceState, Evidence, Failure, Job, Measurement
from edgeofa.errors import DeviceError
from edgeofa.profiling.protocol import RULES, bootstrap_median, is_steady

#: rounds of one measurement: a bootstrapped median of 15 has a usable interval with some void
ROUNDS = 15
#: a smaller change is never a regression. Measured: twice what A/A runs on quiet machines differ
#: by. Modelled: recompiling the runner moves counts by less than 1%; 5% must be caught
FLOORS: dict[Evidence, float] = {"measured": 0.06, "modelled": 0.02, "estimated": 0.02}
#: the resolution of a batch: scheduler ticks and timer reads
ABSOLUTE_MS: dict[Evidence, float] = {"measured": 0.004, "modelled": 0.0, "estimated": 0.0}
#: a machine whose yardstick moved by more cannot be compared with its own past
MACHINE_DRIFT = 0.10
#: wider intervals prove nothing
HALF_WIDTH = 0.05
#: in a batch at most this share of the samples may have been interrupted: its median is then clean
_PREEMPTED = 0.25
_ATTEMPTS = 4
_REST_S = 2.0

Change = Literal["same", "slower", "faster", "unstable"]


@dataclass(frozen=True)
class Timing:
    """One latency. ``yardsticks`` is the latency over the yardstick's time, with its interval
    (None where the device has no yardstick); ``yardstick_ns`` the yardstick itself."""

    ms: float
    low_ms: float
    high_ms: float
    evidence: Evidence
    rounds: int
    void: int
    yardsticks: tuple[float, float, float] | None = None
    yardstick_ns: float | None = None
    load_ms: float | None = None
    peak_rss_bytes: int | None = None
    #: of a microcontroller: working memory and stack that lost their paint
    arena_bytes: int | None = None
    stack_bytes: int | None = None
    state: DeviceState = field(default_factory=DeviceState)

    @property
    def half_width(self) -> float:
        return (self.high_ms - self.low_ms) / 2 / self.ms

    def __str__(self) -> str:
        return f"{self.ms:.3f} ms {self.evidence} ({self.low_ms:.3f} to {self.high_ms:.3f})"


@dataclass(frozen=True)
class Gate:
    """Both must be exceeded: ``relative`` (0.06 is 6%) and ``absolute_ms``."""

    relative: float
    absolute_ms: float


@dataclass(frozen=True)
class Comparison:
    """``ratio`` is new over old; ``machine`` the same of the yardstick, None without one."""

    change: Change
    ratio: float
    machine: float | None
    reason: str


def measure_latency(
    device: Device,
    path: Path,
    backend: str,
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Timing:
    """One latency of an artifact. ``DeviceError`` when the artifact does not run."""
    if device.evidence != "measured":
        (outcome,) = device.run([Job(path, backend, warmups=2)], threads=threads)
        found = _whole(outcome, device)
        ms = float(np.median(found.samples_ns)) / 1e6
        spread = found.model_error
        return Timing(
            ms,
            ms * (1 - spread),
            ms * (1 + spread),
            found.evidence,
            1,
            0,
            arena_bytes=found.arena_bytes,
            stack_bytes=found.stack_bytes,
        )
    jobs = [
        Job(
            path,
            backend,
            warmups=RULES.block_warmups,
            runs=RULES.batch_runs,
            min_run_ms=RULES.batch_ms,
            # the first batch also brings the machine to its working point
            warmup_ms=1e3 * RULES.warm_up_s if number == 0 else 0.0,
        )
        for number in range(rounds)
    ]
    with device.exclusive():
        outcomes = [_whole(o, device) for o in device.run(jobs, threads=threads)]
    return summarize(outcomes, seed=seed)


def _whole(outcome: object, device: Device) -> Measurement:
    if isinstance(outcome, Failure):
        raise DeviceError(f"the artifact does not run: {outcome.reason}", where=device.name)
    assert isinstance(outcome, Measurement)  # noqa: S101  (an outcome is one of the two)
    return outcome


def summarize(outcomes: Sequence[Measurement], *, seed: int = 0) -> Timing:
    """The batches of one measurement as one latency; void ones are left out. Where all are void
    the latency is theirs, of 0 rounds, and nobody believes it."""
    clean = [o for o in outcomes if _is_clean(o)]
    kept = clean or list(outcomes)
    medians = [float(np.median(o.samples_ns)) / 1e6 for o in kept]
    low, ms, high = bootstrap_median(medians, (seed,))
    yardsticks = None
    yardstick_ns = None
    # the fastest of both: an interrupt in one of them is no property of the machine
    sticks = [min(o.yardstick_ns) for o in kept if o.yardstick_ns is not None]
    if len(sticks) == len(kept) and min(sticks) > 0:
        yardsticks = bootstrap_median(
            [1e6 * m / s for m, s in zip(medians, sticks, strict=True)], (seed,)
        )
        yardstick_ns = float(np.median(sticks))
    loads = [o.load_ms for o in kept if o.load_ms is not None]
    peaks = [o.peak_rss_bytes for o in kept if o.peak_rss_bytes is not None]
    return Timing(
        ms=ms,
        low_ms=low,
        high_ms=high,
        evidence=kept[0].evidence,
        rounds=len(clean),
        void=len(outcomes) - len(clean),
        yardsticks=yardsticks,
        yardstick_ns=yardstick_ns,
        # of a busy machine: whoever was interrupted while loading says nothing about the artifact
        load_ms=min(loads) if loads else None,
        peak_rss_bytes=int(np.median(peaks)) if peaks else None,
        arena_bytes=kept[-1].arena_bytes,
        stack_bytes=kept[-1].stack_bytes,
        state=kept[-1].after,
    )


def _is_clean(outcome: Measurement) -> bool:
    limit = _PREEMPTED * len(outcome.samples_ns)
    if outcome.preemptions is not None and outcome.preemptions > limit:
        return False
    return is_steady(outcome.before, outcome.after, RULES.clock_change)


def compare(new: Timing, old: Timing, gate: Gate) -> Comparison:
    """Did the latency change beyond the gate, or the machine, or can nobody tell?"""
    ratio = new.ms / old.ms
    if new.evidence != "measured":
        # the model's error is common to both: points are compared
        return Comparison(_direction(ratio, new.ms - old.ms, gate), ratio, None, "")
    machine = None
    if new.yardstick_ns is not None and old.yardstick_ns:
        machine = new.yardstick_ns / old.yardstick_ns
    if new.rounds < RULES.min_rounds:
        return Comparison(
            "unstable", ratio, machine, f"{new.void} of {new.void + new.rounds} batches are void"
        )
    if new.half_width > HALF_WIDTH:
        return Comparison(
            "unstable", ratio, machine, f"the interval is {100 * new.half_width:.0f}% wide"
        )
    change = _direction(ratio, new.ms - old.ms, gate)
    apart = new.low_ms > old.high_ms or new.high_ms < old.low_ms
    raw: Change = change if apart else "same"
    if new.yardsticks is None or old.yardsticks is None:
        return Comparison(raw, ratio, machine, "")
    stick = new.yardsticks[1] / old.yardsticks[1]
    change = _direction(stick, new.ms - old.ms * (machine or 1.0), gate)
    apart = new.yardsticks[0] > old.yardsticks[2] or new.yardsticks[2] < old.yardsticks[0]
    normalised: Change = change if apart else "same"
    if raw == normalised:
        return Comparison(raw, ratio, machine, "")
    if machine is not None and abs(machine - 1) > MACHINE_DRIFT:
        return Comparison(
            "unstable",
            ratio,
            machine,
            f"the machine itself is {100 * abs(machine - 1):.0f}% "
            f"{'slower' if machine > 1 else 'faster'} than at the baseline",
        )
    # one of the two is just beyond its gate and the other just within
    return Comparison("same", ratio, machine, "")


def _direction(ratio: float, difference_ms: float, gate: Gate) -> Change:
    if abs(difference_ms) <= gate.absolute_ms or abs(ratio - 1) <= gate.relative:
        return "same"
    return "slower" if ratio > 1 else "faster"


def comparison_text(new: Timing, old: Timing, gate: Gate, found: Comparison, times: int) -> str:
    """One line for people; ``times`` it was measured."""
    text = (
        f"{new}, baseline {old.ms:.3f} ms: {100 * (found.ratio - 1):+.1f}%, "
        f"gate {100 * gate.relative:.1f}%"
    )
    if found.change == "faster":
        text += ", faster: accept it as the new baseline"
    if found.reason:
        text += f"; {found.reason}"
    if found.machine is not None:
        text += f"; yardstick {100 * (found.machine - 1):+.1f}%"
    if times > 1:
        text += f"; measured {times} times"
    return text


def settle(
    measure: Callable[[], Timing],
    judge: Callable[[Timing], Comparison],
    *,
    rest: Callable[[float], None] = time.sleep,
) -> tuple[Timing, Comparison, int]:
    """Measure until the verdict is no longer ``unstable``, or a slow-down was seen twice.

    Returns the last timing, its comparison, and how often it was measured.
    """
    slower = 0
    for attempt in range(1, _ATTEMPTS + 1):
        timing = measure()
        found = judge(timing)
        slower += found.change == "slower"
        decided = found.change in ("same", "faster") or timing.evidence != "measured"
        if decided or slower == 2 or attempt == _ATTEMPTS:
            break
        rest(_REST_S)
    if found.change == "slower" and slower < 2 and timing.evidence == "measured":
        found = Comparison("unstable", found.ratio, found.machine, "it was slower once only")
    return timing, found, attempt


def gate_of(repeats: Sequence[Timing]) -> Gate:
    """The gate from A/A runs: twice their largest deviation, never below the floor."""
    evidence = repeats[0].evidence
    middle = float(np.median([t.ms for t in repeats]))
    spread = max(abs(t.ms / middle - 1) for t in repeats)
    return Gate(max(FLOORS[evidence], 2 * spread), ABSOLUTE_MS[evidence])


def pool(repeats: Sequence[Timing]) -> Timing:
    """A/A runs as one timing: the median, with an interval that spans them all."""
    middle = sorted(repeats, key=lambda t: t.ms)[len(repeats) // 2]
    if middle.evidence != "measured":
        return middle
    sticks = [t.yardsticks for t in repeats if t.yardsticks is not None]
    return Timing(
        ms=middle.ms,
        low_ms=min(t.low_ms for t in repeats),
        high_ms=max(t.high_ms for t in repeats),
        evidence=middle.evidence,
        rounds=sum(t.rounds for t in repeats),
        void=sum(t.void for t in repeats),
        yardsticks=(
            min(s[0] for s in sticks),
            sorted(s[1] for s in sticks)[len(sticks) // 2],
            max(s[2] for s in sticks),
        )
        if len(sticks) == len(repeats)
        else None,
        yardstick_ns=middle.yardstick_ns,
        load_ms=middle.load_ms,
        peak_rss_bytes=middle.peak_rss_bytes,
        arena_bytes=middle.arena_bytes,
        stack_bytes=middle.stack_bytes,
        state=middle.state,
    )
