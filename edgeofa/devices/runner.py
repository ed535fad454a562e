"""Talks to the native runner: writes its job list, reads its events, survives its death.

Every device on which the runner runs (this machine, an emulator, a board) uses ``run_jobs`` and
differs only in the command line. The runner isolates jobs from each other (see
``targets/runtime/linux/runner.c``); should the runner itself die, the job that it was at is the
guilty one, and a new runner goes on with the next.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edgeofa.devices.base import (
    DeviceState,
    Endurance,
    Evidence,
    Failure,
    Job,
    Measurement,
    Outcome,
    Progress,
)
from edgeofa.devices.job_files import Files, output_name, read_output, write_jobs
from edgeofa.devices.protocol import (
    MAX_EVENT_BYTES,
    PROTOCOL,
    End,
    Event,
    Fatal,
    Lost,
    RunnerResult,
    Start,
    Started,
    State,
    parse_event,
    printable,
)
from edgeofa.errors import DeviceError, LinkLost
from edgeofa.graph.ir import Array

#: what the runner may need on top of a job's own time: start, loading the library, killing
_GRACE_S = 60.0
#: for a runner, or the ssh client in front of it, to end after its last word
_END_TIMEOUT_S = 30.0
#: a link that broke this often without a job in between is given up
_MAX_BREAKS = 4
_MAX_SAID_BYTES = 2000
_BREAK_REST_S = 0.5
#: an emulator's clock says nothing about what it stands for: such times get the widest interval
#: that a table can hold, and are never called measured
EMULATED_ERROR = 0.9
_COMPLAINT = re.compile(r"(?i)^(?!info|warning).*(error|fatal|abort|check failed)")


@dataclass(frozen=True)
class RunnerCommand:
    """How the runner is started: command line without the job list, folder and environment.

    ``lost_status``: the exit status by which ``argv`` says that the way to the runner broke, and
    not the runner; ``where`` names the device in messages.
    """

    argv: tuple[str, ...]
    cwd: Path | None = None
    env: dict[str, str] | None = None
    lost_status: int | None = None
    where: str = ""

    @property
    def place(self) -> str:
        return self.where or self.argv[0]


@dataclass(frozen=True)
class JobResult:
    """A job that ran: the runner's record, its process, and its output when it was asked for."""

    record: RunnerResult
    pid: int
    output: Array | None


JobOutcome = JobResult | Failure


def run_jobs(
    command: RunnerCommand,
    jobs: Sequence[Job],
    folder: Path,
    *,
    job_timeout_s: float = 120.0,
    progress: Progress | None = None,
    files: Files | None = None,
) -> list[JobOutcome]:
    """Run ``jobs`` in order, in as few starts of the runner as their crashes allow.

    Args:
        folder: an existing, private folder for the job list, inputs, outputs and the log.
        job_timeout_s: after this long a job is killed and fails.
        files: how the runner names its files; by their own paths by default.

    Raises ``DeviceError`` when the runner cannot be started or does not speak the protocol. Where
    the way to the runner breaks, the job it was at is run again; ``LinkLost`` when it breaks again
    and again.
    """
    files = files or Files(folder)
    breaks = 0
    outcomes: dict[int, JobOutcome] = {}
    pending = list(range(len(jobs)))
    while pending:
        session = _Session(command, job_timeout_s, files)
        before = len(outcomes)
        for place, outcome in session.run(jobs, pending):
            outcomes[place] = outcome
            if progress is not None:
                progress(1)
        if session.link_broke:
            breaks = breaks + 1 if len(outcomes) == before else 1
            if breaks == _MAX_BREAKS:
                raise LinkLost(
                    f"the link broke {breaks} times: {session.log_tail() or 'no message'}",
                    where=command.place,
                    hint="check the board and its network, then run the same command again",
                )
            time.sleep(_BREAK_REST_S * 2**breaks)
        elif len(outcomes) == before:
            raise DeviceError(
                f"the runner ended before its first job: {session.log_tail() or 'no message'}",
                where=command.place,
            )
        pending = [i for i in pending if i not in outcomes]
    return [outcomes[i] for i in range(len(jobs))]


