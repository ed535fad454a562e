"""One way to open a serial line: a device file, a pseudo-terminal, or ``socket://host:port``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from filelock import FileLock, Timeout

from edgeofa.errors import DeviceError
from edgeofa.paths import cache_dir

_CHUNK = 4096
#: until a port that another edgeofa uses counts as taken
_LOCK_S = 60.0


class Port(Protocol):
    """What the protocol needs of a line; pyserial's ports are such."""

    timeout: float | None

    def read(self, size: int = 1) -> bytes: ...

    def write(self, data: bytes, /) -> int | None: ...


@contextmanager
def open_port(name: str, baud: int, *, timeout_s: float = 5.0) -> Iterator[Port]:
    """The line ``name``, nobody else's until the block ends, and released whatever happens.

    Raises ``DeviceError`` when it is not there, busy, or not a serial line.
    """
    import serial

    if not name or len(name) > 256 or any(ord(c) < 32 for c in name):
        raise DeviceError("not the name of a port", where=repr(name[:80]))
    try:
        port = _open(name, baud, timeout_s)
    except (serial.SerialException, OSError, ValueError) as error:
        raise DeviceError(
            f"the port cannot be opened: {_reason(error)}",
            where=name,
            hint="is the board plugged in, is another program using the port, and may you use it "
            "(group dialout)?",
        ) from error
    try:
        yield port
    finally:
        _close(port)


@contextmanager
def alone_on(name: str) -> Iterator[None]:
    """Keeps other edgeofas off a port while it is flashed, asked or measured, by turns with tools
    that open it themselves. Raises ``DeviceError`` when another one does not let go of it."""
    key = "".join(c if c.isalnum() else "_" for c in name[:200])
    lock = FileLock(cache_dir() / f"serial-{key}.lock", is_singleton=True)
    try:
        lock.acquire(timeout=_LOCK_S)
    except Timeout:
        raise DeviceError(
            "another edgeofa uses this board", where=name, hint="wait until it is done"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open(name: str, baud: int, timeout_s: float) -> Any:
    import serial

    if name.startswith("socket://"):
        return _open_socket(name, timeout_s)
    port = serial.Serial(baudrate=baud, timeout=timeout_s, write_timeout=timeout_s, exclusive=True)
    port.port = name
    # some boards reset when these lines move
    port.dtr = port.rts = False
    try:
        port.open()
    except OSError:
        # a pseudo-terminal has no modem lines; pyserial sets them while it opens
        if not os.path.realpath(name).startswith("/dev/pts/"):
            raise
        port = serial.Serial(name, baud, timeout=timeout_s, write_timeout=timeout_s, dsrdtr=True)
    return port


def _open_socket(name: str, timeout_s: float) -> Any:
    from serial.urlhandler.protocol_socket import Serial

    class BoundedSocket(Serial):  # type: ignore[misc]  # pyserial has no types
        """Opening empties the input, which never ends where the other side does not stop."""

        def reset_input_buffer(self) -> None:
            deadline = time.monotonic() + 0.2
            while time.monotonic() < deadline and self.in_waiting:
                if not self._socket.recv(_CHUNK):
                    return

    port = BoundedSocket(timeout=timeout_s, write_timeout=timeout_s)
    port.port = name
    port.open()
    # frames are small and wait for each other's answers
    port._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return port


def _close(port: Any) -> None:
    """Closing a port whose cable was pulled fails, and is closed all the same."""
    try:
        port.close()
    except OSError:
        return


def _reason(error: Exception) -> str:
    text = str(error)
    return text.split(": ")[-1] if ": " in text else text
