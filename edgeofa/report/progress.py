"""Progress on stderr: a spinner with the step's name on a terminal, silence elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.status import Status


class Steps:
    """The named steps of a long verb, with the seconds that each took.

    Use as a context; ``with steps("solve"):`` times one step. On a terminal a spinner shows the
    current one; otherwise nothing is printed.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Steps:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
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
            self._status = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self._status is not None:
            self._status.update(name)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def show(self, text: str) -> None:
        """What the spinner says until the next step."""
        if self._status is not None:
            self._status.update(text)

    def note(self, text: str) -> None:
        """A line that the reader should see even when nothing went wrong."""
        self._console.print(text, highlight=False, soft_wrap=True)
