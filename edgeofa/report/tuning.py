"""Tuning as a person reads it: how far it is, on stderr, and what was gained."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status

if TYPE_CHECKING:
    from edgeofa.tuning.run import Progress
    from edgeofa.tuning.tune import Tuning

_SHOWN = 12
#: between two lines where progress is not drawn
_EVERY_S = 30.0


class TuneStatus:
    """Progress of a tuning on stderr: a line that changes on a terminal, now and then one
    elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._said = time.monotonic()

    def __enter__(self) -> TuneStatus:
        if self._console.is_terminal:
            self._status = self._console.status("the networks' kernels")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, progress: Progress) -> None:
        text = (
            f"{progress.new_trials} trials in {progress.seconds:.0f} s, {progress.pending} of "
            f"{progress.kernels} kernels not finished, {progress.speedup:.3f} times faster"
        )
        if self._status is not None:
            self._status.update(text)
        elif time.monotonic() - self._said >= _EVERY_S:
            self._said = time.monotonic()
            self._console.print(text, highlight=False, soft_wrap=True)


def tuning_text(result: Tuning) -> str:
    """What the kernels gained together, the heaviest ones, and what did not work."""
    found = result.kernels
    kept = [t for t in found if t.ratio < 1]
    lines = [
        f"{len(found)} kernels for {result.machine} on {result.device} ({result.evidence}): "
        f"{result.trials} trials, {result.new_trials} of them in this run, {result.seconds:.0f} s",
        f"{len(kept)} are faster than with their default; all together {result.speedup:.3f} times",
        "   share   of default  kernel",
    ]
    for t in found[:_SHOWN]:
        config = " ".join(f"{k}={v}" for k, v in t.config.items()) if t.ratio < 1 else "default"
        lines.append(f"  {t.share:6.1%}   {t.ratio:9.3f}   {t.kernel}: {config}")
    failures = [f"{t.kernel}: {text}" for t in found for text in t.failures]
    if failures:
        lines.append(f"{len(failures)} configurations did not work, such as {failures[0][:300]}")
    if result.unusable:
        lines.append(
            f"{len(result.unusable)} kernels are left out, because their default does not work, "
            f"such as {result.unusable[0][:300]}"
        )
    if not result.finished:
        lines.append("the budget is spent; the same command goes on")
    lines.append(f"records: {result.file}")
    return "\n".join(lines)
