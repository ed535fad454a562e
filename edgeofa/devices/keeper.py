"""A board, or this machine, for one user: its lock, and its clocks pinned meanwhile.

``edgeofa-board keep`` does both, here or at the far end of an ssh link, and puts everything back
when it hears nothing of us any more (see ``targets/runtime/board/keep.c``). So nothing stays
pinned or locked, however this process, the link or the board's shell ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeofa.devices.protocol import Printable, printable
from edgeofa.errors import DeviceError, LinkLost

#: the far end lets go after this long without a word of us
SILENCE_S = 45
_BEAT_S = 5.0
#: it speaks at least every ten seconds while it waits for another owner
_ANSWER_TIMEOUT_S = 60.0
_RELEASE_TIMEOUT_S = 20.0
_MAX_LINE_BYTES = 4096


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Waiting(_Event):
    """Somebody else measures."""

    event: Literal["waiting"]
    owner: Annotated[str, Field(max_length=400), Printable]
    age_s: float = Field(ge=0)


class Kept(_Event):
    """The board is ours; ``note`` says why its clocks are not pinned."""

    event: Literal["kept"]
    pinned: bool
    note: Annotated[str, Field(max_length=400), Printable]


class Released(_Event):
    """The end; ``restored`` is false where clocks could not be put back."""

    event: Literal["released"]
    restored: bool


class Refused(_Event):
    """The board cannot be kept."""

    event: Literal["refused"]
    reason: Annotated[str, Field(max_length=1024), Printable]


_ADAPTER: TypeAdapter[Waiting | Kept | Released | Refused] = TypeAdapter(
    Annotated[Waiting | Kept | Released | Refused, Field(discriminator="event")]
)


class Keeper:
    """A running ``edgeofa-board keep``. Made when the board is ours; ``close`` gives it back.

    Raises ``DeviceError`` when it cannot be kept, ``LinkLost`` when ``lost_status`` ends it first.
    Waits while another owner has it, with a warning that names them.
    """

    def __init__(self, argv: Sequence[str], where: str, *, lost_status: int | None = None):
        self._where = where
        self._lost_status = lost_status
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self._rest = bytearray()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        try:
            self.kept = self._await()
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Give the board back and wait until its clocks are as they were."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._heart.join()
        assert self._process.stdin is not None  # noqa: S101  (opened as pipes above)
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self._process.stdin.close()
        try:
            released = self._read(time.monotonic() + _RELEASE_TIMEOUT_S)
            if isinstance(released, Released) and not released.restored:
                warnings.warn(f"{self._where}: clocks could not be put back", stacklevel=2)
            self._process.wait(_RELEASE_TIMEOUT_S)
        except (DeviceError, subprocess.TimeoutExpired):
            pass  # the far end lets go by itself when it hears nothing
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._errors.close()

    def _await(self) -> Kept:
        warned = False
        while True:
            event = self._read(time.monotonic() + _ANSWER_TIMEOUT_S)
            if isinstance(event, Kept):
                return event
            if isinstance(event, Refused):
                raise DeviceError(f"cannot be kept for us: {event.reason}", where=self._where)
            if isinstance(event, Waiting):
                if not warned:
                    warnings.warn(
                        f"{self._where}: another edgeofa measures ({event.owner or 'unknown'}, for "
                        f"{event.age_s:.0f} s): waiting until it is done",
                        stacklevel=5,
                    )
                warned = True
                continue
            raise self._ended()

    def _ended(self) -> DeviceError:
        try:
            status: int | None = self._process.wait(_RELEASE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = None  # it says no more, and does not end
        self._errors.seek(0)
        said = printable(self._errors.read(4096).decode(errors="replace").strip()[-600:])
        ending = "it falls silent" if status is None else f"status {status}"
        lost = status is not None and status == self._lost_status
        kind = LinkLost if lost else DeviceError
        return kind(f"cannot be kept for us: {said or ending}", where=self._where)

    def _read(self, deadline: float) -> Waiting | Kept | Released | Refused | None:
        """The next event; None at the end."""
        assert self._process.stdout is not None  # noqa: S101
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise DeviceError(
                    "no answer; the board hangs", where=self._where, hint="restart the board"
                )
            chunk = os.read(descriptor, _MAX_LINE_BYTES)
            if not chunk:
                return None
            self._rest += chunk
            if len(self._rest) > 4 * _MAX_LINE_BYTES:
                raise DeviceError("the board answers nonsense", where=self._where)
        line, _, rest = self._rest.partition(b"\n")
        self._rest = bytearray(rest)
        try:
            return _ADAPTER.validate_json(bytes(line))
        except ValidationError as error:
            raise DeviceError(
                f"the board answers nonsense: {bytes(line[:80])!r}", where=self._where
            ) from error

    def _beat(self) -> None:
        assert self._process.stdin is not None  # noqa: S101
        while not self._stop.wait(_BEAT_S):
            try:
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                return
