"""The serial protocol, host side: one request, one answer, everything bounded in time and size.

``docs/firmware.md`` describes every message; ``targets/runtime/mcu/protocol/server.c`` answers.
"""

from __future__ import annotations

import math
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from edgeofa.devices.serial_frames import MAX_PAYLOAD, VERSION, Frame, FrameReader, encode_frame
from edgeofa.devices.serial_port import Port
from edgeofa.errors import DeviceError

#: an answer that needs no computing; a USB adapter delays by up to 16 ms each way
_REPLY_S = 2.0
_ATTEMPTS = 3
#: noise that is read before a port counts as babbling
_MAX_NOISE_BYTES = 1 << 20
_REPLY = 0x80
_NOT_A_FRAME = 0x7F
_DIGEST = 64
_STATUS = {
    1: "an unknown command",
    2: "a message of the wrong length",
    3: "a value out of range",
    4: "no network was selected",
    5: "the network failed",
    6: "another version of the protocol",
}
MAX_RUNS = 64
#: that the firmware has room for
_MAX_LAYERS = 256
#: waits until board and computer agree this well, or they are taken to disagree
_CLOCK_ATTEMPTS, _CLOCK_AGREES = 4, 0.02


class Command(IntEnum):
    """What can be asked for."""

    IDENTIFY = 1
    SELECT = 2
    SET_INPUT = 3
    FILL_INPUT = 4
    RUN = 5
    LAYERS = 6
    OUTPUT = 7
    MEMORY = 8
    WAIT = 9


@dataclass(frozen=True)
class BoardInfo:
    """What the firmware says of itself."""

    target: str
    digest: str
    clock_hz: int
    networks: int
    timer: Literal["none", "dwt", "systick"]


@dataclass(frozen=True)
class NetworkInfo:
    """The selected network."""

    digest: str
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    weight_bytes: int
    layers: int


@dataclass(frozen=True)
class MemoryUse:
    """High-water marks in bytes: the stack since reset, the arena since its network was chosen."""

    stack_bytes: int
    stack_used: int
    arena_bytes: int
    arena_used: int


