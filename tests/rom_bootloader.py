"""The ROM bootloader of an STM32 (application note AN3155) on a pseudo-terminal.

It takes what a flasher writes, and at GO boots it in QEMU; from then on the pseudo-terminal is the
serial line of that board, as on a real one.
"""

from __future__ import annotations

import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgeofa.emulation.qemu_system import emulated_board
from edgeofa.microcontroller import Microcontroller

ACK, NACK = b"\x79", b"\x1f"
GET, VERSION, ID, READ, GO, WRITE, ERASE = 0x00, 0x01, 0x02, 0x11, 0x21, 0x31, 0x44
_COMMANDS = bytes((GET, VERSION, ID, READ, GO, WRITE, ERASE))
#: STM32L4Rxx
_PRODUCT = b"\x04\x70"
_FLASH = 0x08000000


class Bootloader:
    """One board in boot mode on ``port``; after ``lose_after`` bytes its power fails."""

    def __init__(self, mcu: Microcontroller, folder: Path, lose_after: int | None = None):
        self._mcu = mcu
        self._folder = folder
        self._lose_after = lose_after
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.memory = bytearray()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        os.close(self._slave)
        os.close(self._master)

    # ---- the line ----

    def _bytes(self, n: int) -> bytes:
        found = b""
        while len(found) < n:
            if self._stop.is_set():
                raise EOFError
            if select.select([self._master], [], [], 0.1)[0]:
                found += os.read(self._master, n - len(found))
        return found

    def _say(self, data: bytes) -> None:
        os.write(self._master, data)

    # ---- the protocol ----

    def _serve(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                first = self._bytes(1)[0]
                if first == 0x7F:
                    self._say(ACK)
                    continue
                if self._bytes(1)[0] != first ^ 0xFF or first not in _COMMANDS:
                    self._say(NACK)
                    continue
                self._say(ACK)
                if first == GO:
                    self._address()
                    self._run()
                    return
                if not self._command(first):
                    self._stop.wait()

    def _command(self, command: int) -> bool:
        """False when the power failed."""
        if command == GET:
            self._say(bytes((len(_COMMANDS), 0x31)) + _COMMANDS + ACK)
        elif command == VERSION:
            self._say(b"\x31\0\0" + ACK)
        elif command == ID:
            self._say(b"\x01" + _PRODUCT + ACK)
        elif command == READ:
            offset = self._address()
            n = self._bytes(2)[0] + 1
            data = bytes(self.memory[offset : offset + n])
            self._say(ACK + data.ljust(n, b"\xff"))
        elif command == WRITE:
            offset = self._address()
            n = self._bytes(1)[0] + 1
            data = self._bytes(n + 1)[:n]
            self.memory += bytes(max(0, offset + n - len(self.memory)))
            self.memory[offset : offset + n] = data
            if self._lose_after is not None and offset + n > self._lose_after:
                return False
            self._say(ACK)
        else:
            pages = int.from_bytes(self._bytes(2), "big")
            self._bytes(1 if pages >= 0xFFF0 else 2 * (pages + 1) + 1)
            self._say(ACK)
        return True

    def _address(self) -> int:
        five = self._bytes(5)
        check = five[0] ^ five[1] ^ five[2] ^ five[3] ^ five[4]
        self._say(NACK if check else ACK)
        return int.from_bytes(five[:4], "big") - _FLASH

    # ---- the board after GO ----

    def _run(self) -> None:
        image = self._folder / "written.bin"
        image.write_bytes(self.memory)
        with ExitStack() as stack:
            board = stack.enter_context(
                emulated_board(self._mcu, self._folder / "board", elf=image)
            )
            host, port = board.port.removeprefix("socket://").split(":")
            line = stack.enter_context(socket.create_connection((host, int(port))))
            while not self._stop.is_set():
                for source in select.select([self._master, line], [], [], 0.1)[0]:
                    if source is line:
                        self._say(line.recv(4096))
                    else:
                        line.sendall(os.read(self._master, 4096))


@contextmanager
def rom_bootloader(
    mcu: Microcontroller, folder: Path, lose_after: int | None = None
) -> Iterator[Bootloader]:
    board = Bootloader(mcu, folder, lose_after)
    try:
        yield board
    finally:
        board.close()
