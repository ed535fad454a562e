"""How a latency is measured so that a table can be trusted.

A measured device, one group of blocks (time runs to the right)::

    warm-up            round 1                     round 2 (reshuffled)        ... round 7 to 21
    S S2 S4 S8 ...     S b4 b1 b9 ... b7 S         S b2 b9 b4 ... b1 S             S b4 S
    |--- 0.5 s --|     |                 |                                         |
    two batches        one batch a block: 3 warm-ups, then    only blocks whose interval is
    within 2%          >= 5 invokes and >= 10 ms              still wider than 2% go on

``S`` is the sentinel, one block measured again after every 20: when it drifts by more than 3%
within a round, the machine changed under the measurement; it rests and the round is repeated, and
so it is when the device throttled.
The state of the device is read before and after each batch, and a batch in which it throttled or
changed its governor or its clock is void. A block's latency is the median of its rounds' medians,
its interval a bootstrap over rounds. A block is ``ok`` once the half-width is at most 2%,
``unstable`` when time runs out before, ``throttled`` when void batches left too few rounds.

A modelled device counts executed code and gives the same number every time: one round, one
invoke, no sentinel; the interval is the model's own error.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeofa.devices.base import Device, DeviceState, Evidence, Failure, Job, Measurement, Outcome
from edgeofa.tables.table import Status

THROTTLED = "the device throttled"
#: raise when a change here makes old rows incomparable; journals and tables carry it
PROTOCOL_VERSION = 1


@dataclass(frozen=True)
class Rules:
    """The protocol's constants, with the reason for each."""

    #: criterion and LiteRT's own benchmark warm up by time; 0.5 s is past governors' ramps
    warm_up_s: float = 0.5
    #: doubling stops once two batches agree this well ...
    warm_agreement: float = 0.02
    #: ... or after this long on a machine that never settles
    warm_limit_s: float = 5.0
    #: the first invoke of a process packs weights and faults pages in, the second may still
    block_warmups: int = 3
    #: an odd number, so that a batch's median is one of its samples
    batch_runs: int = 5
    #: 10 ms are thousands of ticks of any monotonic clock
    batch_ms: float = 10.0
    #: fewest rounds for which a bootstrapped interval of a median has 95% coverage at all
    min_rounds: int = 7
    #: three times as many, for noisy blocks
    max_rounds: int = 21
    #: a round without a sentinel is at most this many blocks long
    sentinel_every: int = 20
    #: frequency steps of real boards are larger, run-to-run noise of a quiet one smaller
    sentinel_drift: float = 0.03
    #: governors step by more (a Raspberry Pi 4 by 100 MHz, at least 6%), averaged readings of an
    #: unchanged clock vary by less
    clock_change: float = 0.05
    #: how often a drifting round is repeated before it counts as noise
    round_repeats: int = 2
    #: long enough for a governor's sampling and for a fan; short against a round
    cool_down_s: float = 2.0
    #: relative half-width of the 95% interval at which a block is done
    half_width: float = 0.02
    #: wall time for one group of blocks, warm-up included
    budget_s: float = 60.0
    bootstrap: int = 1000


RULES = Rules()


@dataclass(frozen=True)
class Estimate:
    """One artifact's latency. ``samples`` and ``rounds`` count what was kept. ``reason`` says why
    batches are void; for a failure the latencies are 0, and it says why."""

    ms: float
    low_ms: float
    high_ms: float
    samples: int
    rounds: int
    evidence: Evidence
    status: Status
    reason: str = ""
    #: machine code that the artifact takes on the device, where that is known
    code_bytes: int | None = None


@dataclass
class _Collected:
    """What the rounds of one artifact gave so far."""

    medians_ms: list[float] = field(default_factory=list)
    samples: int = 0
    code_bytes: int | None = None
    void: int = 0
    why_void: str = ""
    failures: list[str] = field(default_factory=list)


