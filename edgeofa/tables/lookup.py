"""Import of once-for-all's latency look-up tables (``RESOLUTION_lookup_table.yaml``).

The files are YAML of one fixed shape, a name and three numbers::

    expanded_conv-input:10x10x96-output:10x10x136-expand:288-kernel:3-stride:1-idskip:0-se:1-hs:1:
      count: 100
      mean: 0.86918
      std: 0.013281099352086765

so that a strict reader of these four lines is enough, and nothing of YAML that could run code or
grow without bound (tags, anchors) is understood. Latencies are in ms.

MBConv and stem have one entry each. What edgeofa measures as one head is four entries there: the
last convolution, the pooling, the layer after it and the classifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import cast, get_args

from edgeofa import __version__
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.graph.ir import DType
from edgeofa.paths import table_dirs
from edgeofa.spaces.space import Block, Space
from edgeofa.tables.export import lookup_name
from edgeofa.tables.store import write_table
from edgeofa.tables.table import Header, Row, Table
from edgeofa.targets import load_target, target_names

_MAX_BYTES = 4 << 20
_MAX_ENTRIES = 20_000
_NAME = re.compile(r"[A-Za-z][\w.:x-]{0,199}")
_COUNT = re.compile(r"\d{1,9}")
_DECIMAL = re.compile(r"\d{1,9}(?:\.\d{1,30})?(?:e-?\d{1,2})?")
_FIELDS = (("count", _COUNT), ("mean", _DECIMAL), ("std", _DECIMAL))
#: half the width of a 95% interval in standard errors
_Z95 = 1.96


@dataclass(frozen=True)
class Entry:
    """One timed layer: number of runs, their mean and standard deviation in ms."""

    count: int
    mean_ms: float
    std_ms: float

    @property
    def variance(self) -> float:
        """Of the mean, ms squared."""
        return self.std_ms**2 / self.count


@dataclass(frozen=True)
class Origin:
    """What the files do not say and the person who imports them must.

    ``device`` is named in the table's header; ``runtime`` is what ran there.
    """

    target: str
    target_digest: str
    device: str
    backend: str
    precision: DType
    threads: int
    runtime: str
    date: str


def read_lookup(path: Path) -> dict[str, Entry]:
    """The entries of one file by name; anything but the fixed shape is refused with its line."""
    lines = _lines(path)
    entries: dict[str, Entry] = {}
    for start in range(0, len(lines), 4):
        name = lines[start].removesuffix(":")
        if lines[start] == name or not _NAME.fullmatch(name) or name in entries:
            raise FileFormatError(f"line {start + 1}: not a new entry's name", where=path)
        values = []
        for n, (field, pattern) in enumerate(_FIELDS, start + 1):
            text = lines[n].removeprefix(f"  {field}: ") if n < len(lines) else ""
            if not pattern.fullmatch(text):
                raise FileFormatError(f"line {n + 1}: not '{field}: number'", where=path)
            values.append(float(text))
        entry = Entry(int(values[0]), values[1], values[2])
        if not (entry.count > 0 and entry.mean_ms > 0 and isfinite(entry.mean_ms)):
            raise FileFormatError(f"line {start + 2}: no time was taken of {name}", where=path)
        entries[name] = entry
    return entries


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise MissingMaterial(
            f"cannot be read: {error.strerror}",
            where=path,
            hint="the authors publish it: ofa/tutorial/latency_table.py of "
            "github.com/mit-han-lab/once-for-all names the addresses",
        ) from error
    if len(content) > _MAX_BYTES:
        raise FileFormatError(f"larger than {_MAX_BYTES} bytes, not a look-up table", where=path)
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"byte {error.start} is not ASCII", where=path) from error
    if not lines or len(lines) > 4 * _MAX_ENTRIES:
        raise FileFormatError(f"{len(lines)} lines, not a look-up table", where=path)
    return lines


def resolution_of(entries: Mapping[str, Entry], path: Path) -> int:
    """The input size that a file is about, from its stem."""
    found = {m[1] for name in entries if (m := re.fullmatch(r"Conv-input:(\d+)x\1x3-.*", name))}
    if len(found) != 1:
        raise FileFormatError("no entry Conv-input:RxRx3 that names the resolution", where=path)
    return int(found.pop())


def import_lookups(paths: Sequence[Path], space: Space, origin: Origin) -> Table:
    """One table of the look-up files of several resolutions; every block of the space is needed.

    Two resolutions can share blocks (176 and 192 px both end at 6x6), which the files time once
    each: the table holds the mean, weighted by the runs. The table of a single file sums to the
    file's own figures.

    Evidence is ``measured``: a clock on ``origin.device`` gave the times. The interval is the
    mean's 95%. The bytes are those of the block's graph, which the files do not have.

    Raises:
        FileFormatError: a file that is not a look-up table, or a second one of a resolution.
        MissingMaterial: a block of the space has no entry (it is named): another space.
    """
    files: dict[int, tuple[Path, dict[str, Entry]]] = {}
    for path in paths:
        entries = read_lookup(path)
        resolution = resolution_of(entries, path)
        if resolution not in space.resolutions:
            raise FileFormatError(
                f"resolution {resolution} is not in space {space.name}", where=path
            )
        if resolution in files:
            raise FileFormatError(f"a second file of resolution {resolution}", where=path)
        files[resolution] = path, entries
    timed: dict[Block, list[list[Entry]]] = {}
    for resolution, (path, entries) in sorted(files.items()):
        for block in space.all_blocks((resolution,)):
            timed.setdefault(block, []).append(_entries_of(block, entries, space, path))
    rows = {block.key: _row(block, times, origin.precision) for block, times in timed.items()}
    header = Header(
        target=origin.target,
        target_digest=origin.target_digest,
        space=space.name,
        backend=origin.backend,
        precision=origin.precision,
        threads=origin.threads,
        evidence="measured",
        runtime=origin.runtime,
        runtime_version="unknown",
        runtime_digest="unknown",
        device={"name": origin.device, "source": "imported once-for-all look-up table"},
        protocol_version=0,
        seed=0,
        date=origin.date,
        edgeofa_version=__version__,
        resolutions=tuple(sorted(files)),
        additivity=None,
    )
    return Table(header, {key: rows[key] for key in sorted(rows)})


def store_lookups(
    paths: Sequence[Path],
    space: Space,
    *,
    target: str,
    device: str,
    backend: str,
    precision: str,
    threads: int,
    runtime: str,
    date: str,
    folder: Path | None = None,
) -> tuple[Path, Table]:
    """Import look-up files and write the table, by default among the user's own.

    ``target`` is a target's name, or a target file (anything that ends in ``.toml``). The digest is
    that of the target's file where there is one, so that the table counts as made for it; otherwise
    it says that there was none.

    Raises:
        UsageError: a name or precision that no table can have.
    """
    known = load_target(target) if target.endswith(".toml") or target in target_names() else None
    target = target if known is None else known.name
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", target):
        raise UsageError(f"not a target's name: {target[:80]!r}", hint="such as note10")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", backend):
        raise UsageError(f"not a back end's name: {backend[:80]!r}", hint="such as litert")
    if precision not in get_args(DType):
        raise UsageError(f"no precision {precision[:80]!r}", hint="float32 or int8")
    origin = Origin(
        target=target,
        target_digest="no target file" if known is None else known.digest,
        device=device,
        backend=backend,
        precision=cast(DType, precision),
        threads=threads,
        runtime=runtime,
        date=date,
    )
    return write_table(import_lookups(paths, space, origin), folder or table_dirs()[0])


def _entries_of(
    block: Block, entries: Mapping[str, Entry], space: Space, path: Path
) -> list[Entry]:
    if block.kind == "head":
        size, pooled = f"{block.size}x{block.size}", f"1x1x{block.mid}"
        names = [
            f"Conv_1-input:{size}x{block.cin}-output:{size}x{block.mid}",
            f"AvgPool2D-input:{size}x{block.mid}-output:{pooled}",
            *([f"Conv_2-input:{pooled}-output:1x1x{block.mix}"] if block.mix else []),
            f"Logits-input:1x1x{block.mix or block.mid}-output:{block.cout}",
        ]
    else:
        names = [lookup_name(block.key)]
    missing = [name for name in names if name not in entries]
    if missing:
        raise MissingMaterial(
            f"no entry {missing[0]} for block {block.key}",
            where=path,
            hint=f"this file is not about space {space.name}; the official phone tables are of "
            "ofa_mbv3_w12",
        )
    return [entries[name] for name in names]


def _row(block: Block, times: Sequence[Sequence[Entry]], precision: DType) -> Row:
    """The row of a block from its entries in each file that times it."""
    from edgeofa.graph.blocks import block_graph
    from edgeofa.graph.memory import plan_memory, weight_bytes

    graph = block_graph(block, 0)
    # the graph is float32; in int8 all but the few biases takes a quarter
    scale = 4 if precision == "int8" else 1
    runs = [min(e.count for e in entries) for entries in times]
    mean = sum(n * sum(e.mean_ms for e in es) for n, es in zip(runs, times, strict=True))
    variance = sum(n**2 * sum(e.variance for e in es) for n, es in zip(runs, times, strict=True))
    mean_ms, half = mean / sum(runs), _Z95 * variance**0.5 / sum(runs)
    return Row(
        block=block.key,
        latency_ms=round(mean_ms, 6),
        latency_low_ms=round(max(mean_ms - half, 0.0), 6),
        latency_high_ms=round(mean_ms + half, 6),
        energy_mj=None,
        energy_low_mj=None,
        energy_high_mj=None,
        peak_bytes=plan_memory(graph).peak_bytes // scale,
        weight_bytes=weight_bytes(graph) // scale,
        samples=sum(runs),
        rounds=len(times),
        evidence="measured",
        status="ok",
    )
