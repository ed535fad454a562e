"""With openocd and the board's debug probe."""

from __future__ import annotations

from edgeofa.devices.flash.base import FlashRequest, needs, plain_path, run_tool

TOOL = "openocd"


def command(request: FlashRequest) -> list[str]:
    """Program, read back, start."""
    first = request.settings.openocd_files[0] if request.settings.openocd_files else None
    needs(first, "configuration files (openocd_files)", request)
    words = [TOOL]
    for name in request.settings.openocd_files:
        words += ["-f", name]
    return [*words, "-c", f"program {{{plain_path(request.image.elf)}}} verify reset exit"]


def flash(request: FlashRequest) -> bool:
    """Write the image, read it back, and start it."""
    run_tool(command(request), request, f"apt-get install -y --no-install-recommends {TOOL}")
    return True
