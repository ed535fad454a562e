"""Reading, writing and finding table files.

A table is a pair: ``<space>-<backend>-<precision>.csv`` with one row a block, sorted by block key,
and a ``.toml`` header beside it that carries the SHA-256 of the csv. Both are written to
temporary files first and renamed last, so a crash leaves the old pair or the new one; the digest
detects the one torn state that is left (a crash between the two renames). A file that is not
exactly what edgeofa writes is refused whole, with file, line and reason.

Version 2 has the column ``code_bytes``; tables of version 1 are read as having none.

The same rows and header give the same bytes: floats have six decimals (a nanosecond, a
nanojoule), rows are sorted, header keys have one order.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import io
import json
import re
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from edgeofa.devices.base import Evidence
from edgeofa.errors import FileFormatError, MissingMaterial, StaleTable
from edgeofa.graph.ir import DType
from edgeofa.paths import atomic_path, table_dirs
from edgeofa.tables.freshness import staleness
from edgeofa.tables.table import SCHEMA_VERSION, Additivity, Header, Row, Status, Table
from edgeofa.targets import Target

_MAX_CSV_BYTES = 32 << 20
_MAX_HEADER_BYTES = 64 << 10
_MAX_TEXT = 400
_COLUMNS = tuple(f.name for f in dataclasses.fields(Row))
#: of each version of the format
_COLUMNS_OF = {1: tuple(n for n in _COLUMNS if n != "code_bytes"), SCHEMA_VERSION: _COLUMNS}
_INTEGERS = frozenset({"peak_bytes", "weight_bytes", "samples", "rounds", "code_bytes"})
_OPTIONAL = frozenset({"energy_mj", "energy_low_mj", "energy_high_mj", "code_bytes"})
_CHOICES = {"evidence": get_args(Evidence), "status": get_args(Status)}
_KEY = re.compile(r"[a-z][a-z0-9-]{0,159}")
_FLOAT = re.compile(r"\d{1,9}\.\d{6}")
_INTEGER = re.compile(r"\d{1,15}")
_HEADER_KEYS = tuple(
    f.name for f in dataclasses.fields(Header) if f.name not in ("device", "additivity")
)
_ADDITIVITY_KEYS = frozenset(f.name for f in dataclasses.fields(Additivity))


@dataclass(frozen=True)
class TableFile:
    """A table that lies on the disk: where, and its header."""

    path: Path
    header: Header
    rows: int


# ------------------------------------------------------------------------------------ writing


def table_path(folder: Path, table: Table) -> Path:
    """The csv of ``table`` under ``folder`` (such as ``latency_tables/``)."""
    return folder / table.header.target / f"{table.name}.csv"


def write_table(table: Table, folder: Path) -> tuple[Path, Table]:
    """Write csv and header under ``folder``; return the csv's path and the table as it reads back.

    Raises ``ValueError`` for a row that the format cannot hold (negative, infinite).
    """
    path = table_path(folder, table)
    csv = format_rows(table.rows[k] for k in sorted(table.rows))
    written = dataclasses.replace(table.header, schema_version=SCHEMA_VERSION)
    header = format_header(written, rows=len(table.rows), csv=csv)
    with atomic_path(path.with_suffix(".toml")) as header_file:
        header_file.write_bytes(header)
        with atomic_path(path) as csv_file:
            csv_file.write_bytes(csv)
    return path, _parse(header, csv, path)


def format_rows(rows: Any) -> bytes:
    """The csv of ``rows``, in the order given."""
    out = io.StringIO(newline="")
    out.write(",".join(_COLUMNS) + "\n")
    for row in rows:
        out.write(",".join(_format_cell(n, getattr(row, n)) for n in _COLUMNS) + "\n")
    return out.getvalue().encode()


def _format_cell(name: str, value: Any) -> str:
    if value is None and name in _OPTIONAL:
        return ""
    text = str(value) if isinstance(value, (str, int)) else f"{value:.6f}"
    if not _cell_pattern(name).fullmatch(text):
        raise ValueError(f"{name} = {value!r} cannot be stored in a table")
    return text


def _cell_pattern(name: str) -> re.Pattern[str]:
    if name == "block":
        return _KEY
    if name in _CHOICES:
        return re.compile("|".join(_CHOICES[name]))
    return _INTEGER if name in _INTEGERS else _FLOAT


def format_header(header: Header, *, rows: int, csv: bytes) -> bytes:
    """The TOML of ``header``, with the number of rows and the digest of their csv."""
    lines = [f"{k} = {_toml(getattr(header, k))}" for k in ("schema_version", *_HEADER_KEYS[:-1])]
    lines += [f"rows = {rows}", f'csv_sha256 = "{hashlib.sha256(csv).hexdigest()}"']
    lines += ["", "[device]"] + [f"{_toml(k)} = {_toml(v)}" for k, v in header.device.items()]
    if header.additivity is not None:
        lines += ["", "[additivity]"]
        fit = dataclasses.asdict(header.additivity)
        lines += [f"{k} = {_toml(v)}" for k, v in fit.items()]
    return ("\n".join(lines) + "\n").encode()


def _toml(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    # the strings of JSON are basic strings of TOML once DEL is escaped too
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ------------------------------------------------------------------------------------ reading


def read_table(path: Path) -> Table:
    """The table whose csv (or header) is ``path``; anything wrong is a ``FileFormatError``."""
    csv_path, header_path = path.with_suffix(".csv"), path.with_suffix(".toml")
    return _parse(
        _read_bounded(header_path, _MAX_HEADER_BYTES),
        _read_bounded(csv_path, _MAX_CSV_BYTES),
        csv_path,
    )


def read_header(path: Path) -> TableFile:
    """Only the header, checked; the rows are not read."""
    header_path = path.with_suffix(".toml")
    header, rows, _ = _parse_header(_read_bounded(header_path, _MAX_HEADER_BYTES), header_path)
    return TableFile(path.with_suffix(".csv"), header, rows)


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise FileFormatError(
            "half of a table is missing: it needs its .csv and its .toml",
            where=path,
            hint="edgeofa profile writes both",
        ) from None
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror}", where=path) from error
    if len(content) > limit:
        raise FileFormatError(f"larger than {limit} bytes, not a table", where=path)
    return content


def _parse(header_content: bytes, csv: bytes, path: Path) -> Table:
    header, count, digest = _parse_header(header_content, path.with_suffix(".toml"))
    rows = _parse_rows(csv, header, path)
    if len(rows) != count:
        raise FileFormatError(f"{len(rows)} rows where the header says {count}", where=path)
    if hashlib.sha256(csv).hexdigest() != digest:
        raise FileFormatError(
            "the rows are not those that the header was written for (edited, or a torn write)",
            where=path,
            hint="edgeofa profile writes both again; finished blocks are not repeated",
        )
    return Table(header, rows)


def _parse_header(content: bytes, path: Path) -> tuple[Header, int, str]:
    try:
        data = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileFormatError(f"not a TOML file: {error}", where=path) from error
    version = data.get("schema_version")
    # True is 1, and 2.0 is 2
    if type(version) is not int or version not in _COLUMNS_OF:
        raise FileFormatError(
            f"schema version {version!r}, this edgeofa reads 1 to {SCHEMA_VERSION}",
            where=path,
            hint="edgeofa profile writes the table again",
        )
    rows, digest = data.pop("rows", None), data.pop("csv_sha256", None)
    if not isinstance(rows, int) or not isinstance(digest, str):
        raise FileFormatError("rows or csv_sha256 is missing", where=path)
    data.setdefault("additivity", None)
    unknown = set(data) - {*_HEADER_KEYS, "device", "additivity"}
    if isinstance(data["additivity"], dict):
        unknown |= set(data["additivity"]) - _ADDITIVITY_KEYS
    if unknown:
        raise FileFormatError(f"unknown key {min(unknown)!r}", where=path)
    try:
        # through JSON because only there strict types let a list be a tuple
        header = _HEADER.validate_json(json.dumps(data, allow_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise FileFormatError(f"{place}: {first['msg']}", where=path) from error
    except (TypeError, ValueError) as error:  # dates, NaN
        raise FileFormatError(f"a value that no header holds: {error}", where=path) from error
    strings = [getattr(header, k) for k in _HEADER_KEYS] + list(header.device.values())
    if any(isinstance(s, str) and len(s) > _MAX_TEXT for s in strings):
        raise FileFormatError(f"a text is longer than {_MAX_TEXT} characters", where=path)
    if header.additivity is not None and not header.additivity.b > 0:
        raise FileFormatError("additivity.b is not positive", where=path)
    return header, rows, digest


_HEADER: TypeAdapter[Header] = TypeAdapter(Header)


def _parse_rows(csv: bytes, header: Header, path: Path) -> dict[str, Row]:
    try:
        lines = csv.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"byte {error.start} is not ASCII", where=path) from error
    columns = _COLUMNS_OF[header.schema_version]
    if lines[0] != ",".join(columns):
        raise FileFormatError(f"line 1: the columns are not {','.join(columns)}", where=path)
    if lines[-1] != "":
        raise FileFormatError("the last line is cut off", where=path)
    rows: dict[str, Row] = {}
    previous = ""
    for number, line in enumerate(lines[1:-1], 2):
        try:
            row = _parse_row(line, columns)
            if row.block <= previous:
                raise ValueError(f"block {row.block} is out of order or repeated")
            if row.evidence != header.evidence:
                raise ValueError(f"evidence {row.evidence} in a table of {header.evidence} rows")
        except ValueError as error:
            raise FileFormatError(f"line {number}: {error}", where=path) from error
        rows[row.block] = row
        previous = row.block
    return rows


def _parse_row(line: str, columns: Sequence[str]) -> Row:
    cells = line.split(",")
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells where {len(columns)} belong")
    values: dict[str, Any] = {}
    for name, cell in zip(columns, cells, strict=True):
        if cell == "" and name in _OPTIONAL:
            values[name] = None
        elif not _cell_pattern(name).fullmatch(cell):
            raise ValueError(f"{name} = {cell[:40]!r}")
        elif name in _INTEGERS:
            values[name] = int(cell)
        else:
            values[name] = float(cell) if _FLOAT.fullmatch(cell) else cell
    row = Row(**values)
    if not row.latency_low_ms <= row.latency_ms <= row.latency_high_ms:
        raise ValueError("latency is outside its interval")
    if row.status != "failed" and row.latency_ms == 0:
        raise ValueError("a latency of 0")
    energy = (row.energy_low_mj, row.energy_mj, row.energy_high_mj)
    given = [e for e in energy if e is not None]
    if len(given) not in (0, 3) or given != sorted(given):
        raise ValueError("energy is outside its interval, or half given")
    return row


# ------------------------------------------------------------------------------------ finding


def list_tables(target: str | None = None) -> list[TableFile]:
    """Every table in :func:`edgeofa.paths.table_dirs`, the user's first; only headers are read.

    A header that cannot be read is named in a warning and left out.
    """
    found = []
    for folder in table_dirs():
        for path in sorted(folder.glob(f"{target or '*'}/*.toml")):
            try:
                found.append(read_header(path))
            except FileFormatError as error:
                warnings.warn(str(error), stacklevel=2)
    return found


def open_table(name: str) -> tuple[Path, Table]:
    """A table by file (``….csv``) or by name, such as ``rpi4/cifar_lite-litert-int8``."""
    if name.endswith((".csv", ".toml")):
        path = Path(name).with_suffix(".csv")
        if not path.exists() and not path.with_suffix(".toml").exists():
            raise MissingMaterial("no such table", where=path)
        return path, read_table(path)
    known = {f"{t.header.target}/{t.path.stem}": t.path for t in reversed(list_tables())}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "edgeofa table list"
        raise MissingMaterial(f"no table {name[:200]!r}", hint=hint)
    return known[name], read_table(known[name])


def find_table(
    target: Target,
    space: str,
    backend: str,
    precision: DType,
    threads: int = 1,
    *,
    source: str | None = None,
    stale_ok: bool = False,
    folders: Sequence[Path] | None = None,
) -> Table:
    """The user's table, else the published one.

    ``source`` is what ``--space`` finds the space by, for the hint of an error; by default its
    name.

    A table of the user's that covers only some resolutions of a published one of the same
    evidence gives way to it, with a warning. A table that was made for another content of the
    target file, or with other model constants or another runtime than edgeofa's, is stale (see
    ``freshness``): a later folder's fresh table goes before it. Where only stale ones exist the
    answer is ``StaleTable``, because each of these changes every number; ``stale_ok`` takes the
    first one with a warning instead. ``MissingMaterial`` where there is none at all.
    """
    suffix = "" if threads == 1 else f"-{threads}threads"
    name = f"{space}-{backend}-{precision}{suffix}.csv"
    fresh: list[tuple[Path, Table]] = []
    stale: list[tuple[Path, Table, str]] = []
    for folder in table_dirs() if folders is None else folders:
        path = folder / target.name / name
        if not path.exists() and not path.with_suffix(".toml").exists():
            continue
        table = read_table(path)
        _check_subject(table, (target.name, space, backend, precision, threads), path)
        reason = staleness(table.header, target)
        if reason is None:
            fresh.append((path, table))
        else:
            stale.append((path, table, reason))
    if fresh:
        return _widest(fresh)
    command = (
        f"edgeofa profile --target {target.name} --space {source or space} "
        f"--backend {backend} --precision {precision}"
    ) + ("" if threads == 1 else f" --threads {threads}")
    if not stale:
        raise MissingMaterial(
            f"no latency table of {space} with {backend} {precision}, {threads} thread(s)",
            where=f"target {target.name}",
            hint=command,
        )
    path, table, message = stale[0]
    if not stale_ok:
        raise StaleTable(message, where=path, hint=command)
    warnings.warn(f"{path}: {message}", stacklevel=2)
    return table


def _widest(found: Sequence[tuple[Path, Table]]) -> Table:
    """The first table, unless a later one of the same evidence has all its resolutions and more."""
    path, best = found[0]
    for other_path, other in found[1:]:
        mine, theirs = set(best.header.resolutions), set(other.header.resolutions)
        if mine < theirs and other.header.evidence == best.header.evidence:
            warnings.warn(
                f"{path} covers {', '.join(map(str, sorted(mine)))} only: {other_path} is used",
                stacklevel=3,
            )
            path, best = other_path, other
    return best


def _check_subject(table: Table, wanted: tuple[object, ...], path: Path) -> None:
    h = table.header
    for name, is_, should in zip(
        ("target", "space", "backend", "precision", "threads"),
        (h.target, h.space, h.backend, h.precision, h.threads),
        wanted,
        strict=True,
    ):
        if is_ != should:
            raise FileFormatError(
                f"a foreign table: {name} is {is_!r}, its place says {should!r}", where=path
            )
