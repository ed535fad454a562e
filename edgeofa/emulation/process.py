"""One emulator process: the runner under qemu-aarch64 on a list of jobs.

What comes back is only what the process said and wrote; anything that it did not finish is simply
absent, so that the caller can tell a lost job from one that failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgeofa.errors import DeviceError

_START_TIMEOUT_S = 120.0
_MAX_EVENTS_BYTES = 1 << 26
_MAX_LINE_BYTES = 1 << 18
_RUNNER, _LIBRARY, _EVENTS, _ERRORS = "edgeofa-runner", "runtime.so", "events", "errors"


@dataclass(frozen=True)
class EmulatedJob:
    """One model: untimed invokes, then counted ones; ``timeout_s`` is the emulator's time."""

    model: Path
    warmups: int
    runs: int
    cold: bool
    timeout_s: float
    input: NDArray[Any] | None = None
    want_output: bool = False


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: the runner's last event about it, and the files that its process wrote."""

    event: Mapping[str, Any]
    trace: Path
    output: Path

    @property
    def kind(self) -> str:
        """``result``, ``error``, ``crash`` or ``timeout``."""
        return str(self.event["event"])


#: by someone else (the kernel when memory is short, a person), or by us after the time limit
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGALRM)


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
                command,
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
    jobs: Sequence[EmulatedJob],
    folder: Path,
    group: ProcessGroup,
) -> dict[int, JobEnd]:
    """Run ``jobs`` in one process in the new folder ``folder``; ends by the number of the job.

    ``command`` is qemu's (see qemu.py). Jobs without an end are absent: the process was killed.
    Raises ``DeviceError`` when the runner could not even load the runtime.
    """
    folder.mkdir(parents=True)
    # names of constant length: what the program keeps on its stack and heap must not move
    (folder / _RUNNER).symlink_to(runner)
    (folder / _LIBRARY).symlink_to(library)
    lines = [line for number, job in enumerate(jobs) for line in _describe(job, number, folder)]
    job_file = folder / "jobs"
    job_file.write_bytes(b"".join(os.fsencode(line) + b"\n" for line in lines))
    options = ["--library", f"./{_LIBRARY}", "--kernels", kernels, "--threads", "1", "--emulated"]
    limit_s = _START_TIMEOUT_S + sum(job.timeout_s for job in jobs)
    status = group.run([*command, f"./{_RUNNER}", *options], folder, job_file, limit_s)

    events = _read_events(folder / _EVENTS)
    fatal = next((e for e in events if e.get("event") == "fatal"), None)
    started = any(e.get("event") == "runner" for e in events)
    if fatal is not None or not (started or status in _KILLED):
        with (folder / _ERRORS).open("rb") as errors:
            said = errors.read(4096).decode("utf-8", "replace").strip()
        reason = str(fatal.get("reason")) if fatal else said[-600:] or "it said nothing"
        raise DeviceError(
            f"the emulated runner did not start (status {status}): {reason[:600]}",
            where=library.name,
            hint="edgeofa doctor",
        )
    return _ends(events, len(jobs), folder)


def _describe(job: EmulatedJob, number: int, folder: Path) -> list[str]:
    path = str(job.model.resolve())
    if "\n" in path:
        raise DeviceError("a line end in the name of a model file", where=job.model)
    lines = [f"model {path}", f"warmups {job.warmups}", f"runs {job.runs}", f"cold {job.cold:d}"]
    lines.append(f"timeout_ms {int(job.timeout_s * 1000)}")
    if job.input is not None:
        (folder / f"input.{number}").write_bytes(job.input.tobytes())
        lines.append(f"input input.{number}")
    if job.want_output:
        lines.append(f"output output.{number}")
    return [*lines, ""]


def _read_events(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a runner's output; a broken last line is where it was killed."""
    events: list[dict[str, Any]] = []
    if path.stat().st_size > _MAX_EVENTS_BYTES:
        raise DeviceError("the emulated runner wrote more than it can have to say", where=path.name)
    with path.open("rb") as file:
        while (line := file.readline(_MAX_LINE_BYTES)).endswith(b"\n"):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(event, dict):
                break
            events.append(event)
    return events


def _ends(events: Sequence[dict[str, Any]], jobs: int, folder: Path) -> dict[int, JobEnd]:
    pids: dict[int, int] = {}
    ends: dict[int, JobEnd] = {}
    for event in events:
        number = event.get("job")
        if not isinstance(number, int) or not 0 <= number < jobs:
            continue
        if event.get("event") == "start":
            pid = event.get("pid")
            pids[number] = pid if isinstance(pid, int) else 0
        elif event.get("event") in ("result", "error", "crash", "timeout"):
            trace = folder / f"trace.{pids.get(number, 0)}"
            ends[number] = JobEnd(event, trace, folder / f"output.{number}")
    return ends


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and what it started, which are a session of their own."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