def probe(command: RunnerCommand, folder: Path) -> Started:
    """What the runner says of itself when it has nothing to do; ``DeviceError`` as ``run_jobs``."""
    session = _Session(command, 0.0, Files(folder))
    for _ in session.run([], []):
        raise DeviceError("the runner answers jobs that it was not given", where=command.place)
    if session.started is None:
        raise DeviceError(
            f"the runner does not start: {session.log_tail() or 'no message'}",
            where=command.place,
        )
    return session.started


def measurement(job: Job, result: JobResult, evidence: Evidence) -> Measurement:
    """The record of a job by the clock of the device; ``evidence`` says what that is worth."""
    record = result.record
    return Measurement(
        job=job,
        samples_ns=record.samples_ns,
        evidence=evidence,
        model_error=0.0 if evidence == "measured" else EMULATED_ERROR,
        output=result.output,
        before=_device_state(record.before),
        after=_device_state(record.after),
        fully_accelerated=record.fully_accelerated,
        load_ms=record.load_ns / 1e6,
        peak_rss_bytes=record.peak_rss_bytes,
        yardstick_ns=record.yardstick_ns,
        preemptions=record.preemptions,
        endurance=endurance(record),
    )


def endurance(record: RunnerResult) -> Endurance | None:
    """What a job with ``watch`` found."""
    return None if record.watch is None else Endurance(**record.watch.model_dump())


def measurements(
    jobs: Sequence[Job], outcomes: Sequence[JobOutcome], evidence: Evidence
) -> list[Outcome]:
    """``measurement`` for all jobs that ran; failures stay what they are."""
    return [
        outcome if isinstance(outcome, Failure) else measurement(job, outcome, evidence)
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]


