"""By the ROM bootloader of ESP32 chips over the serial port, with esptool."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from edgeofa.devices.flash.base import FlashRequest, needs, run_tool

TOOL = "esptool"
_BAUD = 460800


def command(request: FlashRequest) -> list[str]:
    """Write at the start of the flash; esptool compares a hash of what was written.

    Versions before 5 know this command by another name.
    """
    port = needs(request.port, "the board's serial port", request)
    chip = needs(request.settings.esptool_chip, "esptool's name of the chip", request)
    # of this very Python where it is installed there: its programs need not be on the path
    tool = [sys.executable, "-m", TOOL] if find_spec(TOOL) is not None else [TOOL]
    words = [*tool, "--chip", chip, "--port", port, "--baud", str(_BAUD)]
    return [*words, "write-flash", f"{request.mcu.flash.origin:#x}", str(request.image.bin)]


def flash(request: FlashRequest) -> bool:
    """Write the image, have the chip hash it, and start it."""
    run_tool(command(request), request, "pip install 'edgeofa[esptool]'", name=TOOL)
    return True
