"""The ROM loader of an ESP32-C3 on a pseudo-terminal, for the real esptool.

It speaks the serial protocol of Espressif's documentation (esptool, "Serial Protocol"): SLIP frames
of commands with length, checksum and value; SYNC answered eight times; registers; the flasher stub,
which it takes and then answers for (no core runs it); plain and compressed writing; MD5.
"""

from __future__ import annotations

import hashlib
import os
import pty
import select
import struct
import threading
import tty
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

FLASH_BEGIN, FLASH_DATA, FLASH_END = 0x02, 0x03, 0x04
MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG = 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A
SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUDRATE = 0x0B, 0x0D, 0x0F
DEFL_BEGIN, DEFL_DATA, DEFL_END, MD5, SECURITY_INFO = 0x10, 0x11, 0x12, 0x13, 0x14
_QUIET = (WRITE_REG, SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUDRATE, MEM_BEGIN, MEM_DATA)
ESP32_C3, ESP32_S3 = 5, 9
#: word 0 of the SPI controller, where the flash chip's answers are: 4 MB
_SPI_DATA, _FLASH_ID = 0x60002058, 0x1640EF
_FLASH_BYTES = 4 << 20
#: status of the ROM's answers to what it does not know, and to a wrong checksum
_INVALID, _WRONG_CHECKSUM = 0x05, 0x07

Fault = Literal["none", "silent", "cut", "digest", "checksum"]


class EspressifRom:
    """One chip in download mode on ``port``.

    ``fault``: after ``after`` bytes of flash data it falls silent or its cable is pulled; or it
    stores a byte wrongly, so that its digest is another; or it refuses each block's checksum.
    """

    def __init__(self, chip: int = ESP32_C3, fault: Fault = "none", after: int = 0):
        self._chip, self._fault, self._after = chip, fault, after
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.flash = bytearray(b"\xff" * _FLASH_BYTES)
        self.commands: list[int] = []
        self._stub = False
        self._received = 0
        self._place, self._inflate = 0, zlib.decompressobj()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        os.close(self._slave)
        with suppress(OSError):
            os.close(self._master)

    # ---- the line ----

    def _serve(self) -> None:
        pending = bytearray()
        while not self._stop.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            try:
                chunk = os.read(self._master, 4096)
            except OSError:
                return
            for byte in chunk:
                if byte != 0xC0:
                    pending.append(byte)
                    continue
                if pending:
                    frame = (
                        bytes(pending).replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
                    )
                    pending.clear()
                    if not self._command(frame):
                        return

    def _say(self, content: bytes) -> None:
        content = content.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
        os.write(self._master, b"\xc0" + content + b"\xc0")

    def _answer(self, command: int, data: bytes = b"", value: int = 0, error: int = 0) -> None:
        # the ROM's status has four bytes, the stub's two
        status = bytes((error != 0, error)) + (b"" if self._stub else bytes(2))
        self._say(struct.pack("<BBHI", 1, command, len(data + status), value) + data + status)

    # ---- the protocol ----

    def _command(self, frame: bytes) -> bool:
        """False when the line is dead from now on."""
        if len(frame) < 8 or frame[0] != 0:
            return True
        _, command, size, checksum = struct.unpack_from("<BBHI", frame)
        body = frame[8:]
        self.commands.append(command)
        if size != len(body):
            self._answer(command, error=_INVALID)
        elif command == SYNC:
            for _ in range(8):
                self._answer(command, value=0x20120707)
        elif command == READ_REG:
            (address,) = struct.unpack("<I", body)
            self._answer(command, value=_FLASH_ID if address == _SPI_DATA else 0)
        elif command == SECURITY_INFO:
            self._answer(command, struct.pack("<IB7sII", 0, 0, bytes(7), self._chip, 3))
        elif command == MEM_END:
            self._answer(command)
            self._stub = True
            self._say(b"OHAI")
        elif command in (FLASH_BEGIN, DEFL_BEGIN):
            (self._place,) = struct.unpack_from("<I", body, 12)
            self._inflate = zlib.decompressobj()
            self._answer(command)
        elif command in (FLASH_DATA, DEFL_DATA):
            return self._block(command, body[16:], checksum)
        elif command == MD5:
            address, count = struct.unpack_from("<II", body)
            digest = hashlib.md5(self.flash[address : address + count], usedforsecurity=False)
            self._answer(command, digest.digest() if self._stub else digest.hexdigest().encode())
        elif command in (*_QUIET, FLASH_END, DEFL_END):
            self._answer(command)
        else:
            self._answer(command, error=_INVALID)
        return True

    def _block(self, command: int, data: bytes, checksum: int) -> bool:
        found = 0xEF
        for byte in data:
            found ^= byte
        if found != checksum or self._fault == "checksum":
            self._answer(command, error=_WRONG_CHECKSUM)
            return True
        self._received += len(data)
        if self._fault in ("silent", "cut") and self._received > self._after:
            if self._fault == "cut":
                os.close(self._master)
            else:
                self._stop.wait()
            return False
        plain = self._inflate.decompress(data) if command == DEFL_DATA else data
        self.flash[self._place : self._place + len(plain)] = plain
        if self._fault == "digest":
            self.flash[self._place] ^= 1
        self._place += len(plain)
        self._answer(command)
        return True


@contextmanager
def espressif_rom(
    chip: int = ESP32_C3, fault: Fault = "none", after: int = 0
) -> Iterator[EspressifRom]:
    rom = EspressifRom(chip, fault, after)
    try:
        yield rom
    finally:
        rom.close()
