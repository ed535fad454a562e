"""A TCP proxy on the loopback interface that cuts connections at a given byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from types import TracebackType


class CuttingProxy:
    """Passes connections on to ``port``; the first ones end after ``cuts`` bytes from the client.

    Both sides are closed at once then, as when a cable is pulled and the boards notice.
    """

    def __init__(self, port: int, cuts: Sequence[int]):
        self._target = port
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
        for end in self._open:
            _close(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                board = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                return
            cut = self._cuts[self.connections] if self.connections < len(self._cuts) else None
            self.connections += 1
            self._open += [client, board]
            for source, sink, limit in ((client, board, cut), (board, client, None)):
                threading.Thread(target=_pass, args=(source, sink, limit), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while limit is None or passed < limit:
            size = 1 << 16 if limit is None else min(1 << 16, limit - passed)
            chunk = source.recv(size)
            if not chunk:
                break
            sink.sendall(chunk)
            passed += len(chunk)
    _close(source)
    _close(sink)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
