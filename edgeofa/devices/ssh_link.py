"""One board's ssh connection: the system's client, short scripts, bounded answers.

Everything that a person has set up for ssh holds here too: configuration, agents, keys, jump hosts.
Two things are fixed: nobody is ever asked anything, and a host key that is not known is an error.
A device is not trusted: what it prints is cut at a limit, and never becomes a path or a command.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from edgeofa.devices.protocol import printable
from edgeofa.errors import DeviceError, LinkLost, SetupError, UsageError

#: another ssh client or options for it, as words of a command line; like git's GIT_SSH_COMMAND
COMMAND_VARIABLE = "EDGEOFA_SSH"
#: what ssh ends with when the connection could not be made, or broke
LINK_STATUS = 255
_CONNECT_TIMEOUT_S = 15
_ALIVE_INTERVAL_S = 5
_ALIVE_COUNT = 3
#: how long a connection without a user is kept
_PERSIST_S = 30
_MAX_ERRORS_BYTES = 1 << 14
#: a Unix socket's path has at most 104 bytes, of which ssh uses 17 for a temporary suffix
_MAX_SOCKET_BYTES = 80
#: waits between attempts to reach a board again that was there before: it may be starting
_RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<folder>/[A-Za-z0-9_./+-]{1,255})?/?"
)
T = TypeVar("T")


@dataclass(frozen=True)
class SshAddress:
    """``ssh://user@host:port/folder``; ``folder`` is where edgeofa keeps its files on the board."""

    host: str
    user: str | None = None
    port: int | None = None
    folder: str | None = None

    @property
    def destination(self) -> str:
        """What one would type after ``ssh``."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"


def parse_address(text: str) -> SshAddress:
    """A checked address; ``UsageError`` for any other text, above all for one with a password."""
    match = _ADDRESS.fullmatch(text[:1024])
    if match is None:
        if re.match(r"ssh://[^/@]*:[^/@]*@", text):
            raise UsageError(
                "an address with a password",
                hint="use a key: ssh-copy-id USER@HOST brings it there",
            )
        raise UsageError(
            f"not an address: {text[:80]!r}", hint="write it as ssh://USER@HOST, or with :PORT"
        )
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise UsageError(f"port {port}", where=text[:80], hint="1 to 65535")
    return SshAddress(match["host"].strip("[]"), match["user"], port, match["folder"])


@dataclass(frozen=True)
class Answer:
    """How a command on the board ended."""

    status: int
    output: bytes
    errors: str


class Link:
    """The connection to one board. It opens with the first command and again after it broke."""

    def __init__(self, address: SshAddress, where: str):
        self.address = address
        self.where = where
        words = shlex.split(os.environ.get(COMMAND_VARIABLE, "ssh"))
        if not words or shutil.which(words[0]) is None:
            raise SetupError(
                f"no ssh client: {' '.join(words) or 'empty'}",
                hint="apt-get install openssh-client",
            )
        folder = tempfile.mkdtemp(prefix="edgeofa-")
        if len(folder) > _MAX_SOCKET_BYTES:
            shutil.rmtree(folder)
            folder = tempfile.mkdtemp(prefix="edgeofa-", dir="/tmp")
        self._command = [*words, *_options(f"{folder}/s"), *_destination(address)]
        self._was_open = False
        self._close = weakref.finalize(self, _close, self._command, folder)

    def close(self) -> None:
        """End the connection; nothing can be run afterwards."""
        self._close()

    def argv(self, script: str, *arguments: str) -> list[str]:
        """The local command that runs ``script`` in the board's ``sh`` with ``$1`` and so on."""
        words = ["sh", "-c", script, "edgeofa", *arguments]
        return [*self._command, "exec " + " ".join(shlex.quote(w) for w in words)]

    def run(
        self,
        script: str,
        *arguments: str,
        stdin: Path | None = None,
        limit_bytes: int = 1 << 16,
        timeout_s: float = 60.0,
    ) -> Answer:
        """Run a script on the board and wait for its end.

        Raises ``LinkLost`` when the connection breaks; ``DeviceError`` when it cannot be made for
        a reason that trying again does not change, or when the board says more than
        ``limit_bytes`` or nothing for ``timeout_s``.
        """
        with Path(os.devnull if stdin is None else stdin).open("rb") as source:
            answer = self._exchange(self.argv(script, *arguments), source, limit_bytes, timeout_s)
        if answer.status == LINK_STATUS:
            raise self.broken(answer.errors)
        self._was_open = True
        return answer

    def again(self, action: Callable[[], T]) -> T:
        """``action()``; while the link breaks, it is repeated after growing waits.

        A board that was never reached is not waited for.
        """
        for wait_s in _RETRY_WAITS_S:
            try:
                return action()
            except LinkLost:
                if not self._was_open:
                    raise
                time.sleep(wait_s)
        return action()

    def broken(self, said: str) -> DeviceError:
        """What ssh's own words mean. ``LinkLost`` where trying again may help."""
        return explain(said, self.address, self.where)

    def _exchange(
        self, argv: list[str], source: IO[bytes], limit_bytes: int, timeout_s: float
    ) -> Answer:
        output, errors = bytearray(), bytearray()
        deadline = time.monotonic() + timeout_s
        with (
            subprocess.Popen(
                argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process,
            selectors.DefaultSelector() as selector,
        ):
            assert process.stdout is not None  # noqa: S101  (opened as pipes above)
            assert process.stderr is not None  # noqa: S101
            selector.register(process.stdout, selectors.EVENT_READ, (output, limit_bytes))
            selector.register(process.stderr, selectors.EVENT_READ, (errors, _MAX_ERRORS_BYTES))
            try:
                while selector.get_map():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise self._silent(timeout_s)
                    for key, _ in selector.select(left):
                        chunk = os.read(key.fd, 1 << 16)
                        if not chunk:
                            selector.unregister(key.fileobj)
                            continue
                        into, limit = key.data
                        if into is output and len(into) + len(chunk) > limit:
                            raise DeviceError(
                                f"the board answers with more than {limit} bytes",
                                where=self.where,
                                hint="does its shell print something at log-in?",
                            )
                        into += chunk[: max(0, limit - len(into))]
                status = process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise self._silent(timeout_s) from error
            finally:
                process.kill()
        return Answer(status, bytes(output), printable(errors.decode(errors="replace").strip()))

    def _silent(self, timeout_s: float) -> DeviceError:
        return DeviceError(
            f"no answer within {timeout_s:.0f} s",
            where=self.where,
            hint="is the board overloaded? restart it if it hangs",
        )


def _options(socket: str) -> list[str]:
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": _CONNECT_TIMEOUT_S,
        "ServerAliveInterval": _ALIVE_INTERVAL_S,
        "ServerAliveCountMax": _ALIVE_COUNT,
        "ControlMaster": "auto",
        "ControlPath": socket,
        "ControlPersist": _PERSIST_S,
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "EscapeChar": "none",
        "LogLevel": "ERROR",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def _destination(address: SshAddress) -> list[str]:
    words = [] if address.port is None else ["-p", str(address.port)]
    if address.user is not None:
        words += ["-l", address.user]
    return [*words, "--", address.host]


def _close(command: list[str], folder: str) -> None:
    """Stop the shared connection, and remove its socket's folder."""
    if Path(folder, "s").exists():
        head, tail = command[: command.index("--")], command[command.index("--") :]
        # one that does not answer ends by itself, without a user
        with contextlib.suppress(subprocess.TimeoutExpired):
            exits = [*head, "-O", "exit", *tail]
            subprocess.run(exits, capture_output=True, timeout=30, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def explain(said: str, address: SshAddress, where: str) -> DeviceError:
    """ssh's words as an error; ``LinkLost`` for what may be over when one tries again."""
    last = said[-600:] or "no message"
    target, host = address.destination, address.host
    known = f"[{host}]:{address.port}" if address.port else host
    scan = f"ssh-keyscan -p {address.port} {host}" if address.port else f"ssh-keyscan {host}"
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        return DeviceError(
            "the board's host key is not the one that is known: another machine, or a new system",
            where=where,
            hint=f"if you know why: ssh-keygen -R '{known}', then ssh {target} and compare the key",
        )
    if "Host key verification failed" in said or "host key is known" in said:
        return DeviceError(
            "the board's host key is not known, and edgeofa accepts none by itself",
            where=where,
            hint=f"ssh {target}   once, and compare the key with the board's "
            f"(the same that {scan} prints)",
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return DeviceError(
            f"the board does not let us in: {last}",
            where=where,
            hint=f"ssh-copy-id {target}   (and ssh-add for a key with a passphrase); "
            "edgeofa takes no passwords",
        )
    if "Could not resolve hostname" in said:
        return DeviceError(
            f"no board of this name: {last}", where=where, hint="check the name, or use its address"
        )
    if "configuration option" in said or "unix_listener" in said or "Bad owner" in said:
        return DeviceError(
            f"the ssh client refuses: {last}", where=where, hint=f"ssh {target} true"
        )
    return LinkLost(
        f"the board cannot be reached: {last}",
        where=where,
        hint=f"is it on, and on the network? try: ssh {target} true",
    )
