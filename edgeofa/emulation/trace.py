"""What the QEMU plugin wrote: executed basic blocks and their cache misses, region by region.

The file comes from a process that may have been killed or run out of disk, so it is read as
hostile: lengths and numbers are bounded, and a region counts only when its closing line is there.
The format is described at the top of ``targets/runtime/emulation/profile.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeofa.emulation.trace_file import MAX_BLOCKS, Refuse, read_trace

MAGIC = "edgeofa-trace 1"
#: QEMU 7.2 translates at most 512 instructions at once
MAX_WORDS = 512
_MAX_LINE_BYTES = 8 * MAX_WORDS + 64
_LINE = {
    "B": re.compile(rf"B ([0-9]{{1,7}}) ((?:[0-9a-f]{{8}}){{1,{MAX_WORDS}}})"),
    "C": re.compile(r"C ([0-9]{1,7})" + r" ([0-9]{1,18})" * 5),
    "R": re.compile(r"R ([0-9]{1,4}) ([0-9]{1,7}) ([0-9]{1,18}) ([0-9]{1,18})"),
}


@dataclass(frozen=True)
class BlockCount:
    """One basic block in one region: its code (8 hexadecimal digits per instruction), how often it
    ran, and the cache lines it missed, split by whether a stream of lines led to them."""

    code: str
    executions: int
    l1_stream: int
    l1_other: int
    l2_stream: int
    l2_other: int

    @property
    def instructions(self) -> int:
        return self.executions * (len(self.code) // 8)


@dataclass(frozen=True)
class Region:
    """What ran between two marks. ``written_back`` counts dirty L2 lines that went to memory,
    ``foreign`` memory accesses of other threads, which make the counts unusable."""

    blocks: tuple[BlockCount, ...]
    written_back: int
    foreign: int

    @property
    def instructions(self) -> int:
        return sum(b.instructions for b in self.blocks)


def parse_trace(path: Path) -> tuple[Region, ...]:
    """The regions of a trace file in their order.

    Raises ``FileFormatError`` with the line number for anything that the plugin cannot have
    written, a missing end included.
    """
    return read_trace(path, _regions)


def _regions(file: IO[bytes], refuse: Refuse) -> Iterator[Region]:
    code: dict[int, str] = {}
    counts: dict[int, BlockCount] = {}
    regions = 0

    if _read_line(file) != MAGIC:
        raise refuse(f"not a trace ({MAGIC!r} expected)", 1)
    number = 1
    while (line := _read_line(file)) is not None:
        number += 1
        pattern = _LINE.get(line[:1])
        match = pattern.fullmatch(line) if pattern else None
        if match is None:
            raise refuse("not a line of a trace, or cut off", number)
        if line[0] == "B":
            block = int(match[1])
            if block in code or len(code) >= MAX_BLOCKS:
                raise refuse("a block twice, or too many blocks", number)
            code[block] = match[2]
        elif line[0] == "C":
            block, *values = (int(group) for group in match.groups())
            if block not in code or block in counts:
                raise refuse("counts of an unknown block, or twice", number)
            counts[block] = BlockCount(code[block], *values)
        else:
            regions += 1
            if int(match[1]) != regions or int(match[2]) != len(counts):
                raise refuse("the region does not have the blocks that it names", number)
            yield Region(tuple(counts.values()), int(match[3]), int(match[4]))
            counts = {}
    if counts or not regions:
        raise refuse("the trace ends inside a region", number)


def _read_line(file: IO[bytes]) -> str | None:
    """The next line without its end; None at the end of the file, ``""`` for a broken one."""
    raw = file.readline(_MAX_LINE_BYTES)
    if not raw:
        return None
    return raw[:-1].decode("latin-1") if raw.endswith(b"\n") else ""
