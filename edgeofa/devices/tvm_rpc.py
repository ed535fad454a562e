"""A board that already runs a TVM RPC server: nothing of edgeofa is needed on it.

The server gives no more than TVM: there is no state of the device, no clocks to pin, and no other
back end than ``tvm``. Talking to it is left to a program of its own (tvm_rpc_client), which speaks
the native runner's protocol: TVM's client is C++ that waits without a limit, and what a server
sends must be able to cost a process no more than a job.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.backends.tvm.installed import VERSIONS, require_tvm
from edgeofa.devices.base import Device, Failure, Job, Measurement, Outcome, Progress
from edgeofa.devices.protocol import printable
from edgeofa.devices.runner import RunnerCommand, measurements, run_jobs
from edgeofa.errors import DeviceError, LinkLost, UsageError
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder

#: exit status of the client that says that the way to the server broke
LINK_STATUS = 75
#: for the server to take a connection; it serves one client at a time, and others wait
ANSWER_S = 10.0
_ADDRESS = re.compile(
    r"tvm-rpc://(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])"
    r":(?P<port>[0-9]{1,5})(?:/(?P<key>[A-Za-z0-9._-]{1,64}))?/?"
)
#: of TVM's RPC protocol: what a client begins with, and the answers
_MAGIC, _MISMATCH = 0xFF271, 0xFF271 + 2
_MAX_KEY_BYTES = 512


@dataclass(frozen=True)
class RpcAddress:
    """Where a server listens, and the key that it was started with."""

    host: str
    port: int
    key: str


def parse_address(text: str) -> RpcAddress:
    """A checked address; ``UsageError`` for any other text."""
    match = _ADDRESS.fullmatch(text[:1024])
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UsageError(
            f"not the address of a TVM RPC server: {text[:80]!r}",
            hint="write it as tvm-rpc://HOST:PORT, or tvm-rpc://HOST:PORT/KEY",
        )
    return RpcAddress(match["host"].strip("[]"), int(match["port"]), match["key"] or "")


def greet(address: RpcAddress, where: str, timeout_s: float = ANSWER_S) -> None:
    """Begin a session and end it at once: is there a server, is it TVM's, does it know the key?

    Raises ``LinkLost`` where nothing answers, ``DeviceError`` where something else does.
    """
    key = f"client:{address.key}".encode()
    try:
        with socket.create_connection((address.host, address.port), timeout_s) as link:
            link.settimeout(timeout_s)
            link.sendall(struct.pack("<ii", _MAGIC, len(key)) + key)
            code, size = struct.unpack("<ii", _receive(link, 8, where))
            if code == _MAGIC and 0 < size <= _MAX_KEY_BYTES:
                name = _receive(link, size, where)
                if name.startswith(b"server:"):
                    return
    except TimeoutError as error:
        raise LinkLost(
            f"no answer within {timeout_s:.0f} s",
            where=where,
            hint="a TVM RPC server serves one client at a time: is another one connected?",
        ) from error
    except OSError as error:
        raise LinkLost(
            f"no TVM RPC server can be reached: {error.strerror or error}",
            where=where,
            hint="start it there: python -m tvm.exec.rpc_server --key KEY --port PORT "
            "(it ends when a model crashes in it)",
        ) from error
    raise DeviceError(
        "what listens there is no TVM RPC server",
        where=where,
        hint="the address of the server itself is needed, not that of a tracker or proxy",
    )


def _receive(link: socket.socket, size: int, where: str) -> bytes:
    content = b""
    while len(content) < size:
        chunk = link.recv(size - len(content))
        if len(content) + len(chunk) >= 4:
            (code,) = struct.unpack("<i", (content + chunk)[:4])
            if size == 8 and code == _MISMATCH:
                raise DeviceError(
                    "the TVM RPC server was started with another key",
                    where=where,
                    hint="write the key into the address: tvm-rpc://HOST:PORT/KEY",
                )
        if not chunk:
            raise ConnectionResetError("the connection was closed during the greeting")
        content += chunk
    return content


class TvmRpcDevice(Device):
    """The board behind the RPC server at ``address`` as a device of ``target``.

    Raises, when it is made, ``UsageError`` for a bad address, ``SetupError`` where TVM is not
    installed, ``LinkLost`` where no server answers and ``DeviceError`` where another program does.
    """

    evidence = "measured"

    def __init__(self, target: Target | None, address: str, *, job_timeout_s: float = 120.0):
        self._address = parse_address(address)
        require_tvm()
        self.name = address
        self._target = target
        self._timeout_s = job_timeout_s
        greet(self._address, address)

    @staticmethod
    def check_address(address: str) -> None:
        """``UsageError`` for text that is not the address of a server."""
        parse_address(address)

    def identity(self) -> dict[str, str]:
        """Who the server is, which is all that it tells."""
        return {
            "model": self._target.description if self._target is not None else "unknown board",
            "server": printable(self.name),
            "tvm": f"{VERSIONS['apache-tvm']} by RPC",
            "clocks": "not ours to pin, not read",
        }

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if not 1 <= threads <= 256:
            raise UsageError(f"{threads} threads", where=self.name)
        a = self._address
        # -P: nothing of the folder that a person happens to be in is imported
        module = "edgeofa.devices.tvm_rpc_client"
        argv = [sys.executable, "-P", "-m", module, a.host, str(a.port)]
        command = RunnerCommand(
            (*argv, a.key, str(threads)),
            # the compiler's library is large, and not needed to run what it made
            env={**os.environ, "TVM_USE_RUNTIME_LIB": "1"},
            lost_status=LINK_STATUS,
            where=self.name,
        )
        wanted = [job for job in jobs if job.backend == "tvm"]
        with work_folder("tvm-rpc") as folder:
            # the server itself ends a session that takes too long; the client waits for that
            found = run_jobs(
                command, wanted, folder, job_timeout_s=self._timeout_s, progress=progress
            )
        outcomes = iter(measurements(wanted, found, self.evidence))
        return [
            _without_link(next(outcomes))
            if job.backend == "tvm"
            else Failure(job, f"a TVM RPC server runs no {job.backend}")
            for job in jobs
        ]


def _without_link(outcome: Outcome) -> Outcome:
    """A time to load would be the network's."""
    if isinstance(outcome, Measurement):
        return dataclasses.replace(outcome, load_ms=None)
    return outcome