def measure(
    device: Device,
    artifacts: Mapping[str, Path],
    *,
    backend: str,
    sentinel: str,
    cold: bool,
    threads: int = 1,
    seed: int = 0,
    rules: Rules = RULES,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], None] = time.sleep,
) -> dict[str, Estimate]:
    """Measure ``artifacts`` (by key) on ``device``; ``sentinel`` is the key of one of them.

    ``cold``: weights out of the caches before every invoke, as blocks meet them in a network.
    A failing artifact costs only itself; ``DeviceError`` when the device cannot be used.
    """
    if device.evidence == "measured":
        session = _Session(device, artifacts, backend, sentinel, cold, threads, seed, rules)
        with device.exclusive():
            return session.run(clock, rest)
    jobs = [Job(artifacts[k], backend, cold=cold) for k in sorted(artifacts)]
    outcomes = device.run(jobs, threads=threads)
    return {k: _modelled(o) for k, o in zip(sorted(artifacts), outcomes, strict=True)}


def _modelled(outcome: Outcome) -> Estimate:
    if isinstance(outcome, Failure):
        return _failed("modelled", outcome.reason)
    ms = float(np.median(outcome.samples_ns)) / 1e6
    low, high = ms * (1 - outcome.model_error), ms * (1 + outcome.model_error)
    samples, code_bytes = len(outcome.samples_ns), outcome.code_bytes
    return Estimate(ms, low, high, samples, 1, outcome.evidence, "ok", code_bytes=code_bytes)


def _failed(evidence: Evidence, reason: str) -> Estimate:
    return Estimate(0.0, 0.0, 0.0, 0, 0, evidence, "failed", reason)


class _Session:
    """The rounds of one group of artifacts on a measured device."""

    def __init__(
        self,
        device: Device,
        artifacts: Mapping[str, Path],
        backend: str,
        sentinel: str,
        cold: bool,
        threads: int,
        seed: int,
        rules: Rules,
    ) -> None:
        self._device = device
        self._artifacts = artifacts
        self._backend = backend
        self._sentinel = sentinel
        self._cold = cold
        self._threads = threads
        self._seed = seed
        self._rules = rules
        self._found = {k: _Collected() for k in artifacts}

    def run(self, clock: Callable[[], float], rest: Callable[[float], None]) -> dict[str, Estimate]:
        rules = self._rules
        deadline = clock() + rules.budget_s
        self._warm_up(clock)
        pending = sorted(self._artifacts)
        for number in range(rules.max_rounds):
            order = list(pending)
            random.Random(f"{self._seed}:{self._sentinel}:{number}").shuffle(order)
            for attempt in range(rules.round_repeats + 1):
                outcomes = self._round(order)
                last = attempt == rules.round_repeats or clock() > deadline
                calm = self._drift(outcomes) <= rules.sentinel_drift
                if last or (calm and not self._throttled(outcomes)):
                    break
                rest(rules.cool_down_s)
            for key, outcome, is_sentinel in outcomes:
                if not is_sentinel:
                    self._collect(key, outcome)
            pending = [k for k in pending if not self._done(k)]
            if not pending or clock() > deadline:
                break
        return {k: self._estimate(k) for k in sorted(self._artifacts)}

    def _job(self, key: str, runs: int) -> Job:
        rules = self._rules
        return Job(
            self._artifacts[key],
            self._backend,
            warmups=rules.block_warmups,
            runs=runs,
            min_run_ms=rules.batch_ms,
            cold=self._cold,
        )

    def _warm_up(self, clock: Callable[[], float]) -> None:
        """Run the sentinel in doubling batches until the machine is at its working point."""
        rules, start, runs = self._rules, clock(), 1
        previous = 0.0
        while clock() - start < rules.warm_limit_s:
            (outcome,) = self._device.run([self._job(self._sentinel, runs)], threads=self._threads)
            if isinstance(outcome, Failure):
                return
            median = float(np.median(outcome.samples_ns))
            settled = abs(median - previous) <= rules.warm_agreement * median
            if settled and clock() - start >= rules.warm_up_s:
                return
            previous, runs = median, min(2 * runs, 1024)

    def _round(self, order: Sequence[str]) -> list[tuple[str, Outcome, bool]]:
        """(key, outcome, whether it is a sentinel) in the order of measuring."""
        keys = list(_with_sentinels(order, self._sentinel, self._rules.sentinel_every))
        jobs = [self._job(k, self._rules.batch_runs) for k, _ in keys]
        outcomes = self._device.run(jobs, threads=self._threads)
        return [(k, o, s) for (k, s), o in zip(keys, outcomes, strict=True)]

    def _drift(self, outcomes: Sequence[tuple[str, Outcome, bool]]) -> float:
        """Largest relative spread of the sentinel's medians in one round."""
        medians = [
            float(np.median(o.samples_ns))
            for _, o, is_sentinel in outcomes
            if is_sentinel and isinstance(o, Measurement)
        ]
        return max(medians) / min(medians) - 1 if medians else 0.0

    def _throttled(self, outcomes: Sequence[tuple[str, Outcome, bool]]) -> bool:
        """Whether any batch of a round is void because the device was too hot."""
        measured = [o for _, o, _ in outcomes if isinstance(o, Measurement)]
        change = self._rules.clock_change
        return any(void_reason(o.before, o.after, change) == THROTTLED for o in measured)

    def _collect(self, key: str, outcome: Outcome) -> None:
        found = self._found[key]
        if isinstance(outcome, Failure):
            found.failures.append(outcome.reason)
        elif why := void_reason(outcome.before, outcome.after, self._rules.clock_change):
            found.void += 1
            found.why_void = why
        else:
            found.medians_ms.append(float(np.median(outcome.samples_ns)) / 1e6)
            found.samples += len(outcome.samples_ns)
            found.code_bytes = outcome.code_bytes

    def _done(self, key: str) -> bool:
        found, rules = self._found[key], self._rules
        if len(found.failures) >= 2:  # once may be the machine's fault, twice is the artifact's
            return True
        if len(found.medians_ms) < rules.min_rounds:
            return False
        low, middle, high = self._interval(key)
        return (high - low) / 2 <= rules.half_width * middle

    def _interval(self, key: str) -> tuple[float, float, float]:
        seed = (self._seed, zlib.crc32(key.encode()))
        return bootstrap_median(self._found[key].medians_ms, seed, self._rules.bootstrap)

    def _estimate(self, key: str) -> Estimate:
        found = self._found[key]
        if not found.medians_ms or len(found.failures) >= 2:
            void = f"no batch counts: {found.why_void}"
            reason = found.failures[-1] if found.failures else void
            return _failed(self._device.evidence, reason)
        low, middle, high = self._interval(key)
        status: Status = "ok" if self._done(key) else "unstable"
        if status == "unstable" and found.void:
            status = "throttled"
        rounds = len(found.medians_ms)
        reason = f"{found.void} batches void: {found.why_void}" if found.void else ""
        evidence = self._device.evidence
        code_bytes = found.code_bytes
        return Estimate(
            middle, low, high, found.samples, rounds, evidence, status, reason, code_bytes
        )


