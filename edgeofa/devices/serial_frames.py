"""Frames on a serial line: bounded, checked, and found again after any noise.

    0x00  COBS( version  command  sequence  payload  CRC-32 little-endian )  0x00

COBS keeps 0x00 out of a frame, so a 0x00 always ends one. The same format in C is
``targets/runtime/mcu/protocol/frame.h``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

VERSION = 1
MAX_PAYLOAD = 1024
_HEADER = 3
_CRC = 4
#: COBS adds one byte per 254, and one
_MAX_ENCODED = (_HEADER + MAX_PAYLOAD + _CRC) * 255 // 254 + 2


@dataclass(frozen=True)
class Frame:
    """One whole, checked frame."""

    command: int
    sequence: int
    payload: bytes
    version: int = VERSION


def encode_frame(frame: Frame) -> bytes:
    """``frame`` as it goes over the line; ``ValueError`` when its payload is too long."""
    if len(frame.payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload is at most {MAX_PAYLOAD} bytes, not {len(frame.payload)}")
    body = bytes((frame.version, frame.command, frame.sequence)) + frame.payload
    return b"\0" + _stuff(body + zlib.crc32(body).to_bytes(_CRC, "little")) + b"\0"


class FrameReader:
    """Finds frames in a stream of bytes and counts what was none."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._too_long = False
        #: pieces between two 0x00 that were no frame
        self.broken = 0

    @property
    def inside(self) -> int:
        """Bytes of a frame that has begun and not ended."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that ``chunk`` completes, in order."""
        found: list[Frame] = []
        *whole, rest = chunk.split(b"\0")
        for piece in whole:
            self._keep(piece)
            frame = None if self._too_long else _decode(bytes(self._pending))
            if frame is not None:
                found.append(frame)
            elif self._pending or self._too_long:
                self.broken += 1
            self._pending.clear()
            self._too_long = False
        self._keep(rest)
        return found

    def _keep(self, piece: bytes) -> None:
        if len(self._pending) + len(piece) > _MAX_ENCODED:
            self._too_long = True
            self._pending.clear()
        else:
            self._pending += piece


def _decode(encoded: bytes) -> Frame | None:
    content = _unstuff(encoded)
    if content is None or len(content) < _HEADER + _CRC:
        return None
    body, crc = content[:-_CRC], int.from_bytes(content[-_CRC:], "little")
    if zlib.crc32(body) != crc or len(body) > _HEADER + MAX_PAYLOAD:
        return None
    return Frame(body[1], body[2], body[_HEADER:], version=body[0])


def _stuff(data: bytes) -> bytes:
    out = bytearray()
    for part in data.split(b"\0"):
        while len(part) >= 254:
            out += b"\xff" + part[:254]
            part = part[254:]
        out.append(len(part) + 1)
        out += part
    return bytes(out)


def _unstuff(data: bytes) -> bytes | None:
    """None when it is not COBS."""
    out = bytearray()
    place = 0
    while place < len(data):
        code = data[place]
        block = data[place + 1 : place + code]
        if code == 0 or len(block) != code - 1:
            return None
        out += block
        place += code
        if code < 0xFF and place < len(data):
            out.append(0)
    return bytes(out)
