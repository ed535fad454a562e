"""One emulator process: the runner under qemu-aarch64 on a list of jobs.

What comes back is only what the process said and wrote; anything that it did not finish is simply
absent, so that the caller can tell a lost job from one that failed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from edgeofa.devices.base import Job
from edgeofa.devices.job_files import Files, write_jobs
from edgeofa.devices.protocol import (
    MAX_EVENT_BYTES,
    PROTOCOL,
    Event,
    Fatal,
    Lost,
    RunnerResult,
    Start,
    Started,
    parse_event,
)
from edgeofa.devices.runner import JobOutcome, job_outcome
from edgeofa.errors import DeviceError

_START_TIMEOUT_S = 120.0
_MAX_EVENTS_BYTES = 1 << 26
_RUNNER, _LIBRARY, _NEEDED = "edgeofa-runner", "runtime.so", "needed.so"
_EVENTS, _ERRORS = "events", "errors"
#: where ``setpriv`` is missing: prctl(PR_SET_PDEATHSIG, SIGKILL), then the program itself
_DIE_TOO = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True)
class JobEnd:
    """How a job ended, and the trace that its process wrote. ``was_killed``: by someone else (the
    kernel when memory is short, or a person)."""

    outcome: JobOutcome
    trace: Path
    was_killed: bool


#: by someone else (the kernel when memory is short, a person), or by us after the time limit
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGALRM)


@cache
def dies_with_parent() -> tuple[str, ...]:
    """What makes the program after it end when this process does, even by ``kill -9``.

    Not ``preexec_fn``, which may deadlock in a program with threads.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        trial = [setpriv, "--pdeathsig", "KILL", "true"]
        if subprocess.run(trial, capture_output=True, timeout=60).returncode == 0:
            return tuple(trial[:-1])
    return sys.executable, "-I", "-S", "-c", _DIE_TOO


class ProcessGroup:
    """Processes that are killed together when the block ends, however it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs; nothing can be started afterwards."""
        with self._lock:
            self._closed = True
            for process in self._live:
                _kill(process)

    def run(self, command: Sequence[str], folder: Path, jobs: Path, timeout_s: float) -> int:
        """Run to the end in ``folder`` with an empty environment; the exit status."""
        with (
            jobs.open("rb") as stdin,
            (folder / _EVENTS).open("wb") as stdout,
            (folder / _ERRORS).open("wb") as stderr,
            self._lock,
        ):
            if self._closed:
                raise DeviceError("the emulation was stopped", where=folder)
            process = subprocess.Popen(
                [*dies_with_parent(), *command],
                cwd=folder,
                env={},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            self._live.add(process)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -signal.SIGALRM
        finally:
            _kill(process)
            process.wait()
            with self._lock:
                self._live.discard(process)


def emulate(
    command: Sequence[str],
    runner: Path,
    library: Path,
    kernels: str,
    jobs: Sequence[Job],
    folder: Path,
    group: ProcessGroup,
    *,
    job_timeout_s: float,
    needed: Path | None = None,
) -> dict[int, JobEnd]:
    """Run ``jobs`` in one process in the new folder ``folder``; ends by the number of the job.

    ``command`` is qemu's (see qemu.py), ``job_timeout_s`` the emulator's time for one job, and
    ``needed`` the library that ``library`` stands on. Jobs without an end are absent: the process
    was killed. Raises ``DeviceError`` when the runner could not even load the runtime, or does not
    speak its protocol.
    """
    folder.mkdir(parents=True)
    # names of constant length: what the program keeps on its stack and heap must not move
    (folder / _RUNNER).symlink_to(runner)
    (folder / _LIBRARY).symlink_to(library)
    if needed is not None:
        (folder / _NEEDED).symlink_to(needed)
    files = Files(folder, seen_as=Path())
    job_file = write_jobs(jobs, range(len(jobs)), job_timeout_s, files)
    options = ["--library", f"./{_LIBRARY}", "--kernels", kernels, "--threads", "1", "--emulated"]
    if needed is not None:
        options += ["--needed", f"./{_NEEDED}"]
    limit_s = _START_TIMEOUT_S + job_timeout_s * len(jobs)
    status = group.run([*command, f"./{_RUNNER}", *options], folder, job_file, limit_s)

    events = _read_events(folder / _EVENTS)
    fatal = next((e for e in events if isinstance(e, Fatal)), None)
    started = any(isinstance(e, Started) and e.protocol == PROTOCOL for e in events)
    if fatal is not None or not (started or status in _KILLED):
        with (folder / _ERRORS).open("rb") as errors:
            said = errors.read(4096).decode("utf-8", "replace").strip()
        reason = fatal.reason if fatal else said[-600:] or "it said nothing"
        raise DeviceError(
            f"the emulated runner did not start (status {status}): {reason[:600]}",
            where=library.name,
            hint="edgeofa doctor",
        )
    return _ends(events, jobs, files)


def _read_events(path: Path) -> list[Event]:
    """The whole lines of a runner's output; a broken last line is where it was killed."""
    events: list[Event] = []
    if path.stat().st_size > _MAX_EVENTS_BYTES:
        raise DeviceError("the emulated runner wrote more than it can have to say", where=path.name)
    with path.open("rb") as file:
        while (line := file.readline(MAX_EVENT_BYTES)).endswith(b"\n"):
            try:
                events.append(parse_event(line))
            except ValidationError as error:
                reason = f"{error.errors()[0]['msg']} in {line[:80]!r}"
                raise DeviceError(
                    f"the emulated runner does not speak protocol {PROTOCOL}: {reason}",
                    where=path.name,
                ) from error
    return events


def _ends(events: Sequence[Event], jobs: Sequence[Job], files: Files) -> dict[int, JobEnd]:
    ends: dict[int, JobEnd] = {}
    running: Start | None = None
    for event in events:
        if isinstance(event, Start):
            running = event
        elif isinstance(event, RunnerResult | Lost):
            number = event.job
            if running is None or running.job != number or number >= len(jobs):
                raise DeviceError(
                    f"the emulated runner does not speak protocol {PROTOCOL}: events out of order",
                    where=_EVENTS,
                )
            outcome = job_outcome(jobs[number], running.pid, event, files, number)
            killed = (
                isinstance(event, Lost)
                and event.event == "crash"
                and f"signal {signal.SIGKILL:d} " in event.reason
            )
            ends[number] = JobEnd(outcome, files.folder / f"trace.{running.pid}", killed)
            running = None
    return ends


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and what it started, which are a session of their own."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
