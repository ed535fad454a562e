"""edgeofa's own folder on a board that is reached over ssh, and the programs in it.

    FOLDER/objects/<sha256>    programs, libraries, models, inputs: whole and right, or not there
    FOLDER/work/<session>/     what runs write; removed with the session

The board needs a POSIX shell, ``uname``, ``mkdir``, ``cat``, ``wc``, ``chmod``, ``mv`` and ``rm``;
everything else is done by ``edgeofa-board``, a program without dependencies that is brought first.
Names on the board are made here, of hexadecimal digits; none is taken from the board.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeofa.devices.board import BoardFacts, parse_facts
from edgeofa.devices.native import Arch, board_path
from edgeofa.devices.protocol import Printable, printable
from edgeofa.devices.ssh_link import Answer, Link
from edgeofa.errors import DeviceError, LinkLost

_NO_FOLDER, _NO_ROOM, _CUT = 72, 73, 74
#: of our helper program, see targets/runtime/board/board.h
_HELPER_CUT, _HELPER_REFUSED = 3, 2
#: into the folder of the board; $1 is its path where the user has chosen one
_ENTER = (
    'umask 077; d=$1; shift; [ -n "$d" ] || d=${XDG_CACHE_HOME:-$HOME/.cache}/edgeofa; '
    f'mkdir -p "$d/objects" "$d/work" && cd "$d" || exit {_NO_FOLDER}; '
)
#: bring the helper: size $2 under the name $1
_BRING = (
    't=objects/..$1.$$; trap \'rm -f "$t"\' EXIT; trap "exit 1" HUP INT TERM PIPE; '
    f'cat >"$t" || exit {_NO_ROOM}; [ $(($(wc -c <"$t"))) -eq "$2" ] || exit {_CUT}; '
    f'chmod 700 "$t" && mv -f "$t" "objects/$1" || exit {_NO_ROOM}'
)
#: what an earlier, broken session left; objects that nobody has used for a month (a program's use
#: does not show in its times, so those of this session are touched)
_SWEEP = (
    'rm -rf work/* objects/.[0-9a-f]*; mkdir -p "work/$1"; shift; touch -c "$@" 2>/dev/null; '
    "find objects -type f -mtime +30 -exec rm -f {} \\; 2>/dev/null; true"
)
_LOCK = '"${TMPDIR:-/tmp}/edgeofa-board.lock"'
#: seconds per MiB that a transfer may take, and on top of it
_TRANSFER_S_PER_MIB, _TRANSFER_S = 20.0, 60.0
_ARGUMENTS = 200


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _File(_Event):
    event: Literal["have", "received", "digest"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Refused(_Event):
    event: Literal["refused"]
    reason: Annotated[str, Field(max_length=1024), Printable]


_EVENTS: TypeAdapter[_File | _Refused] = TypeAdapter(_File | _Refused)


@dataclass(frozen=True)
class Parcel:
    """A file to bring to the board."""

    path: Path
    sha256: str
    is_program: bool = False

    @property
    def name(self) -> str:
        """Where it lies on the board, relative to the folder."""
        return f"objects/{self.sha256}"


def parcel(path: Path, *, is_program: bool = False) -> Parcel:
    """A file with its digest."""
    with path.open("rb") as file:
        return Parcel(path, hashlib.file_digest(file, "sha256").hexdigest(), is_program)


class Board:
    """The folder on one board. ``prepare`` comes first, then anything else."""

    def __init__(self, link: Link):
        self.link = link
        self.where = link.where
        #: names what this session writes on the board
        self.session = secrets.token_hex(8)
        self._helper: Parcel | None = None
        self._present: set[str] = set()

    def prepare(self) -> BoardFacts:
        """Find out what the board is; bring the helper program where it is not there.

        Raises ``DeviceError`` for a board that edgeofa has no programs for, or without room.
        """
        said = self._script("uname -s; uname -m", limit_bytes=4096).output
        words = said.decode(errors="replace").split()
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(words[-1], words[-1]) if words else ""
        if words[:1] != ["Linux"] or machine not in ("aarch64", "x86_64"):
            raise DeviceError(
                f"not an aarch64 or x86-64 Linux board: uname says {' '.join(words)[:80]!r}",
                where=self.where,
                hint="32-bit Arm boards and other systems are not supported; and a log-in shell "
                "may print nothing by itself",
            )
        self._helper = parcel(board_path(cast(Arch, machine)), is_program=True)
        self.bring_helper()
        answer = self.helper("probe", "objects")
        return parse_facts(answer.output, self.where)

    def bring_helper(self) -> None:
        """Have the helper on the board, also where a restart has emptied its folder."""
        assert self._helper is not None  # noqa: S101  (prepare() comes first)
        self._bring_helper(self._helper)

    def forget(self) -> None:
        """The link broke: what is on the board has to be looked at again."""
        self._present.clear()

    def sweep(self, programs: Sequence[Parcel]) -> None:
        """Begin a session: remove what an earlier one left. Only while the board is ours."""
        self.forget()
        kept = [self._helper_name(), *(p.name for p in programs)]
        self._script(_SWEEP, self.session, *kept)

    def clean(self, parcels: Iterable[str]) -> None:
        """End a session: remove its folder and these objects (digests)."""
        names = [f"objects/{digest}" for digest in parcels]
        for start in range(0, max(len(names), 1), _ARGUMENTS):
            self._script(
                'rm -rf "work/$1"; shift; [ $# -eq 0 ] || rm -f "$@"',
                self.session,
                *names[start : start + _ARGUMENTS],
            )
        self.forget()

    def push(self, parcels: Sequence[Parcel], folder: Path) -> None:
        """Bring files that are not there yet; afterwards all are there and have their digests.

        ``folder``: private, for the stream that is sent. ``LinkLost`` when the link breaks: then
        every file is there whole or not at all, and the call can be repeated.
        """
        missing = {p.sha256: p for p in parcels if p.sha256 not in self._present}
        digests = list(missing)
        for start in range(0, len(digests), _ARGUMENTS):
            part = digests[start : start + _ARGUMENTS]
            answer = self.helper("have", "objects", *part, timeout_s=_TRANSFER_S * 2)
            for digest in self._digests(answer, part):
                del missing[digest]
                self._present.add(digest)
        if missing:
            self._send(missing, folder)

    def fetch(self, name: str, size: int, into: Path) -> None:
        """The content of a file of this session, which has ``size`` bytes."""
        answer = self._script(
            'cat "work/$1/$2"',
            self.session,
            name,
            limit_bytes=size,
            timeout_s=_TRANSFER_S + _TRANSFER_S_PER_MIB * size / 2**20,
        )
        if answer.status:
            raise DeviceError(
                f"an output cannot be read back: {answer.errors[-300:]}", where=self.where
            )
        into.write_bytes(answer.output)

    def helper(self, *words: str, timeout_s: float = 60.0, stdin: Path | None = None) -> Answer:
        """Run a verb of the helper program; ``DeviceError`` with its reason when it refuses."""
        answer = self._script(
            'exec "$@"', self._helper_name(), *words, stdin=stdin, timeout_s=timeout_s
        )
        if answer.status == _HELPER_CUT:
            raise LinkLost("a transfer was cut", where=self.where, hint="run it again")
        if answer.status == _HELPER_REFUSED:
            raise DeviceError(self._refusal(answer), where=self.where, hint=_room_hint(answer))
        if answer.status:
            raise self._not_run(answer)
        return answer

    def keep_argv(self, who: str, silence_s: int) -> list[str]:
        """The local command that keeps the board for us, see keeper.py."""
        return self.link.argv(
            f'{_ENTER}h=$1; exec "$h" keep {_LOCK} "$2" pin silence "$3"',
            self.link.address.folder or "",
            self._helper_name(),
            who,
            str(silence_s),
        )

    def run_argv(self, program: Parcel, *words: str) -> list[str]:
        """The local command that runs a program on the board, which must be kept for us."""
        return self.link.argv(
            f'{_ENTER}exec "$@" --lease {_LOCK}.busy',
            self.link.address.folder or "",
            program.name,
            *words,
        )

    def work(self, name: str) -> str:
        """How programs on the board name a file of this session."""
        return f"work/{self.session}/{name}"

    def _helper_name(self) -> str:
        assert self._helper is not None  # noqa: S101  (prepare() comes first)
        return self._helper.name

    def _bring_helper(self, helper: Parcel) -> None:
        """The one file that comes without its help; it checks itself."""
        if self._checks_itself(helper):
            return
        size = helper.path.stat().st_size
        answer = self._script(
            _BRING,
            helper.sha256,
            str(size),
            stdin=helper.path,
            timeout_s=_TRANSFER_S + _TRANSFER_S_PER_MIB * size / 2**20,
        )
        if answer.status == _CUT:
            raise LinkLost("the transfer of a program was cut", where=self.where)
        if answer.status:
            raise DeviceError(
                f"the board cannot store a program: {answer.errors[-300:]}",
                where=self.where,
                hint="free some space on it, or choose another folder: ssh://USER@HOST/FOLDER",
            )
        if not self._checks_itself(helper):
            raise self._not_run(self._script('exec "$@"', helper.name, "digest", helper.name))

    def _checks_itself(self, helper: Parcel) -> bool:
        answer = self._script('exec "$@"', helper.name, "digest", helper.name)
        return not answer.status and self._digests(answer, [helper.sha256]) == [helper.sha256]

    def _send(self, missing: Mapping[str, Parcel], folder: Path) -> None:
        stream = folder / "parcels"
        with stream.open("wb") as file:
            for p in missing.values():
                content = p.path.read_bytes()
                mode = "x" if p.is_program else "-"
                file.write(f"{p.sha256} {len(content)} {mode}\n".encode())
                file.write(content)
            file.flush()
            size = os.fstat(file.fileno()).st_size
        timeout_s = _TRANSFER_S + _TRANSFER_S_PER_MIB * size / 2**20
        answer = self.helper("receive", "objects", stdin=stream, timeout_s=timeout_s)
        stream.unlink()
        received = self._digests(answer, list(missing))
        self._present.update(received)
        if len(received) != len(missing):
            raise LinkLost("a transfer ended early", where=self.where, hint="run it again")

    def _digests(self, answer: Answer, expected: Sequence[str]) -> list[str]:
        """Those of ``expected`` that the helper named, in its order."""
        found: list[str] = []
        for line in answer.output.splitlines():
            event = self._event(line)
            if isinstance(event, _File) and event.sha256 in expected and event.sha256 not in found:
                found.append(event.sha256)
        return found

    def _refusal(self, answer: Answer) -> str:
        for line in answer.output.splitlines():
            event = self._event(line)
            if isinstance(event, _Refused):
                return f"the board refuses: {event.reason}"
        return f"the board refuses: {answer.errors[-300:] or 'no reason'}"

    def _event(self, line: bytes) -> _File | _Refused:
        try:
            return _EVENTS.validate_json(line)
        except ValidationError as error:
            raise DeviceError(
                f"the board answers nonsense: {line[:80]!r}", where=self.where
            ) from error

    def _script(
        self,
        script: str,
        *arguments: str,
        stdin: Path | None = None,
        limit_bytes: int = 1 << 16,
        timeout_s: float = 60.0,
    ) -> Answer:
        answer = self.link.run(
            _ENTER + script,
            self.link.address.folder or "",
            *arguments,
            stdin=stdin,
            limit_bytes=limit_bytes,
            timeout_s=timeout_s,
        )
        if answer.status == _NO_FOLDER:
            raise DeviceError(
                f"no folder for edgeofa's files on the board: {answer.errors[-300:]}",
                where=self.where,
                hint="free some space, or choose another folder: ssh://USER@HOST/FOLDER",
            )
        return answer

    def _not_run(self, answer: Answer) -> DeviceError:
        said = answer.errors[-300:] or printable(answer.output[:80].decode(errors="replace"))
        return DeviceError(
            f"the board does not run edgeofa's program (status {answer.status}): {said}",
            where=self.where,
            hint="is its disk mounted noexec? choose another folder: ssh://USER@HOST/FOLDER",
        )


def _room_hint(answer: Answer) -> str | None:
    full = b"No space left" in answer.output or b"quota" in answer.output
    return "free some space on the board, then run the same command again" if full else None
