"""What tuning found: one line for each kernel, in one file for each machine.

    {"format": 1, "machine": "cortex-a72", "compiler": "0.27.0.post1"}
    {"kernel": "conv2d int8 8x8x96 8x8x24", "config": {...}, "ratio": 0.91, "default_ns": ..., ...}

The first line says whom the others are for: records of another machine or compiler are ignored
with a warning, never applied. The lines are sorted by kernel, so that a change is a small diff.
The user's own records go before the shipped ones. Nothing here imports the compiler.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from edgeofa.backends.tvm.installed import VERSIONS
from edgeofa.devices.base import Evidence
from edgeofa.errors import FileFormatError
from edgeofa.intervals import DataModel
from edgeofa.paths import tuning_dirs, write_atomic

_MAX_FILE_BYTES = 1 << 24
_MAX_LINE_BYTES = 1 << 14
_Name = Annotated[str, Field(min_length=1, max_length=300)]


class Heading(DataModel):
    """Whom a file's records are for."""

    format: Literal[1] = 1
    machine: _Name
    compiler: _Name


class Record(DataModel):
    """The best configuration known of a kernel. The default itself is one (with the ratio 1) only
    where it stands before another folder's record.

    ``ratio`` is its cost by the default's; ``default_ns`` what the default takes (modelled, or
    measured on the machine where it was tuned). ``trials``: how many configurations were compared.
    ``schedules``: digest of the code that wrote them.
    """

    kernel: _Name
    config: dict[Annotated[str, Field(max_length=40)], int | Annotated[str, Field(max_length=40)]]
    ratio: float = Field(gt=0, le=1)
    default_ns: float = Field(gt=0)
    evidence: Evidence
    trials: int = Field(gt=0)
    schedules: Annotated[str, Field(max_length=64)]


_RECORD = TypeAdapter(Record)


def heading(machine: str) -> Heading:
    """Of files for ``machine`` and the compiler that edgeofa knows."""
    return Heading(machine=machine, compiler=VERSIONS["apache-tvm"])


def records_path(folder: Path, machine: str) -> Path:
    """The file of a machine's records."""
    return folder / f"{machine}.jsonl"


def read_records(path: Path, machine: str) -> dict[str, Record]:
    """Records by kernel; none where the file is for another machine or compiler (a warning says
    so). ``FileFormatError`` with the line number for a corrupt file."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise FileFormatError("larger than records of tuning can be", where=path)
    found: dict[str, Record] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            first = Heading.model_validate_json(file.readline(_MAX_LINE_BYTES))
        except ValidationError as error:
            raise FileFormatError(
                "not records of tuning of this version of edgeofa", where=path, hint=_HINT
            ) from error
        if first != heading(machine):
            warnings.warn(
                f"{path}: records for {first.machine} and TVM {first.compiler} are not used: this "
                f"is {machine} and TVM {VERSIONS['apache-tvm']}",
                stacklevel=3,
            )
            return {}
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), ""), 2):
            try:
                record = _RECORD.validate_json(line)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise FileFormatError(f"line {number}: {reason}", where=path, hint=_HINT) from error
            if record.kernel in found:
                raise FileFormatError(
                    f"line {number}: {record.kernel} twice", where=path, hint=_HINT
                )
            found[record.kernel] = record
    return found


_HINT = "delete the file; edgeofa tune writes it again"


def write_records(path: Path, machine: str, records: Iterable[Record]) -> None:
    """A whole file, sorted by kernel."""
    ordered = sorted(records, key=lambda r: r.kernel)
    lines = [heading(machine).model_dump_json(), *(r.model_dump_json() for r in ordered)]
    write_atomic(path, "\n".join(lines) + "\n")


def tuned(machine: str, kernel: str) -> Mapping[str, int | str] | None:
    """The configuration recorded for a kernel (by its key) on a machine; None without one.

    The caller checks it against the knobs that the kernel has today.
    """
    record = all_records(machine).get(kernel)
    return None if record is None else record.config


def records_digest(machine: str) -> str:
    """Over everything that decides about generated code, the first 8 hex digits; ``0`` for no
    records."""
    found = sorted((k, sorted(r.config.items())) for k, r in all_records(machine).items())
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:8] if found else "0"


def all_records(machine: str) -> Mapping[str, Record]:
    """The shipped records of a machine, and over them the user's own."""
    return _merged(tuning_dirs(), machine)


def records_behind(folder: Path, machine: str) -> Mapping[str, Record]:
    """The records of a machine that are used where ``folder`` has none of a kernel."""
    folders = tuning_dirs()
    return _merged(folders[folders.index(folder) + 1 :] if folder in folders else (), machine)


def _merged(folders: Sequence[Path], machine: str) -> Mapping[str, Record]:
    """Of several folders, the first of which has the last word."""
    found: dict[str, Record] = {}
    for folder in reversed(folders):
        path = records_path(folder, machine)
        if path.is_file():
            found |= _loaded(path, machine, path.stat().st_mtime_ns)
    return found


@lru_cache(maxsize=16)
def _loaded(path: Path, machine: str, _changed: int) -> Mapping[str, Record]:
    return read_records(path, machine)
