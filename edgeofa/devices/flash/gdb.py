"""Through a debugger's server: QEMU, openocd, pyOCD and J-Link all speak GDB's remote protocol."""

from __future__ import annotations

import re

from edgeofa.devices.flash.base import FlashRequest, needs, plain_path, run_tool
from edgeofa.errors import DeviceError

GDB = "gdb-multiarch"


def flash(request: FlashRequest) -> bool:
    """Load the image, compare it with what the board holds now, and start it."""
    server = needs(request.settings.gdb_server, "the address of a server (gdb_server)", request)
    commands = [
        "set confirm off",
        "set remotetimeout 10",
        "set tcp auto-retry off",
        f"target extended-remote {server}",
        "load",
        "compare-sections",
        "set $sp = (unsigned int) &__stack_top",
        "set $xpsr = 0x01000000",
        "set $pc = (unsigned int) &Reset_Handler",
        "detach",
    ]
    command = [GDB, "-nx", "-batch"]
    for text in commands:
        command += ["-ex", text]
    command.append(plain_path(request.image.elf))
    hint = f"apt-get install -y --no-install-recommends {GDB}"
    # it goes on without a connection, and ends with what came of that
    said = run_tool(command, request, hint, reason=f"{server}: ")
    where = f"server {server}"
    compared = re.findall(r"^Section (\S+), range .*: (matched|MIS-MATCHED)", said, re.MULTILINE)
    if wrong := [name for name, result in compared if result != "matched"]:
        raise DeviceError(
            f"read back, {', '.join(wrong)} differ from the image",
            where=where,
            hint="is the flash protected, or the memory map of the target file another board's?",
        )
    if not compared:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        raise DeviceError(
            f"nothing was written: {'; '.join(lines[-3:])[-400:]}",
            where=where,
            hint="does the server run there, and does it see the board?",
        )
    return True
