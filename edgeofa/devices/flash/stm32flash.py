"""By the ROM bootloader of STM32 chips over the serial port (AN3155), with stm32flash."""

from __future__ import annotations

import os

from edgeofa.devices.flash.base import FlashRequest, needs, run_tool

TOOL = "stm32flash"
_BAUD = 115200


def flash(request: FlashRequest) -> bool:
    """Write the image, read it back, and jump to it. The board has to be in boot mode."""
    port = needs(request.port, "the board's serial port", request)
    command = [TOOL, "-b", str(_BAUD)]
    if os.path.realpath(port).startswith("/dev/pts/"):
        # a pseudo-terminal has no parity, which the bootloader's line has
        command += ["-m", "8n1"]
    command += ["-w", str(request.image.bin), "-v", "-g", f"{request.mcu.flash.origin:#x}", port]
    run_tool(command, request, f"apt-get install -y --no-install-recommends {TOOL}")
    return True