class BoardLink:
    """Speaks to the firmware behind ``port``.

    ``where`` names the port in errors. Every method raises ``DeviceError`` within its time when
    the port is mute, babbles, was cut, or answers what the firmware cannot have said.
    """

    def __init__(self, port: Port, where: str, *, reply_s: float = _REPLY_S):
        self._port = port
        self._where = where
        self._reply_s = reply_s
        self._sequence = 0

    def identify(self) -> BoardInfo:
        answer = self._ask(Command.IDENTIFY)
        try:
            payload, networks, clock, timer = struct.unpack_from("<HHIB", answer)
            digest = answer[9 : 9 + _DIGEST].decode("ascii")
            target = answer[9 + _DIGEST :].decode("ascii")
        except (struct.error, UnicodeDecodeError) as error:
            raise self._strange(f"what it says of itself: {error}") from error
        names: tuple[Literal["none", "dwt", "systick"], ...] = ("none", "dwt", "systick")
        if payload != MAX_PAYLOAD or timer >= len(names) or not _is_digest(digest) or not clock:
            raise self._strange("what it says of itself")
        return BoardInfo(target, digest, clock, networks, names[timer])

    def select(self, index: int) -> NetworkInfo:
        """Make the network ``index`` of the image the one that all other commands mean."""
        answer = self._ask(Command.SELECT, struct.pack("<H", index), limit_s=10.0)
        if len(answer) != 18 + _DIGEST:
            raise self._strange("a network")
        values = struct.unpack_from("<IIIIH", answer)
        digest = answer[18:].decode("ascii", "replace")
        if not _is_digest(digest) or max(values) > 1 << 28:
            raise self._strange("a network")
        return NetworkInfo(digest, *values)

    def set_input(self, data: bytes) -> None:
        step = MAX_PAYLOAD - 4
        for offset in range(0, len(data), step):
            head = struct.pack("<I", offset)
            self._ask(Command.SET_INPUT, head + data[offset : offset + step])

    def fill_input(self, seed: int) -> None:
        """A pseudo-random input that the board makes itself: nothing crosses the line."""
        self._ask(Command.FILL_INPUT, struct.pack("<I", seed & 0xFFFFFFFF))

    def run(self, runs: int = 1, *, layers: bool = False, limit_s: float = 60.0) -> tuple[int, ...]:
        """Cycles of each of ``runs`` (1 to 64) inferences, on the board's own timer."""
        if not 1 <= runs <= MAX_RUNS:
            raise ValueError(f"1 to {MAX_RUNS} runs, not {runs}")
        # a retry would run again: one attempt, because an answer may take as long as it takes
        answer = self._ask(Command.RUN, bytes((runs, layers)), limit_s=limit_s, attempts=1)
        if len(answer) != 1 + 8 * runs or answer[0] != runs:
            raise self._strange("cycles")
        return struct.unpack(f"<{runs}Q", answer[1:])

    def layer_cycles(self) -> tuple[int, ...]:
        """Cycles of each layer of the last run with ``layers``, in order of execution."""
        found: list[int] = []
        total = 1
        while len(found) < total:
            answer = self._ask(Command.LAYERS, struct.pack("<H", len(found)))
            count, rest = divmod(len(answer) - 4, 10)
            if rest or len(answer) < 4:
                raise self._strange("cycles of layers")
            (total,) = struct.unpack_from("<I", answer)
            if total > _MAX_LAYERS:
                raise self._strange(f"cycles of {total} layers: {_MAX_LAYERS} are recorded at most")
            found += [struct.unpack_from("<HQ", answer, 4 + 10 * i)[1] for i in range(count)]
            if count == 0:
                break
        if len(found) != total:
            raise self._strange(f"{len(found)} of {total} layers")
        return tuple(found)

    def output(self, size: int) -> bytes:
        """The first ``size`` bytes of the last output."""
        step = MAX_PAYLOAD - 1
        found = bytearray()
        while len(found) < size:
            wanted = min(step, size - len(found))
            part = self._ask(Command.OUTPUT, struct.pack("<IH", len(found), wanted))
            if len(part) != wanted:
                raise self._strange("an output")
            found += part
        return bytes(found)

    def memory(self) -> MemoryUse:
        answer = self._ask(Command.MEMORY)
        if len(answer) != 16:
            raise self._strange("memory use")
        use = MemoryUse(*struct.unpack("<IIII", answer))
        if use.stack_used > use.stack_bytes or use.arena_used > use.arena_bytes:
            raise self._strange("memory use")
        return use

    def wait(self, cycles: int, *, limit_s: float) -> tuple[int, float]:
        """Let the board count ``cycles``; how many it counted and the seconds on our own clock."""
        begun = time.monotonic()
        answer = self._ask(Command.WAIT, struct.pack("<I", cycles), limit_s=limit_s, attempts=1)
        seconds = time.monotonic() - begun
        if len(answer) != 8:
            raise self._strange("a count")
        return int.from_bytes(answer, "little"), seconds

    # ---- one request ----

    def _ask(
        self,
        command: Command,
        payload: bytes = b"",
        *,
        limit_s: float | None = None,
        attempts: int = _ATTEMPTS,
    ) -> bytes:
        """The answer's payload after its status. Lost or broken frames are asked for again."""
        limit = self._reply_s if limit_s is None else limit_s
        heard = _Heard()
        for _ in range(attempts):
            self._sequence = self._sequence % 255 + 1
            self._write(encode_frame(Frame(command, self._sequence, payload)))
            answer = self._answer(command, limit, heard)
            if answer is not None:
                return answer
        raise self._silence(command, limit, attempts, heard)

    def _answer(self, command: Command, limit_s: float, heard: _Heard) -> bytes | None:
        reader = FrameReader()
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            chunk = self._read(left)
            heard.noise += len(chunk)
            if heard.noise > _MAX_NOISE_BYTES:
                raise DeviceError(
                    f"the port babbles: {heard.noise >> 10} KiB and no answer among them",
                    where=self._where,
                    hint="is this the right port, at the right speed?",
                )
            for frame in reader.feed(chunk):
                heard.frames += 1
                if frame.version != VERSION:
                    raise DeviceError(
                        f"the firmware speaks version {frame.version} of the protocol, "
                        f"edgeofa version {VERSION}",
                        where=self._where,
                        hint="flash it again",
                    )
                if frame.command == _NOT_A_FRAME:
                    return None  # it heard something broken: ask again at once
                if frame.command == command | _REPLY and frame.sequence == self._sequence:
                    return self._checked(command, frame.payload)
            heard.broken += reader.broken
            reader.broken = 0
            heard.inside = reader.inside
        return None

    def _checked(self, command: Command, payload: bytes) -> bytes:
        if not payload:
            raise self._strange("nothing")
        if payload[0] != 0:
            reason = _STATUS.get(payload[0], f"status {payload[0]}")
            raise DeviceError(
                f"the firmware refuses {command.name.lower()}: {reason}", where=self._where
            )
        return payload[1:]

    def _read(self, left_s: float) -> bytes:
        import serial

        try:
            self._port.timeout = min(left_s, 0.05)
            # a first byte as soon as there is one, then what else is there already
            chunk = self._port.read(1)
            if chunk:
                self._port.timeout = 0
                chunk += self._port.read(4096)
        except (serial.SerialException, OSError) as error:
            raise self._cut(error) from error
        return chunk

    def _write(self, data: bytes) -> None:
        import serial

        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as error:
            raise self._cut(error) from error

    # ---- errors ----

    def _silence(
        self, command: Command, limit_s: float, attempts: int, heard: _Heard
    ) -> DeviceError:
        waited = f"{attempts} times {limit_s:g} s" if attempts > 1 else f"{limit_s:g} s"
        if heard.noise == 0:
            what = f"no answer to {command.name.lower()} within {waited}: the port is mute"
        elif heard.inside and not heard.frames and not heard.broken:
            what = f"the answer to {command.name.lower()} was cut in the middle of a frame"
        else:
            what = (
                f"no answer to {command.name.lower()} within {waited} "
                f"({heard.noise} bytes, {heard.broken} broken frames)"
            )
        return DeviceError(
            what,
            where=self._where,
            hint="is it the right port, and does edgeofa's firmware run there (edgeofa flash)?",
        )

    def _cut(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"the line was cut: {error}",
            where=self._where,
            hint="check the cable and the board's power; nothing was recorded",
        )

    def _strange(self, what: str) -> DeviceError:
        return DeviceError(
            f"the answer cannot be {what}",
            where=self._where,
            hint="another program answers there, or another firmware: edgeofa flash",
        )


@dataclass
class _Heard:
    """What came in while an answer was waited for."""

    noise: int = 0
    frames: int = 0
    broken: int = 0
    inside: int = 0


def clock_error(link: BoardLink, clock_hz: float, *, seconds: float = 0.5) -> float:
    """How far the board's clock is off what its firmware believes, relative, by our own clock.

    A line's latency and a busy computer only lengthen a wait: a second, short wait is subtracted,
    and of several attempts the quickest of each counts.
    """
    waits = {round(clock_hz * share): math.inf for share in (seconds, seconds / 10)}
    long, short = waits
    error = math.inf
    for _ in range(_CLOCK_ATTEMPTS):
        for wanted in waits:
            counted, took = link.wait(wanted, limit_s=seconds * 20 + 5)
            # what it counted beyond the wanted number took its time
            waits[wanted] = min(waits[wanted], took * wanted / max(counted, 1))
        elapsed = waits[long] - waits[short]
        error = math.inf if elapsed <= 0 else (long - short) / elapsed / clock_hz - 1
        if abs(error) < _CLOCK_AGREES:
            break
    return error


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST and all(c in "0123456789abcdef" for c in text)
