"""A Linux board that need not be there: the shipped aarch64 runtime under qemu-aarch64.

The same runner as on a real board executes the same library as on a real board; a plugin counts
what it executed, and the latency is modelled from the counts. The emulator's own time is never a
latency. Each job is a child process of its own in the emulated runner, so its counts do not
depend on which other jobs share the process, and jobs are spread over processes freely.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from edgeofa.devices.base import Device, Failure, Job, Measurement, Outcome, Progress
from edgeofa.devices.native import build, runner_path, source_digest
from edgeofa.devices.runner import endurance
from edgeofa.emulation.mca import BlockPrices
from edgeofa.emulation.model import core_model, latency, region_cost
from edgeofa.emulation.operators import count_operators
from edgeofa.emulation.process import JobEnd, ProcessGroup, emulate
from edgeofa.emulation.qemu import emulator_command, profile_command, require_qemu
from edgeofa.emulation.runtimes import RUNTIMES, Runtime, is_ready, runtime_of
from edgeofa.emulation.sysroot import sysroot
from edgeofa.emulation.trace import Region, parse_trace
from edgeofa.errors import DeviceError, EdgeofaError, SetupError, UsageError
from edgeofa.paths import cache_dir
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder

#: of the emulator, which does some 200 million instructions per second
_JOB_TIMEOUT_S = 300.0
#: jobs per process: starting one costs about as much as a small block
_CHUNK = 16
#: invokes before a counted warm one: the first packs weights, the second fills the caches
_WARMUPS = 2


T = TypeVar("T")


@dataclass(frozen=True)
class Profile:
    """What one invoke executed, how many operators the artifact has, and what it computed."""

    region: Region
    operators: int
    output: NDArray[Any] | None
    fully_accelerated: bool | None


#: jobs of one process and how each ended (None: lost twice), to one result each
_Judge = Callable[[Sequence[Job], Sequence[JobEnd | None]], list[T]]


class QemuUserDevice(Device):
    """The emulated device of a target with ``device = "qemu-user"``.

    ``kernels`` is ``delegate`` (XNNPACK, what a deployment uses) or ``builtin``; ``job_timeout_s``
    is the emulator's time for one job. Raises ``SetupError`` when something is missing that
    ``edgeofa setup`` brings.
    """

    evidence = "modelled"

    def __init__(
        self, target: Target, *, kernels: str = "delegate", job_timeout_s: float = _JOB_TIMEOUT_S
    ):
        if target.core is None or target.emulation is None:
            raise UsageError("the target cannot be emulated", where=f"target {target.name}")
        self.name = f"{target.name} (emulated)"
        self._target = target
        self._core = target.core
        self._kernels = kernels
        self._timeout_s = job_timeout_s
        self._model = core_model(target.emulation.model)
        self._qemu = require_qemu()
        root = sysroot(target.core, target.emulation)
        plugin = build("edgeofa-profile", "host")
        self._command = profile_command(self._qemu, target.emulation.cpu, target.core, root, plugin)
        self._plain_command = emulator_command(self._qemu, target.emulation.cpu, root)
        self._runner = runner_path("aarch64")
        prices = cache_dir() / "prices" / "blocks.sqlite"
        self._prices = BlockPrices(target.emulation.mca_cpu, prices)
        self._runtimes: dict[str, Runtime] = {}

    def identity(self) -> dict[str, str]:
        clock = f"{self._core.clock_hz / 1e9:g} GHz"
        runtimes = {
            runtime.backend: f"{runtime.version} sha256:{runtime.library_sha256[:16]}"
            for runtime in RUNTIMES
        }
        return {
            "model": self._target.description,
            "core": f"{self._core.microarchitecture} at {clock}, modelled",
            "emulator": f"qemu-aarch64 {self._qemu.version}",
            "native_code": source_digest(),
            "latency_model": self._model.identity,
            "block_prices": self._prices.identity,
            "kernels": self._kernels,
            **runtimes,
        }

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if not 1 <= threads <= self._core.cores:
            cores = f"1 to {self._core.cores}"
            raise UsageError(f"{threads} threads; {cores} are possible", where=self.name)

        def judge(part: Sequence[Job], ends: Sequence[JobEnd | None]) -> list[Outcome]:
            profiles = [_profile(job, end) for job, end in zip(part, ends, strict=True)]
            prices = self._prices.cycles(
                block.code for p in profiles if isinstance(p, Profile) for block in p.region.blocks
            )
            return [
                self._outcome(j, p, prices, threads) for j, p in zip(part, profiles, strict=True)
            ]

        counted = [job for job in jobs if job.timed and not job.watch]
        others = [job for job in jobs if not job.timed or job.watch]
        found = iter(self._spread(counted, judge, progress))
        uncounted = iter(self._spread(others, _uncounted, progress, counted=False))
        return [next(found if job.timed and not job.watch else uncounted) for job in jobs]

    def profile(
        self, jobs: Sequence[Job], *, progress: Progress | None = None
    ) -> list[Profile | str]:
        """What each job executed, before any model; the reason where it failed."""

        def judge(part: Sequence[Job], ends: Sequence[JobEnd | None]) -> list[Profile | str]:
            return [_profile(job, end) for job, end in zip(part, ends, strict=True)]

        return self._spread(jobs, judge, progress)

    def prices(self, codes: Iterable[str]) -> dict[str, float]:
        """Cycles per execution of basic blocks on the target's core (see mca.py)."""
        return self._prices.cycles(codes)

    @property
    def block_prices(self) -> BlockPrices:
        """Where the prices come from: it knows a block's listing too."""
        return self._prices

    def _spread(
        self,
        jobs: Sequence[Job],
        judge: _Judge[T],
        progress: Progress | None,
        *,
        counted: bool = True,
    ) -> list[T]:
        """Run the jobs over several processes; ``judge`` is called for each of them, in any
        order. Without ``counted`` the emulator runs several times as fast and leaves no trace."""
        chunks = self._chunks(jobs)
        results: dict[int, T] = {}
        with (
            work_folder("emulated") as folder,
            ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool,
            ProcessGroup() as group,
        ):
            futures = [
                pool.submit(self._chunk, jobs, chunk, folder / f"{n:04}", judge, group, counted)
                for n, chunk in enumerate(chunks)
            ]
            try:
                for future in as_completed(futures):
                    done = future.result()
                    results |= done
                    if progress is not None:
                        progress(len(done))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [results[number] for number in range(len(jobs))]

    def _chunks(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Numbers of jobs for one process each: one back end, dealt out evenly."""
        workers = len(os.sched_getaffinity(0))
        chunks: list[list[int]] = []
        for backend in dict.fromkeys(job.backend for job in jobs):
            self._runtime(backend)
            numbers = [n for n, job in enumerate(jobs) if job.backend == backend]
            size = min(_CHUNK, -(-len(numbers) // workers))
            chunks += [numbers[i : i + size] for i in range(0, len(numbers), size)]
        return chunks

    def _runtime(self, backend: str) -> Runtime:
        """The runtime of a back end, its library checked once per device."""
        if backend not in self._runtimes:
            runtime = runtime_of(backend)
            if runtime is None:
                raise DeviceError(f"no aarch64 runtime for the back end {backend}", where=self.name)
            if not is_ready(runtime):
                raise SetupError(
                    f"the aarch64 library of {runtime.requirement} is not prepared",
                    where=self.name,
                    hint=f"edgeofa setup --target {self._target.name} --backend {backend}",
                )
            self._runtimes[backend] = runtime
        return self._runtimes[backend]

    def _chunk(
        self,
        jobs: Sequence[Job],
        numbers: Sequence[int],
        folder: Path,
        judge: _Judge[T],
        group: ProcessGroup,
        counted: bool,
    ) -> dict[int, T]:
        """Run jobs in one process; one that was lost or killed gets a second one to itself."""
        chunk = [jobs[n] for n in numbers]
        ends = self._emulate(chunk, folder / "all", group, counted)
        for place, job in enumerate(chunk):
            if place not in ends or ends[place].was_killed:
                again = self._emulate([job], folder / f"{place:04}", group, counted)
                if 0 in again:
                    ends[place] = again[0]
        return dict(
            zip(numbers, judge(chunk, [ends.get(n) for n in range(len(chunk))]), strict=True)
        )

    def _emulate(
        self, jobs: Sequence[Job], folder: Path, group: ProcessGroup, counted: bool
    ) -> dict[int, JobEnd]:
        emulated = [dataclasses.replace(job, warmup_ms=0.0, min_run_ms=0.0) for job in jobs]
        if counted:
            # counts do not vary, so one counted invoke says all; a real device takes job.runs
            emulated = [
                dataclasses.replace(
                    job, warmups=max(job.warmups, 1 if job.cold else _WARMUPS), runs=1
                )
                for job in emulated
            ]
        runtime = self._runtime(jobs[0].backend)
        return emulate(
            self._command if counted else self._plain_command,
            self._runner,
            runtime.path,
            self._kernels,
            emulated,
            folder,
            group,
            job_timeout_s=self._timeout_s,
            needed=runtime.needed.path if runtime.needed is not None else None,
        )

    def _outcome(
        self, job: Job, profile: Profile | str, prices: Mapping[str, float], threads: int
    ) -> Outcome:
        if isinstance(profile, str):
            return Failure(job, profile)
        try:
            cost = region_cost(profile.region, prices, self._model)
        except DeviceError as error:
            return Failure(job, str(error))
        modelled = latency(
            self._model, cost, self._core.clock_hz, profile.operators, threads=threads
        )
        return Measurement(
            job=job,
            samples_ns=(modelled.ms * 1e6,),
            evidence="modelled",
            model_error=modelled.error,
            output=profile.output,
            parts_ms=modelled.parts_ms,
            fully_accelerated=profile.fully_accelerated,
        )


_LOST = "the emulator ended twice without an answer"


def _uncounted(jobs: Sequence[Job], ends: Sequence[JobEnd | None]) -> list[Outcome]:
    """Outputs and endurance of jobs that ran without the plugin; there is no time to tell."""
    found: list[Outcome] = []
    for job, end in zip(jobs, ends, strict=True):
        if end is None:
            found.append(Failure(job, _LOST))
        elif isinstance(end.outcome, Failure):
            found.append(Failure(job, end.outcome.reason))
        else:
            result = end.outcome
            found.append(
                Measurement(
                    job=job,
                    samples_ns=(),
                    evidence="modelled",
                    output=result.output,
                    fully_accelerated=result.record.fully_accelerated,
                    endurance=endurance(result.record),
                )
            )
    return found


def _profile(job: Job, end: JobEnd | None) -> Profile | str:
    if end is None:
        return _LOST
    if isinstance(end.outcome, Failure):
        return end.outcome.reason
    try:
        return Profile(
            region=parse_trace(end.trace)[-1],
            operators=count_operators(job.path, job.backend),
            output=end.outcome.output,
            fully_accelerated=end.outcome.record.fully_accelerated,
        )
    except EdgeofaError as error:
        return str(error)
