"""On which line of a TOML text each key and list item stands; the standard parser does not say.

The text is one that :mod:`tomllib` has accepted, so that nothing is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence

Place = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""+|\'\'\'.*?\'\'\'+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)
_BARE = re.compile(r"[^,\]}\n#]+")
_KEY = re.compile(r"\s*(\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|[A-Za-z0-9_-]+)\s*(\.)?")


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """The line (from 1) of the innermost part of ``place`` that the text has."""
    wanted = tuple(place)
    best: tuple[int, int] | None = None
    try:
        for found, at in _places(text):
            size = len(found)
            if found == wanted[:size] and (best is None or size > best[0]):
                best = size, at
    except RecursionError:
        return None
    return None if best is None else text.count("\n", 0, best[1]) + 1


def _places(text: str) -> Iterator[tuple[Place, int]]:
    """Every place with its position; places of tables that are opened twice come twice."""
    prefix: Place = ()
    counts: dict[Place, int] = {}
    at = _skip(text, 0)
    while at < len(text):
        if text[at] == "[":
            several = text.startswith("[[", at)
            keys, end = _keys(text, at + 1 + several)
            prefix = ()
            for key in keys[:-1]:
                prefix = _inside((*prefix, key), counts)
            prefix = (*prefix, keys[-1])
            if several:
                counts[prefix] = counts.get(prefix, -1) + 1
                prefix = _inside(prefix, counts)
            yield prefix, at
            at = _skip(text, end + 1 + several)
        else:
            at = _skip(text, (yield from _pair(text, at, prefix)))


def _inside(place: Place, counts: dict[Place, int]) -> Place:
    return (*place, counts[place]) if place in counts else place


def _pair(text: str, at: int, prefix: Place) -> Generator[tuple[Place, int], None, int]:
    keys, end = _keys(text, at)
    place = (*prefix, *keys)
    for n in range(len(prefix) + 1, len(place) + 1):
        yield place[:n], at
    return (yield from _value(text, _skip(text, end + 1), place))


def _value(text: str, at: int, place: Place) -> Generator[tuple[Place, int], None, int]:
    if text[at] == "[":
        at, n = _skip(text, at + 1), 0
        while text[at] != "]":
            yield (*place, n), at
            at = _skip(text, (yield from _value(text, at, (*place, n))))
            at, n = _skip(text, at + (text[at] == ",")), n + 1
        return at + 1
    if text[at] == "{":
        at = _skip(text, at + 1)
        while text[at] != "}":
            at = _skip(text, (yield from _pair(text, at, place)))
            at = _skip(text, at + (text[at] == ","))
        return at + 1
    found = _STRING.match(text, at) or _BARE.match(text, at)
    return found.end() if found else at + 1


def _keys(text: str, at: int) -> tuple[list[str], int]:
    """The parts of a dotted key, and the position of what ends it."""
    keys = []
    while (match := _KEY.match(text, at)) is not None:
        keys.append(match[1].strip("\"'"))
        at = match.end()
        if match[2] is None:
            break
    return keys, at


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
