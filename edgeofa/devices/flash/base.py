"""What every way to write an image to a board shares."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.firmware.link import FirmwareImage
from edgeofa.errors import DeviceError, SetupError
from edgeofa.microcontroller import Flashing, Microcontroller

#: a megabyte at 115200 baud takes 90 s, read back 180 s
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class FlashRequest:
    """An image, the board that it is for, and where that board is.

    ``port`` is the board's serial port, ``timeout_s`` bounds the tool that writes.
    """

    image: FirmwareImage
    mcu: Microcontroller
    port: str | None = None
    timeout_s: float = TIMEOUT_S

    @property
    def settings(self) -> Flashing:
        return self.mcu.flashing


def run_tool(
    command: Sequence[str],
    request: FlashRequest,
    hint: str,
    *,
    name: str | None = None,
    reason: str | None = None,
) -> str:
    """What a flasher printed. ``SetupError`` when it is not installed (``hint`` brings it),
    ``DeviceError`` with its last words when it fails or does not end in time.

    Args:
        name: of the tool in errors, by default the command's first word.
        reason: how a line begins that tells more than the tool's last words do.
    """
    where, name = f"target {request.image.target}", name or command[0]
    if shutil.which(command[0]) is None:
        raise SetupError(f"{name} is missing", where=where, hint=hint)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=request.timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{name} did not end within {request.timeout_s:g} s: the image may be written in part",
            where=where,
            hint="check the cable and the board's power, then flash again",
        ) from error
    said = done.stdout[-20_000:].decode(errors="replace")
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        told = [line for line in lines if reason is not None and line.startswith(reason)]
        raise DeviceError(
            f"{name} failed: {'; '.join(told[:1] or lines[-3:])[-500:] or 'without a word'}",
            where=where,
            hint="check cable, power and boot mode; the image may be written in part: flash again",
        )
    return said


def needs(value: str | None, what: str, request: FlashRequest) -> str:
    """``value``, or an error that says which setting a method lacks."""
    if value is None:
        raise DeviceError(
            f"flashing by {request.settings.method} needs {what}",
            where=f"target {request.image.target}",
            hint="give it in the target file's section [mcu.flashing], or on the command line",
        )
    return value


def plain_path(path: Path) -> str:
    """A path inside a debugger's command; quotes and control characters would end it."""
    text = str(path)
    if any(c in text for c in '"\\{}[]$') or any(ord(c) < 32 for c in text):
        raise DeviceError("a path that debuggers cannot take", where=repr(text))
    return text
