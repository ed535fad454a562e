"""Puts an image on a board by the method of its target, and makes sure that it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from edgeofa.backends.firmware.link import FirmwareImage, link, read_network
from edgeofa.devices.flash import copy, esptool, gdb, openocd, pyocd, stm32flash
from edgeofa.devices.flash.base import TIMEOUT_S, FlashRequest
from edgeofa.devices.mcu_jobs import check_board
from edgeofa.devices.serial_port import alone_on, open_port
from edgeofa.devices.serial_protocol import BoardLink
from edgeofa.errors import DeviceError, UsageError
from edgeofa.microcontroller import Flashing, FlashMethod
from edgeofa.targets import Target

#: each returns whether it has read the image back
_METHODS: dict[FlashMethod, Callable[[FlashRequest], bool]] = {
    "gdb": gdb.flash,
    "stm32flash": stm32flash.flash,
    "openocd": openocd.flash,
    "pyocd": pyocd.flash,
    "esptool": esptool.flash,
    "copy": copy.flash,
}
#: from reset to the first answer, a drive's remount included
_BOOT_S = 10.0


@dataclass(frozen=True)
class Flashed:
    """What was done: ``verified`` by reading back, or by asking the firmware for its digest."""

    target: str
    method: FlashMethod
    digest: str
    bytes: int
    seconds: float
    verified: tuple[Literal["read back", "running firmware"], ...]


def flash_image(
    target: Target,
    image: FirmwareImage,
    *,
    port: str | None = None,
    ask: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> Flashed:
    """Write ``image`` to the board of ``target``.

    Args:
        port: the board's serial port; the target's own by default.
        ask: ask the firmware on that port for its digest afterwards.

    Raises ``DeviceError`` when it cannot be written, or when nothing shows that it was.
    """
    if target.mcu is None or target.core is None:
        raise UsageError("not a microcontroller: no section [mcu]", where=f"target {target.name}")
    mcu = target.mcu
    port = port or mcu.serial.port
    begun = time.monotonic()
    read_back = _METHODS[mcu.flashing.method](FlashRequest(image, mcu, port, timeout_s))
    verified: list[Literal["read back", "running firmware"]] = ["read back"] if read_back else []
    if ask and port is not None:
        wait_for(image, port, mcu.serial.baud, target.core.clock_hz)
        verified.append("running firmware")
    if not verified:
        raise DeviceError(
            f"{mcu.flashing.method} reads nothing back, and no port is known to ask the firmware",
            where=f"target {target.name}",
            hint="--port PORT",
        )
    return Flashed(
        target=target.name,
        method=mcu.flashing.method,
        digest=image.digest,
        bytes=image.bin.stat().st_size,
        seconds=time.monotonic() - begun,
        verified=tuple(verified),
    )


def flash_network(
    target: Target,
    artifact: Path,
    *,
    method: str | None = None,
    server: str | None = None,
    port: str | None = None,
    emulated: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Flashed:
    """Link a compiled network into an image and write it; see ``docs/verbs/flash.md``.

    Args:
        artifact: what the back end ``firmware`` wrote.
        method, server: instead of what the target file says.
        emulated: an image for the board that QEMU emulates, whose debugger is at ``server``.
    """
    if target.mcu is None:
        raise UsageError("not a microcontroller: no section [mcu]", where=f"target {target.name}")
    given = {"method": method, "gdb_server": server}
    settings = target.mcu.flashing.model_dump() | {k: v for k, v in given.items() if v is not None}
    try:
        flashing = Flashing.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{first['loc'][0]}: {first['msg']}", hint=f"methods: {', '.join(_METHODS)}"
        ) from error
    mcu = target.mcu.model_copy(update={"flashing": flashing})
    image = link(target, [read_network(artifact)], emulated=emulated)
    chosen = target.model_copy(update={"mcu": mcu})
    line = port or mcu.serial.port
    with nullcontext() if line is None else alone_on(line):
        return flash_image(chosen, image, port=port, timeout_s=timeout_s)


def wait_for(
    image: FirmwareImage, port: str, baud: int, clock_hz: float, *, limit_s: float = _BOOT_S
) -> None:
    """Until the board has started and answers as ``image`` does; ``DeviceError`` after that."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            with open_port(port, baud) as line:
                link = BoardLink(line, port, reply_s=1.0)
                check_board(link.identify(), image, clock_hz, port)
            return
        except DeviceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
