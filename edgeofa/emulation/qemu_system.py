"""One emulated microcontroller board: qemu-system-arm with its serial line on a local socket.

Time on it is a number of instructions (``-icount``), so nothing that it says is a latency; a plugin
counts what runs execute.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeofa.emulation.process import dies_with_parent
from edgeofa.emulation.qemu import SYSTEM, require_qemu
from edgeofa.errors import DeviceError
from edgeofa.microcontroller import Microcontroller

TRACE = "trace"
_START_S = 20.0
_MAX_SAID_BYTES = 1 << 16


@dataclass(frozen=True)
class RunningBoard:
    """An emulated board that runs: the name of its serial port, and where to debug it."""

    port: str
    gdb: str | None
    folder: Path

    @property
    def trace(self) -> Path:
        """What the plugin writes."""
        return self.folder / TRACE


@contextmanager
def emulated_board(
    mcu: Microcontroller,
    folder: Path,
    *,
    elf: Path | None = None,
    plugin: Path | None = None,
    debugger: bool = False,
) -> Iterator[RunningBoard]:
    """Run the board in the new folder ``folder`` until the block ends.

    Args:
        elf: an image that runs at once, ELF or raw. Without one the board waits for a debugger.
        plugin: counts what runs execute, into ``RunningBoard.trace``.
        debugger: let one connect to ``RunningBoard.gdb``.

    Raises ``DeviceError`` when it does not start; it ends with this process whatever happens.
    """
    qemu = require_qemu(SYSTEM)
    folder.mkdir(parents=True)
    board = mcu.emulation
    command = [*dies_with_parent(), str(qemu.path), "-M", board.machine, "-nodefaults"]
    command += ["-display", "none", "-monitor", "none", "-seed", "1"]
    command += ["-icount", f"shift={board.icount_shift},sleep=off"]
    # a board that is to be debugged must not wait for its serial line
    serial = _free_port() if debugger else 0
    wait = "off" if debugger else "on"
    command += ["-serial", f"tcp:127.0.0.1:{serial},server=on,wait={wait},nodelay=on"]
    if elf is not None:
        command += ["-kernel", str(elf)]
    else:
        command.append("-S")
    gdb = _free_port() if debugger else 0
    if debugger:
        command += ["-gdb", f"tcp:127.0.0.1:{gdb}"]
    if plugin is not None:
        command += ["-plugin", ",".join(_plugin_arguments(mcu, plugin))]
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"the emulator does not start: {error}", where=board.machine) from error
    try:
        if debugger:
            _until_open(serial, process, board.machine)
        else:
            serial = _port(process, board.machine)
        server = f"localhost:{gdb}" if debugger else None
        yield RunningBoard(f"socket://127.0.0.1:{serial}", server, folder)
    finally:
        _end(process)


def _plugin_arguments(mcu: Microcontroller, plugin: Path) -> list[str]:
    flash, timing = mcu.emulation.flash, mcu.flash_timing
    # in an option of QEMU a doubled comma is a plain one
    arguments = [f"{plugin}".replace(",", ",,"), f"out={TRACE}"]
    arguments += [f"flash={flash.origin}", f"size={flash.bytes}"]
    if timing is None:
        return [*arguments, "line=32"]
    lines = [f"data={timing.data_lines}", f"code={timing.code_lines}"]
    return [*arguments, f"line={timing.line_bytes}", *lines]


def _port(process: subprocess.Popen[bytes], machine: str) -> int:
    """The port that QEMU says it waits on; it chose a free one."""
    assert process.stderr is not None  # noqa: S101  (opened as a pipe above)
    descriptor = process.stderr.fileno()
    deadline = time.monotonic() + _START_S
    said = b""
    while (left := deadline - time.monotonic()) > 0 and len(said) < _MAX_SAID_BYTES:
        if not select.select([descriptor], [], [], left)[0]:
            break
        chunk = os.read(descriptor, 4096)
        if not chunk:
            break
        said += chunk
        match = re.search(rb"waiting for connection on: .*:([0-9]{1,5}),", said)
        if match is not None:
            return int(match[1])
    reason = said.decode(errors="replace").strip()[-400:] or "it said nothing"
    raise DeviceError(f"the emulated board does not start: {reason}", where=machine)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _until_open(port: int, process: subprocess.Popen[bytes], machine: str) -> None:
    """Until QEMU listens on ``port``, which is the last thing that it sets up."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise DeviceError("the emulated board does not start", where=machine)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()
