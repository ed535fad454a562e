"""TVM's own RPC server, in this process, for one key; it outlives models that crash in it.

    python tests/tvm_rpc_server.py KEY          prints the port

The one that TVM starts (``tvm.exec.rpc_server``) ends its only loop when a model's process ends
badly; boards run the server of TVM's C++ library, which does not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Any

# imported by TVM where it is there, which takes seconds
sys.modules["torch"] = None  # type: ignore[assignment]

from tvm.rpc import server  # noqa: E402

_serve = server._serving


def _serve_on(link: socket.socket, *others: Any) -> None:
    folder = Path.cwd()
    with contextlib.suppress(RuntimeError), link:
        _serve(link, *others)
    os.chdir(folder)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    server._serving = _serve_on
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server._listen_loop(listener, listener.getsockname()[1], sys.argv[1], None, None, None)