def bootstrap_median(
    values: Sequence[float], seed: Sequence[int], draws: int = RULES.bootstrap
) -> tuple[float, float, float]:
    """Median of the rounds with its 95% interval: (low, median, high)."""
    medians = np.asarray(values)
    rng = np.random.default_rng(list(seed))
    drawn = rng.integers(0, len(medians), (draws, len(medians)))
    low, high = np.quantile(np.median(medians[drawn], axis=1), (0.025, 0.975))
    middle = float(np.median(medians))
    return min(float(low), middle), middle, max(float(high), middle)


def _with_sentinels(order: Sequence[str], sentinel: str, every: int) -> Iterator[tuple[str, bool]]:
    """``order`` with the sentinel first, after every ``every`` blocks, and last."""
    for i, key in enumerate(order):
        if i % every == 0:
            yield sentinel, True
        yield key, False
    yield sentinel, True


def is_steady(before: DeviceState, after: DeviceState, clock_change: float) -> bool:
    """Whether a batch ran in one state; what the device does not tell is taken as steady."""
    return not void_reason(before, after, clock_change)


def void_reason(before: DeviceState, after: DeviceState, clock_change: float) -> str:
    """Why a batch did not run in one state; empty where it did."""
    events = before.throttle_events, after.throttle_events
    # it may have begun and ended within the batch
    if before.throttled or after.throttled or (None not in events and events[0] != events[1]):
        return THROTTLED
    if before.governor != after.governor:
        return f"the governor changed from {before.governor} to {after.governor}"
    if before.clock_hz is None or after.clock_hz is None:
        return ""
    if abs(after.clock_hz - before.clock_hz) > clock_change * before.clock_hz:
        return f"the clock changed from {before.clock_hz / 1e6:g} to {after.clock_hz / 1e6:g} MHz"
    return ""
