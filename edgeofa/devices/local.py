"""The machine that edgeofa runs on."""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from edgeofa.devices.base import Device, Evidence, Job, Outcome, Progress
from edgeofa.devices.keeper import SILENCE_S, Keeper
from edgeofa.devices.libraries import installed_library, runtime_names
from edgeofa.devices.native import Arch, board_path, own_arch, runner_path
from edgeofa.devices.runner import RunnerCommand, measurements, probe, run_jobs
from edgeofa.errors import SetupError
from edgeofa.paths import cache_dir
from edgeofa.workfolder import work_folder

if TYPE_CHECKING:
    from edgeofa.targets import Target

Kernels = Literal["delegate", "builtin"]
#: e_machine of the ELF format
_ELF_MACHINES: dict[Arch, int] = {"x86_64": 62, "aarch64": 183}


class LocalDevice(Device):
    """Runs artifacts on this machine with the runtimes that are installed beside edgeofa.

    Args:
        target: the target that this machine stands for.
        kernels: LiteRT's kernels, ``delegate`` (XNNPACK) or ``builtin`` (TFLite's own).
        root: where clocks and temperatures are looked for.
    """

    name = "host"

    def __init__(
        self,
        target: Target | None = None,
        *,
        kernels: Kernels = "delegate",
        root: Path = Path("/"),
    ):
        self.target = target
        self.kernels = kernels
        self.evidence: Evidence = "estimated" if _is_emulated() else "measured"
        self._root = root

    def identity(self) -> dict[str, str]:
        return dict(self._identity)

    @cached_property
    def _identity(self) -> dict[str, str]:
        facts = {
            "model": _cpu_model(),
            "machine": platform.machine(),
            "processors": str(os.cpu_count()),
            "kernel": platform.release(),
            "clocks": self._clocks_note(),
            "kernels": self.kernels,
            "runner": f"sha256:{_sha256(self._runner())}",
        }
        for backend in runtime_names():
            try:
                facts[backend] = installed_library(backend).identity
            except SetupError:
                continue
            if "pinned" not in facts:
                facts["pinned"] = self._pinned(backend)
        return facts

    def _pinned(self, backend: str) -> str:
        """Whether one-thread runs really stay on one processor: some containers forbid it."""
        with work_folder("local") as folder:
            started = probe(self._command(backend, 1), folder)
        return "yes, with one thread" if started.pinned else "no"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        # two runs would pin to the same processor, and each would measure twice the time
        lock = FileLock(cache_dir() / "measuring.lock", is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warnings.warn(
                "another edgeofa measures on this machine: waiting until it is done", stacklevel=3
            )
            lock.acquire()
        try:
            with self._steady_clocks() if lock.lock_counter == 1 else nullcontext():
                yield
        finally:
            lock.release()

    @contextmanager
    def _steady_clocks(self) -> Iterator[None]:
        """All clocks at their highest where we may set them; put back however this ends."""
        if not any(os.access(path, os.W_OK) for path in self._governors()):
            yield
            return
        who = f"{platform.node()}, process {os.getpid()}"
        command = [str(board_path(own_arch()))]
        if self._root != Path("/"):
            command += ["--root", str(self._root)]
        command += ["keep", str(cache_dir() / "clocks.lock"), who, "pin", "silence", str(SILENCE_S)]
        keeper = Keeper(command, self.name)
        try:
            yield
        finally:
            keeper.close()

    def _governors(self) -> list[Path]:
        policies = self._root / "sys" / "devices" / "system" / "cpu" / "cpufreq"
        return sorted(policies.glob("policy*/scaling_governor"))

    def _clocks_note(self) -> str:
        """How steady the clock is while something is measured."""
        governors = self._governors()
        if not governors:
            return "no clock governor"
        if all(os.access(path, os.W_OK) for path in governors):
            return "pinned at the highest while measuring"
        names = sorted({path.read_text(encoding="utf-8").strip() for path in governors})
        return f"governor {', '.join(names)}, not ours to pin"

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for backend, group in groupby(jobs, key=lambda job: job.backend):
            part = list(group)
            with self.exclusive(), work_folder("local") as folder:
                results = run_jobs(self._command(backend, threads), part, folder, progress=progress)
            outcomes += measurements(part, results, self.evidence)
        return outcomes

    def _runner(self) -> Path:
        return runner_path(own_arch())

    def _command(self, backend: str, threads: int) -> RunnerCommand:
        library = installed_library(backend)
        argv = [str(self._runner()), "--library", str(library.path)]
        if library.needed is not None:
            argv += ["--needed", str(library.needed)]
        argv += ["--threads", str(threads), "--kernels", self.kernels]
        if self._root != Path("/"):
            argv += ["--root", str(self._root)]
        if threads == 1:
            # one fixed processor; the highest number is the least used one on most systems
            argv += ["--cpu", str(max(os.sched_getaffinity(0)))]
        return RunnerCommand(tuple(argv))


def _is_emulated() -> bool:
    """This very program runs under a user-mode emulator, as in a container for another machine.

    Such emulators answer for ``/proc/self/exe``, and not for this other name of it.
    """
    try:
        with Path("/proc/thread-self/exe").open("rb") as file:
            header = file.read(20)
    except OSError:
        return False
    return int.from_bytes(header[18:20], "little") != _ELF_MACHINES[own_arch()]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
