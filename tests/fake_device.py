"""A device for tests: time from the size of the artifact, and the faults of real ones."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeofa.devices.base import (
    Device,
    DeviceState,
    Evidence,
    Failure,
    Job,
    Measurement,
    Outcome,
    Progress,
)
from edgeofa.errors import DeviceError


@dataclass
class FakeDevice(Device):
    """``ms = 0.05 + bytes / 1e6`` and a disturbance of the kind that is asked for."""

    evidence: Evidence = "modelled"
    name: str = "fake"
    noise: float = 0.0
    #: every batch is slower than the last by this much, up to 200 of them
    drift: float = 0.0
    #: the batches (counted from 0) in which the device throttles
    throttled: frozenset[int] = frozenset()
    #: the batches during which the clock falls by a tenth
    slowed: frozenset[int] = frozenset()
    #: parts of file names that fail
    crashes: tuple[str, ...] = ()
    #: the device is gone after this many jobs
    dies_after: int | None = None
    seed: int = 0
    jobs: list[Job] = field(default_factory=list)
    calls: int = 0

    def identity(self) -> dict[str, str]:
        return {"model": "fake", "core": "none"}

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        self.calls += 1
        if progress is not None:
            progress(len(jobs))
        return [self._one(job, threads) for job in jobs]

    def _one(self, job: Job, threads: int) -> Outcome:
        number = len(self.jobs)
        if self.dies_after is not None and number >= self.dies_after:
            raise DeviceError("the device is gone", where=self.name)
        self.jobs.append(job)
        if any(c in job.path.name for c in self.crashes):
            return Failure(job, "signal 11")
        rng = random.Random(f"{self.seed}:{number}")
        ms = 0.05 + job.path.stat().st_size / 1e6 / threads
        ms *= 1 + self.drift * min(number, 200)
        samples = tuple(
            1e6 * ms * (1 + abs(rng.gauss(0, self.noise))) for _ in range(max(job.runs, 1))
        )
        hot = number in self.throttled
        state = DeviceState(clock_hz=1.5e9, governor="performance", throttled=hot)
        clock_hz = 1.35e9 if number in self.slowed else 1.51e9
        after = dataclasses.replace(state, clock_hz=clock_hz)
        error = 0.2 if self.evidence == "modelled" else 0.0
        return Measurement(job, samples, self.evidence, error, before=state, after=after)


class Clock:
    """A clock that moves a second each time that it is read; resting moves it too."""

    def __init__(self, step_s: float = 0.5):
        self.now = 0.0
        self.step = step_s
        self.rested = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.rested += seconds
