"""Opening what a QEMU plugin wrote: bounded, and refused with the line that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from edgeofa.errors import FileFormatError

MAX_FILE_BYTES = 1 << 28
MAX_BLOCKS = 1 << 20

#: makes the error for a line that the plugin cannot have written: what is wrong, and its number
Refuse = Callable[[str, int], FileFormatError]

_T = TypeVar("_T")


def read_trace(path: Path, parse: Callable[[IO[bytes], Refuse], Iterator[_T]]) -> tuple[_T, ...]:
    """Everything that ``parse`` finds in the file; ``FileFormatError`` when it cannot be read."""

    def refuse(what: str, line: int) -> FileFormatError:
        return FileFormatError(f"line {line}: {what}", where=path, hint="run the job again")

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FileFormatError(f"a trace is at most {MAX_FILE_BYTES >> 20} MiB", where=path)
        with path.open("rb") as file:
            return tuple(parse(file, refuse))
    except OSError as error:
        raise FileFormatError(f"no readable trace: {error.strerror}", where=path) from error
