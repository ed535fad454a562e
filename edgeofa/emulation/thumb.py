"""Thumb-2 code of basic blocks: where instructions begin, and what each class of them costs.

Costs are those of the Cortex-M4 and M33 technical reference manuals, branches without the refill of
the pipeline, which depends on whether they are taken:

    LDR 2 (1 directly after a load or store)    STR 1       LDM, STM, LDRD, STRD 1 + registers
    MLA, MLS 2    other multiplies 1            DIV 7       VLDR, VSTR 2     TBB, TBH 2
    LDR to PC 3 more                            everything else 1
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from edgeofa.emulation.mca import Isa

_Kind = Literal["load", "store", "other"]
_LONG = (0b11101, 0b11110, 0b11111)
_DIVIDE, _TO_PC = 7.0, 3.0


def split(code: str) -> list[str]:
    """The instructions of a block: 4 hexadecimal digits for each halfword, 4 or 8 digits each."""
    found: list[str] = []
    place = 0
    while place < len(code):
        size = 8 if int(code[place : place + 4], 16) >> 11 in _LONG else 4
        found.append(code[place : place + size])
        place += size
    return found


def _priced(code: str) -> list[str]:
    """Without IT, which cores fold away, and which would change what follows it in a listing."""
    return [i for i in split(code) if not (len(i) == 4 and i[:2] == "bf" and i[3] != "0")]


#: for llvm-mca; every extension that our targets have
THUMB = Isa("thumbv8.1m.main", "+dsp,+mve,+fp-armv8d16sp", _priced, 2)


@lru_cache(maxsize=1 << 16)
def class_cycles(code: str) -> float:
    """Cycles of one execution of a block by the costs above."""
    total, before = 0.0, "other"
    for instruction in split(code):
        cycles, kind = _long(int(instruction, 16)) if len(instruction) == 8 else _short(instruction)
        if kind == "load" and before != "other" and cycles == 2:
            cycles = 1.0
        total += cycles
        before = kind
    return total


def _short(text: str) -> tuple[float, _Kind]:
    h = int(text, 16)
    top = h >> 12
    if h >> 11 == 0b01001:  # LDR literal
        return 2.0, "load"
    if top == 0b0101:  # register offset; the last five of eight load
        return (2.0, "load") if h >> 9 & 7 >= 3 else (1.0, "store")
    if top in (0b0110, 0b0111, 0b1000, 0b1001):  # immediate offset
        return (2.0, "load") if h >> 11 & 1 else (1.0, "store")
    if top == 0b1100:  # LDM, STM
        return 1.0 + (h & 0xFF).bit_count(), "other"
    if h & 0xF600 == 0xB400:  # PUSH, POP
        return 1.0 + (h & 0x1FF).bit_count(), "other"
    return 1.0, "other"


def _long(w: int) -> tuple[float, _Kind]:
    top = w >> 24
    if top in (0xE8, 0xE9):
        return _multiple(w)
    if top in (0xF8, 0xF9):
        return _single(w)
    if top == 0xFB:
        return _multiply(w), "other"
    if top in (0xEC, 0xED) and w >> 9 & 7 == 0b101:
        return _floating(w), "other"
    return 1.0, "other"


def _multiple(w: int) -> tuple[float, _Kind]:
    loads: _Kind = "load" if w >> 20 & 1 else "store"
    if not w >> 22 & 1:  # LDM, STM
        return 1.0 + (w & 0xFFFF).bit_count(), "other"
    if w >> 24 & 1 or w >> 21 & 1:  # LDRD, STRD
        return 3.0, loads
    if w & 0xFFF0FFE0 == 0xE8D0F000:  # TBB, TBH
        return 2.0, "other"
    return (2.0, loads) if loads == "load" else (1.0, loads)  # exclusive


def _single(w: int) -> tuple[float, _Kind]:
    if not w >> 20 & 1:
        return 1.0, "store"
    if w >> 12 & 0xF == 15:
        # a preload, or a jump
        return (2.0 + _TO_PC, "load") if w >> 21 & 3 == 2 else (1.0, "other")
    return 2.0, "load"


def _multiply(w: int) -> float:
    operation, last = w >> 20 & 0xF, w >> 4 & 0xF
    if operation in (0x9, 0xB) and last == 0xF:
        return _DIVIDE
    if operation == 0 and (last == 1 or (last == 0 and w >> 12 & 0xF != 15)):  # MLS, MLA
        return 2.0
    return 1.0


def _floating(w: int) -> float:
    if w & 0x0FE00000 == 0x0C400000:  # two registers at once, no memory
        return 1.0
    if w >> 24 & 1 and not w >> 21 & 1:  # VLDR, VSTR
        return 2.0
    words = w & 0xFF
    return 1.0 + (words if not w >> 8 & 1 else words // 2)
