"""Boards that show themselves as a USB drive: the image is copied there."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Sequence
from pathlib import Path

from edgeofa.devices.flash.base import FlashRequest, needs
from edgeofa.errors import DeviceError

#: what a probe leaves when it could not write the image (DAPLink, ST-LINK)
_COMPLAINT = "FAIL.TXT"
#: the board drops off the bus while it writes, and comes back
_SETTLE_S = 3.0


def volume_folders(label: str, roots: Sequence[Path] | None = None) -> list[Path]:
    """Where a drive with that label is mounted; ``roots`` are where desktops mount drives."""
    user = getpass.getuser()
    usual = (Path("/media") / user, Path("/run/media") / user, Path("/media"), Path("/mnt"))
    where = usual if roots is None else roots
    return [root / label for root in where if (root / label).is_dir()]


def flash(request: FlashRequest, roots: Sequence[Path] | None = None) -> bool:
    """Copy the image; whether it runs has to be asked of the firmware."""
    label = needs(request.settings.volume, "the label of the board's USB drive (volume)", request)
    found = volume_folders(label, roots)
    if len(found) != 1:
        raise DeviceError(
            f"{len(found) or 'no'} drives with the label {label} are mounted",
            where=f"target {request.image.target}",
            hint="plug the board in and mount its drive",
        )
    complaint = found[0] / _COMPLAINT
    try:
        with (found[0] / "firmware.bin").open("wb") as file:
            file.write(request.image.bin.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        time.sleep(_SETTLE_S)
        if complaint.is_file():
            said = complaint.read_text(encoding="utf-8", errors="replace")[:200].strip()
            raise DeviceError(f"the board could not write it: {said}", where=found[0])
    except OSError as error:
        raise DeviceError(
            f"the image could not be copied: {error.strerror}",
            where=found[0],
            hint="the board was unplugged, or its drive is full",
        ) from error
    return False
