"""With pyOCD and the board's debug probe."""

from __future__ import annotations

from edgeofa.devices.flash.base import FlashRequest, needs, run_tool

TOOL = "pyocd"


def command(request: FlashRequest) -> list[str]:
    """Write and start; pyOCD itself reads nothing back."""
    name = needs(request.settings.pyocd_target, "pyOCD's name of the target", request)
    return [TOOL, "flash", "--target", name, "--format", "elf", str(request.image.elf)]


def flash(request: FlashRequest) -> bool:
    """Write and start the image; whether it is right has to be asked of the firmware."""
    run_tool(command(request), request, "pip install pyocd")
    return False