class _Session:
    """One start of the runner."""

    def __init__(self, command: RunnerCommand, job_timeout_s: float, files: Files):
        self.command = command
        self.files = files
        self.link_broke = False
        self.job_timeout_s = job_timeout_s
        #: the end of what the runner (or what it runs under) wrote to its standard error
        self._said = b""
        self.started: Started | None = None

    def run(self, jobs: Sequence[Job], places: Sequence[int]) -> Iterator[tuple[int, JobOutcome]]:
        """Outcomes of ``places`` in order; ends early when the runner dies."""
        listing = write_jobs(jobs, places, self.job_timeout_s, self.files)
        running: Start | None = None
        with listing.open("rb") as stdin:
            try:
                process = subprocess.Popen(
                    self.command.argv,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=self.command.cwd,
                    env=self.command.env,
                )
            except OSError as error:
                raise DeviceError(
                    f"the runner does not start: {error}", where=self.command.place
                ) from error
            try:
                # nothing is expected after a start and an end of each job, and three words around
                for event in self._events(process, most=2 * len(places) + 3):
                    if isinstance(event, Start):
                        running = event
                    elif isinstance(event, RunnerResult | Lost):
                        if running is None or running.job != event.job or event.job >= len(places):
                            raise self._foreign("events out of order")
                        place = places[event.job]
                        yield place, job_outcome(jobs[place], running.pid, event, self.files, place)
                        running = None
                self.link_broke = self._link_broke(process)
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdout, process.stderr):
                    if pipe is not None:
                        pipe.close()
        if running is not None and running.job < len(places) and not self.link_broke:
            place = places[running.job]
            reason = f"the runner ended with it: {self.log_tail() or 'no message'}"
            yield place, Failure(jobs[place], reason)

    def _link_broke(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it ended because the way to the runner broke."""
        try:
            status = process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False  # it was silent for too long: the job hung in a way the runner missed
        assert process.stderr is not None  # noqa: S101  (opened as a pipe above)
        if select.select([process.stderr], [], [], 0)[0]:
            self._hear(process.stderr.fileno())
        return status == self.command.lost_status

    def _hear(self, descriptor: int) -> bool:
        """Read from the standard error and keep its end; False when there is no more."""
        chunk = os.read(descriptor, 1 << 16)
        self._said = (self._said + chunk)[-_MAX_SAID_BYTES:]
        return bool(chunk)

    def log_tail(self) -> str:
        return printable(self._said.decode(errors="replace").strip())

    def _events(
        self, process: subprocess.Popen[bytes], most: int
    ) -> Iterator[Start | RunnerResult | Lost]:
        """Checked events until the runner ends, or stays silent longer than any job may take."""
        for number, line in enumerate(self._lines(process)):
            if number == most:
                raise self._foreign("more events than there are jobs")
            event = self._parse(line)
            if (number == 0) != isinstance(event, Started | Fatal):
                raise self._foreign("it did not begin as a runner does")
            if isinstance(event, Fatal):
                raise DeviceError(f"the runner refused: {event.reason}", where=self.command.place)
            if isinstance(event, Started):
                if event.protocol != PROTOCOL:
                    raise self._foreign(f"protocol {event.protocol} instead of {PROTOCOL}")
                self.started = event
            elif not isinstance(event, End):
                yield event

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        assert process.stdout is not None  # noqa: S101  (opened as pipes above)
        assert process.stderr is not None  # noqa: S101
        descriptor, errors = process.stdout.fileno(), process.stderr.fileno()
        heard = [descriptor, errors]
        buffer = bytearray()
        deadline = time.monotonic() + self.job_timeout_s + _GRACE_S
        while True:
            left = deadline - time.monotonic()
            ready = select.select(heard, [], [], left)[0] if left > 0 else []
            if errors in ready and not self._hear(errors):
                heard.remove(errors)
            if ready and descriptor not in ready:
                continue
            chunk = os.read(descriptor, 1 << 16) if ready else b""
            if not chunk:
                return
            buffer += chunk
            *lines, rest = buffer.split(b"\n")
            if lines:
                deadline = time.monotonic() + self.job_timeout_s + _GRACE_S
            yield from (bytes(line) for line in lines)
            buffer = bytearray(rest)
            if len(buffer) > MAX_EVENT_BYTES:
                raise self._foreign("an event without an end")

    def _parse(self, line: bytes) -> Event:
        try:
            return parse_event(line)
        except ValidationError as error:
            raise self._foreign(f"{error.errors()[0]['msg']} in {line[:80]!r}") from error

    def _foreign(self, what: str) -> DeviceError:
        return DeviceError(
            f"the runner does not speak protocol {PROTOCOL}: {what}", where=self.command.place
        )


def job_outcome(
    job: Job, pid: int, event: RunnerResult | Lost, files: Files, place: int
) -> JobOutcome:
    """How a job ended: the runner's last event about it, and its output file when one is wanted."""
    if isinstance(event, Lost):
        return Failure(job, _reason(event))
    content = None
    if job.want_output:
        files.fetch(output_name(place), event.output.bytes)
        content = read_output(files.folder / output_name(place), event.output)
    if job.want_output and content is None:
        return Failure(job, "its output file has not the size that the runtime reported")
    return JobResult(event, pid, content)


def _reason(event: Lost) -> str:
    """The runner's reason, and what the runtime itself called an error."""
    complaints = [x.strip()[:300] for x in event.log.splitlines() if _COMPLAINT.search(x)]
    kind = {"error": "", "crash": "the runtime crashed: ", "timeout": "the runtime hung: "}
    return printable(" | ".join([kind[event.event] + event.reason, *complaints[-2:]]))


def _device_state(state: State | None) -> DeviceState:
    return DeviceState() if state is None else DeviceState(**state.model_dump())
