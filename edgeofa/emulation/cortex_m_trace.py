"""What the Cortex-M plugin wrote: the blocks that each run executed, layer by layer.

The file comes from a process that may have been killed or run out of disk, so it is read as
hostile: lengths and numbers are bounded, and a run counts only when its closing line is there.
The format is described at the top of ``targets/runtime/emulation/cortex_m.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeofa.emulation.thumb import split
from edgeofa.emulation.trace_file import MAX_BLOCKS, Refuse, read_trace

MAGIC = "edgeofa-cortex-m 1"
_MAX_HALFWORDS = 1024
_MAX_LINE_BYTES = 4 * _MAX_HALFWORDS + 64
_LINE = {
    "B": re.compile(rf"B ([0-9]{{1,7}}) ((?:[0-9a-f]{{4}}){{1,{_MAX_HALFWORDS}}})"),
    "C": re.compile(r"C ([0-9]{1,7})" + r" ([0-9]{1,18})" * 4),
    "L": re.compile(r"L ([0-9]{1,4}) ([0-9]{1,7})"),
    "R": re.compile(r"R ([0-9]{1,6}) ([0-9]{1,7}) ([0-9]{1,4})"),
}


@dataclass(frozen=True)
class BlockCount:
    """One basic block: its code (4 hexadecimal digits per halfword), how often it ran, how often
    by a taken branch, and the flash lines that its loads and its own code missed."""

    code: str
    executions: int
    taken: int
    data_misses: int
    code_misses: int


@dataclass(frozen=True)
class Executed:
    """What ran in a layer, or in a run outside its layers."""

    blocks: tuple[BlockCount, ...]

    @property
    def instructions(self) -> int:
        return sum(b.executions * len(split(b.code)) for b in self.blocks)


@dataclass(frozen=True)
class Run:
    """One inference: its layers in order, if the firmware told them apart, and the rest."""

    layers: tuple[Executed, ...]
    outside: Executed

    @property
    def whole(self) -> Executed:
        """Everything together."""
        return Executed(tuple(b for part in (*self.layers, self.outside) for b in part.blocks))


def parse_runs(path: Path) -> tuple[Run, ...]:
    """The finished runs of a trace in their order; what follows the last one is left out.

    Raises ``FileFormatError`` with the line number for anything that the plugin cannot have
    written.
    """
    return read_trace(path, _runs)


def _runs(file: IO[bytes], refuse: Refuse) -> Iterator[Run]:
    code: dict[int, str] = {}
    counts: dict[int, BlockCount] = {}
    layers: list[Executed] = []
    runs = 0

    for number, line in enumerate(_lines(file), 1):
        if number == 1:
            if line != MAGIC:
                raise refuse(f"not a trace ({MAGIC!r} expected)", 1)
            continue
        pattern = _LINE.get(line[:1])
        match = pattern.fullmatch(line) if pattern else None
        if match is None:
            raise refuse("not a line of a trace", number)
        first = int(match[1])
        if line[0] == "B":
            if first in code or len(code) >= MAX_BLOCKS:
                raise refuse("a block twice, or too many blocks", number)
            code[first] = match[2]
        elif line[0] == "C":
            if first not in code or first in counts:
                raise refuse("counts of an unknown block, or twice", number)
            values = [int(group) for group in match.groups()[1:]]
            counts[first] = BlockCount(code[first], *values)
        else:
            expected = len(layers) if line[0] == "L" else runs
            if first != expected or int(match[2]) != len(counts):
                raise refuse("it does not have the blocks that it names", number)
            executed, counts = Executed(tuple(counts.values())), {}
            if line[0] == "L":
                layers.append(executed)
                continue
            if int(match[3]) != len(layers):
                raise refuse("the run does not have the layers that it names", number)
            runs += 1
            yield Run(tuple(layers), executed)
            layers = []


def _lines(file: IO[bytes]) -> Iterable[str]:
    """Whole lines; a last one without an end is where the plugin was killed."""
    while raw := file.readline(_MAX_LINE_BYTES):
        if not raw.endswith(b"\n"):
            if len(raw) >= _MAX_LINE_BYTES:
                yield ""
            return
        yield raw[:-1].decode("latin-1")
