"""What a device is: ``run(jobs) -> outcomes``. One file per way to reach a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

Evidence = Literal["measured", "modelled", "estimated"]


@dataclass(frozen=True)
class Job:
    """One artifact to run.

    ``cold``: before every timed invoke the weights are pushed out of the caches and the input is
    brought in, which is how a block meets the cache inside a network. ``input`` (a raw tensor of
    the artifact's input type; a fixed pseudo-random one when absent) and ``want_output`` serve
    checks of correctness. On a real device warming up goes on, after ``warmups`` invokes, until
    ``warmup_ms`` have passed and two batches agree, and sampling, after ``runs`` samples, until
    ``min_run_ms`` have passed; an emulated one does exactly ``warmups`` and ``runs`` invokes.

    ``timed=False``: only the output is wanted. ``watch``: compare every output with the first and
    tell how memory grew. An emulator does both without counting, and then gives no samples.
    """

    path: Path
    backend: str
    warmups: int = 1
    runs: int = 1
    min_run_ms: float = 0.0
    cold: bool = False
    input: NDArray[Any] | None = None
    want_output: bool = False
    warmup_ms: float = 0.0
    timed: bool = True
    watch: bool = False


@dataclass(frozen=True)
class Endurance:
    """Many invokes of one process: ``changed`` of ``compared`` outputs differ from the first.

    The growths are from a quarter of the runs to the end; ``heap_bytes`` is what the C library took
    from the system. None where the device does not tell.
    """

    compared: int
    changed: int
    resident_growth_bytes: int | None
    heap_growth_bytes: int | None
    heap_bytes: int | None


@dataclass(frozen=True)
class DeviceState:
    """What can change a time: read before and after every batch. None where unreadable."""

    clock_hz: float | None = None
    governor: str | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    #: counts up with every throttling since the device was started
    throttle_events: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class Latency:
    """One number with its evidence; ``low_ms`` and ``high_ms`` are its 95% interval."""

    ms: float
    low_ms: float
    high_ms: float
    evidence: Evidence


@dataclass(frozen=True)
class Measurement:
    """What one job gave.

    ``samples_ns`` are wall times on a real device; on an emulated one they are modelled times
    (never the emulator's wall time) and ``parts_ms`` says what they are made of.
    """

    job: Job
    samples_ns: tuple[float, ...]
    evidence: Evidence
    #: relative half-width of the model's own 95% error, 0 for a measured time
    model_error: float = 0.0
    output: NDArray[Any] | None = None
    before: DeviceState = DeviceState()
    after: DeviceState = DeviceState()
    parts_ms: dict[str, float] = field(default_factory=dict)
    #: all operators run in the accelerated path (LiteRT: one delegate)
    fully_accelerated: bool | None = None
    #: of the model's file, until it could be invoked; None where no clock is real
    load_ms: float | None = None
    #: high-water mark of the process's resident memory
    peak_rss_bytes: int | None = None
    #: a fixed piece of arithmetic, timed before and after the samples
    yardstick_ns: tuple[float, float] | None = None
    #: how often something else took the processor during the samples
    preemptions: int | None = None
    endurance: Endurance | None = None
    #: each layer's time, where the artifact tells its layers apart
    layers_ms: tuple[float, ...] = ()
    #: high-water marks of the working memory and the stack, where the device paints them
    arena_bytes: int | None = None
    stack_bytes: int | None = None
    #: of the whole firmware that it ran in: code, constants, working memory, stack
    image_flash_bytes: int | None = None
    image_ram_bytes: int | None = None
    #: of its flash, what this network takes beside its constants
    code_bytes: int | None = None


@dataclass(frozen=True)
class Failure:
    """A job that gave no measurement: the runtime refused it, crashed or hung.

    ``too_large``: the device's memory does not hold it, by as many bytes as ``reason`` says.
    """

    job: Job
    reason: str
    too_large: bool = False


Outcome = Measurement | Failure
Progress = Callable[[int], None]  # called with the number of jobs finished since the last call


class Device(ABC):
    """One instance that can be reached. Jobs of one call run in order, on ``threads`` threads.

    A job that crashes or hangs costs that job only. Raises ``DeviceError`` when the device itself
    cannot be used.
    """

    name: str
    evidence: Evidence

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What this device is (model, core, emulator and runtime versions with build digests)."""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else measures on this device meanwhile; waits, with a warning that says so.

        Only a device whose clock is real needs it.
        """
        yield

    @abstractmethod
    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        """Run every job; the outcomes are in the order of the jobs."""
