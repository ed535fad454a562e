"""A Linux board over ssh: the same runner as everywhere, on the board itself.

Link (ssh_link)      one shared connection, short scripts, bounded answers
Board (ssh_board)    edgeofa's folder there: programs, libraries, models by digest
Keeper (keeper)      the board for us alone, its clocks pinned
run_jobs (runner)    the protocol, which does not know that the runner is far away
"""

from __future__ import annotations

import getpass
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from edgeofa.devices.base import Device, Evidence, Job, Outcome, Progress
from edgeofa.devices.board import BoardFacts, check_belongs, check_libc
from edgeofa.devices.job_files import Files
from edgeofa.devices.keeper import SILENCE_S, Keeper
from edgeofa.devices.libraries import Library, library_for, runtime_names
from edgeofa.devices.local import Kernels
from edgeofa.devices.native import runner_path
from edgeofa.devices.runner import RunnerCommand, measurements, probe, run_jobs
from edgeofa.devices.ssh_board import Board, Parcel, parcel
from edgeofa.devices.ssh_link import LINK_STATUS, Link, parse_address
from edgeofa.errors import DeviceError, UsageError
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder


class SshDevice(Device):
    """The board at ``address`` as a device of ``target``.

    Raises, when it is made, ``UsageError`` for a bad address, ``LinkLost`` when the board cannot be
    reached, and ``DeviceError`` when it is not one of ``target`` or cannot run edgeofa's programs.
    """

    def __init__(
        self,
        target: Target | None,
        address: str,
        *,
        kernels: Kernels = "delegate",
        job_timeout_s: float = 120.0,
    ):
        parsed = parse_address(address)
        self.name = address
        self._target_name = target.name if target is not None else "rpi4"
        self._kernels = kernels
        self._timeout_s = job_timeout_s
        self._link = Link(parsed, address)
        self._board = Board(self._link)
        self.facts: BoardFacts = self._link.again(self._board.prepare)
        self.evidence: Evidence = "estimated" if self.facts.emulator else "measured"
        self._keeper: Keeper | None = None
        self._users = 0
        #: digests of what this session brought and its end removes
        self._sent: set[str] = set()
        self._identity: dict[str, str] | None = None
        #: back end -> its library, and what has to be on the board of it, the library last
        self._libraries: dict[str, tuple[Library, list[Parcel]]] = {}
        self._runner: Parcel | None = None
        if target is not None:
            check_belongs(self.facts, target, address)
            self._the_runner()  # a wrong C library shows here

    @staticmethod
    def check_address(address: str) -> None:
        """``UsageError`` for text that is not an ssh address."""
        parse_address(address)

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def identity(self) -> dict[str, str]:
        if self._identity is None:
            self._identity = self._find_identity()
        return dict(self._identity)

    def _find_identity(self) -> dict[str, str]:
        facts = self.facts
        found = {
            "model": facts.model or facts.processor_name or "unknown board",
            "core": facts.microarchitecture,
            "machine": facts.machine,
            "processors": str(facts.processors or "unknown"),
            "kernel": facts.kernel or "unknown",
            "libc": facts.libc or "unknown",
            "clocks": facts.clocks_note,
            "kernels": self._kernels,
            "runner": f"sha256:{self._the_runner().sha256}",
        }
        if facts.emulator:
            found["emulated"] = f"{facts.emulator}: times are not latencies"
        for backend in runtime_names():
            try:
                library, parcels = self._library(backend)
            except DeviceError:
                continue  # a job of this back end says why it cannot run
            found[backend] = f"{library.version} sha256:{parcels[-1].sha256}"
            if "pinned" not in found:
                found["pinned"] = self._pinned(parcels)
        return found

    def _pinned(self, library: Sequence[Parcel]) -> str:
        """Whether one-thread runs really stay on one processor."""
        with self.exclusive(), work_folder("ssh") as folder:
            runner = self._the_runner()
            self.bring([runner, *library], folder)
            started = probe(self._command(runner, library, 1), folder)
        return "yes, with one thread" if started.pinned else "no"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self._users += 1
        try:
            if self._users == 1:
                self._link.again(self._take)
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._release()

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if not 1 <= threads <= (self.facts.processors or 256):
            raise UsageError(f"{threads} threads", where=self.name)
        outcomes: list[Outcome] = []
        for backend, group in groupby(jobs, key=lambda job: job.backend):
            part = list(group)
            with self.exclusive(), work_folder("ssh") as folder:
                runner, (_, library) = self._the_runner(), self._library(backend)
                files = _BoardFiles(folder, self, [runner, *library])
                results = run_jobs(
                    self._command(runner, library, threads),
                    part,
                    folder,
                    job_timeout_s=self._timeout_s,
                    progress=progress,
                    files=files,
                )
            outcomes += measurements(part, results, self.evidence)
        return outcomes

    def bring(self, parcels: Sequence[Parcel], folder: Path) -> None:
        """Have files on the board, the link mended and the board ours again where it broke."""

        def attempt() -> None:
            if self._keeper is None or not self._keeper.is_alive:
                self._take()
            self._board.push(parcels, folder)

        self._link.again(attempt)
        self._sent.update(p.sha256 for p in parcels if not p.is_program)

    def fetch(self, name: str, size: int, into: Path) -> None:
        """An output of a job of this session."""
        self._link.again(lambda: self._board.fetch(name, size, into))

    def place_of_output(self, name: str) -> str:
        """How the runner names a file that it writes."""
        return self._board.work(name)

    def _take(self) -> None:
        """The board for us alone, and a clean folder on it."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        self._board.bring_helper()
        who = f"{getpass.getuser()}@{platform.node()}, process {os.getpid()}"
        argv = self._board.keep_argv(who[:150], SILENCE_S)
        self._keeper = Keeper(argv, self.name, lost_status=LINK_STATUS)
        self._board.sweep([self._the_runner(), *self._library_parcels()])

    def _release(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            if keeper.is_alive:
                self._board.clean(self._sent - {p.sha256 for p in self._library_parcels()})
                self._sent.clear()
        except DeviceError as error:
            # the next session removes the folder, and a month the objects
            warnings.warn(f"{self.name}: not cleaned up: {error.what}", stacklevel=4)
        finally:
            keeper.close()

    def _the_runner(self) -> Parcel:
        if self._runner is None:
            path = runner_path(self.facts.machine)
            check_libc(self.facts, path.read_bytes(), "the runner", self.name)
            self._runner = parcel(path, is_program=True)
        return self._runner

    def _library(self, backend: str) -> tuple[Library, list[Parcel]]:
        if backend not in self._libraries:
            library = library_for(backend, self.facts.machine, self.name, self._target_name)
            for path in library.files:
                check_libc(self.facts, path.read_bytes(), f"the {backend} library", self.name)
            self._libraries[backend] = library, [parcel(path) for path in library.files]
        return self._libraries[backend]

    def _library_parcels(self) -> list[Parcel]:
        return [p for _, parcels in self._libraries.values() for p in parcels]

    def _command(self, runner: Parcel, library: Sequence[Parcel], threads: int) -> RunnerCommand:
        *needed, last = library
        words = [word for p in needed for word in ("--needed", p.name)]
        words += ["--library", last.name, "--threads", str(threads), "--kernels", self._kernels]
        if threads == 1 and self.facts.processors:
            # one fixed processor; where there are two kinds the highest number is a fast one
            words += ["--cpu", str(self.facts.processors - 1)]
        words += ["--silence", str(SILENCE_S)]
        argv = self._board.run_argv(runner, *words)
        return RunnerCommand(tuple(argv), lost_status=LINK_STATUS, where=self.name)


class _BoardFiles(Files):
    """Models and inputs travel by digest, outputs come back from the session's folder."""

    def __init__(self, folder: Path, device: SshDevice, programs: Sequence[Parcel]):
        super().__init__(folder)
        self._device = device
        self._programs = list(programs)
        self._parcels: dict[Path, Parcel] = {}

    def model(self, job: Job) -> str:
        return self._parcel(job.path).name

    def input(self, file: str) -> str:
        return self._parcel(self.folder / file).name

    def output(self, file: str) -> str:
        return self._device.place_of_output(file)

    def send(self, jobs: Sequence[Job], inputs: Sequence[str]) -> None:
        paths = [*(job.path for job in jobs), *(self.folder / name for name in inputs)]
        # a model that is not there is its own job's failure, which the runner reports
        there = [self._parcel(path) for path in paths if path.is_file()]
        self._device.bring([*self._programs, *there], self.folder)

    def fetch(self, file: str, size: int) -> None:
        self._device.fetch(file, size, self.folder / file)

    def _parcel(self, path: Path) -> Parcel:
        if path not in self._parcels:
            self._parcels[path] = parcel(path) if path.is_file() else Parcel(path, "0" * 64)
        return self._parcels[path]
