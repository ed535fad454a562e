"""A board without hardware: the firmware's protocol code, built here with sanitizers.

It speaks on a pseudo-terminal or a socket, as a real port or an emulator's does.
"""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeofa.paths import data_dir

DIGEST = "0123456789abcdef" * 4
SIZE = 3000


def build_host_board(folder: Path, digest: str = DIGEST) -> Path:
    """The program, or a skip where no compiler with sanitizers is. ``digest``: its image's."""
    runtime = data_dir() / "targets" / "runtime" / "mcu"
    source = Path(__file__).parent / "devices" / "host_board.c"
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    program = folder / "host_board"
    command = ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command.append(f'-DDIGEST="{digest}"')
    command += [f"-I{runtime / 'include'}", f"-I{runtime / 'protocol'}", str(source)]
    command += [str(runtime / "protocol" / name) for name in ("frame.c", "server.c")]
    subprocess.run([*command, "-o", str(program)], check=True, timeout=120)
    return program


@contextmanager
def on_pty(program: Path, *arguments: str) -> Iterator[str]:
    """The board behind a pseudo-terminal; the name of its other end."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = subprocess.Popen([str(program), *arguments], stdin=master, stdout=master)
    os.close(master)
    try:
        yield os.ttyname(slave)
    finally:
        process.kill()
        process.wait()
        os.close(slave)


@contextmanager
def on_socket(program: Path, *arguments: str) -> Iterator[str]:
    """The board behind a socket that takes one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        process: subprocess.Popen[bytes] | None = None

        def serve() -> None:
            nonlocal process
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                process = subprocess.Popen(
                    [str(program), *arguments], stdin=connection, stdout=connection
                )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"socket://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.close()
            thread.join(5)
            if process is not None:
                process.kill()
                process.wait()
