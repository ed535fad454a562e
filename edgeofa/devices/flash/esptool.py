"""By the ROM bootloader of ESP32 chips over the serial port, with esptool."""

from __future__ import annotations

from edgeofa.devices.flash.base import FlashRequest, needs, run_tool

TOOL = "esptool.py"
_BAUD = 460800


def command(request: FlashRequest) -> list[str]:
    """Write at the start of the flash; esptool compares a hash of what was written."""
    port = needs(request.port, "the board's serial port", request)
    chip = needs(request.settings.esptool_chip, "esptool's name of the chip", request)
    words = [TOOL, "--chip", chip, "--port", port, "--baud", str(_BAUD)]
    return [*words, "write_flash", f"{request.mcu.flash.origin:#x}", str(request.image.bin)]


def flash(request: FlashRequest) -> bool:
    """Write the image, have the chip hash it, and start it."""
    run_tool(command(request), request, "pip install esptool")
    return True
