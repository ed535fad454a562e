"""Compiles candidates in processes of their own, which may die."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.templates import Config
from edgeofa.emulation.process import dies_with_parent

#: for one library; an ordinary one takes a tenth of a second
_BUILD_S = 60.0
_MAX_ANSWER_BYTES = 1 << 16
#: -P: nothing of the folder that a person happens to be in is imported
_WORKER = (sys.executable, "-P", "-m", "edgeofa.tuning.worker")


@dataclass(frozen=True)
class Task:
    """A library to write."""

    kernel: Kernel
    machine: str
    config: Config
    path: Path

    @property
    def line(self) -> str:
        record = {
            "kernel": dataclasses.asdict(self.kernel),
            "machine": self.machine,
            "config": dict(self.config),
            "path": str(self.path),
        }
        return json.dumps(record) + "\n"


class Builders:
    """Some compiling processes; a context manager, which ends them.

    Args:
        count: of processes, by default one for each processor.
        limit_s: for one library.
        command: what is started; it answers tasks as worker.py does.
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        limit_s: float = _BUILD_S,
        command: Sequence[str] = _WORKER,
    ):
        self._count = count or len(os.sched_getaffinity(0))
        self._limit_s = limit_s
        self._command = (*dies_with_parent(), *command)
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        # its threads live as long as this: a process dies with the thread that started it
        self._pool = ThreadPoolExecutor(self._count)

    def __enter__(self) -> Builders:
        for _ in range(self._count):
            self._idle.put(_Worker(self._command))
        return self

    def __exit__(self, *_: object) -> None:
        # first: a process that still compiles is put back only when it has done so
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().end()

    def build(self, tasks: Sequence[Task]) -> list[str | None]:
        """None for each library that was written, else why it was not."""
        return list(self._pool.map(self._one, tasks))

    def _one(self, task: Task) -> str | None:
        worker = self._idle.get()
        try:
            return worker.ask(task, self._limit_s)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, started when there is something to do, and again after it died."""

    def __init__(self, command: Sequence[str]):
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: Task, limit_s: float) -> str | None:
        """Why a library could not be written; None where it was."""
        if self._process is not None and self._process.poll() is not None:
            self.end()  # it died after its last answer, which is not this task's fault
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"},
            )
        answer = _exchange(self._process, task.line.encode(), limit_s)
        if isinstance(answer, str):
            self.end()
            return answer
        try:
            reason = json.loads(answer)["reason"]
        except (ValueError, KeyError, TypeError):
            self.end()
            return "the compiler's process does not answer as it should"
        return None if reason is None else str(reason)

    def end(self) -> None:
        """Kill the process; the next task starts another one."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


def _exchange(process: subprocess.Popen[bytes], line: bytes, limit_s: float) -> bytes | str:
    """The answer to a line, or what became of the process instead."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    deadline = time.monotonic() + limit_s
    answer = b""
    try:
        process.stdin.write(line)
    except BrokenPipeError:
        return f"the compiler crashed (status {process.wait()})"
    while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            return f"the compiler took over {limit_s:g} s"
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            return f"the compiler crashed (status {process.wait()})"
        answer += chunk
    return answer
