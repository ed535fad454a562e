"""Everything of a space that decides which networks there are, read from plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeofa.spaces.blocks import Padding
from edgeofa.spaces.expressions import Condition, ConditionError, Scalar, parse_condition
from edgeofa.spaces.fields import FIELDS, read_name, unknown
from edgeofa.spaces.nodes import FIGURES, MAX_CHOICES, DeclarationError, Location, Node
from edgeofa.spaces.reader import Reader

_TIE_TEXT = re.compile(r"[A-Za-z0-9_]{1,32}")


@dataclass(frozen=True)
class TieNode:
    """A named choice that many places share. It exists where ``when`` holds."""

    name: str
    values: tuple[Scalar, ...]
    when: Condition | None


@dataclass(frozen=True)
class Constraint:
    """A condition over ties (``kind`` is None), or over every block, or every block of one kind."""

    condition: Condition
    blocks: bool
    kind: str | None
    location: Location

    @property
    def text(self) -> str:
        return self.condition.text


@dataclass(frozen=True)
class Declaration:
    """Everything that decides which networks there are."""

    root: Node
    ties: tuple[TieNode, ...]
    constraints: tuple[Constraint, ...]
    padding: Padding
    classes: int


def read_declaration(
    body: Sequence[object],
    parts: Mapping[str, object],
    ties: Mapping[str, object],
    constraints: Sequence[object],
    padding: Padding,
    classes: int,
) -> Declaration:
    """The declaration; ``DeclarationError`` names the first mistake and its place."""
    found = _ties(ties)
    for name in parts:
        read_name(name, ("parts", name))
    reader = Reader(parts, {t.name: t.values for t in found})
    root = reader.read(body, ("body",))
    limits = tuple(_constraint(reader, c, ("constraints", n)) for n, c in enumerate(constraints))
    used = reader.used_ties.union(*(t.when.names for t in found if t.when))
    for tie in found:
        if tie.name not in used:
            raise DeclarationError(("ties", tie.name), "nothing refers to this tie")
    for name in parts:
        if name not in reader.used_parts:
            raise DeclarationError(("parts", name), "nothing uses this part")
    return Declaration(root, found, limits, padding, classes)


def _ties(data: Mapping[str, object]) -> tuple[TieNode, ...]:
    found: list[TieNode] = []
    for name, given in data.items():
        at: Location = ("ties", name)
        read_name(name, at)
        when: Condition | None = None
        values = given
        if isinstance(given, Mapping):
            for key in given:
                if key not in ("values", "when"):
                    raise DeclarationError((*at, str(key)), unknown(key, ("values", "when"), "key"))
            values = given.get("values")
            if "when" in given:
                known = ("resolution", *(t.name for t in found))
                try:
                    when = parse_condition(given["when"], known)
                except ConditionError as error:
                    raise DeclarationError((*at, "when"), f"{error} (earlier ties only)") from None
        if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= MAX_CHOICES:
            raise DeclarationError(at, f"a list of 1 to {MAX_CHOICES} values")
        scalars = tuple(_tie_value(v, at) for v in values)
        if len(set(scalars)) < len(scalars) or len({type(v) for v in scalars}) > 1:
            raise DeclarationError(at, f"values of one type, without repeats: {list(scalars)}")
        found.append(TieNode(name, scalars, when))
    return tuple(found)


def _tie_value(value: object, location: Location) -> Scalar:
    if isinstance(value, (bool, int)) or (isinstance(value, str) and _TIE_TEXT.fullmatch(value)):
        if not isinstance(value, (bool, str)) and not -(10**6) <= value <= 10**6:
            raise DeclarationError(location, f"numbers up to 1000000, not {str(value)[:40]}")
        return value
    raise DeclarationError(
        location, f"whole numbers, true and false, or words of letters, not {str(value)[:40]!r}"
    )


def _constraint(reader: Reader, data: object, location: Location) -> Constraint:
    keys = ("require", "blocks", "kind")
    if not isinstance(data, Mapping):
        raise DeclarationError(location, 'a table, such as { require = "width % 8 == 0" }')
    for key in data:
        if key not in keys:
            raise DeclarationError((*location, str(key)), unknown(key, keys, "key"))
    if ("require" in data) == ("blocks" in data):
        raise DeclarationError(location, "either require (of ties) or blocks (of every block)")
    if "require" in data:
        if "kind" in data:
            raise DeclarationError((*location, "kind"), "belongs to blocks, not to require")
        at = (*location, "require")
        return Constraint(reader.condition(data["require"], at), False, None, at)
    kind = data.get("kind")
    if kind is not None and (not isinstance(kind, str) or kind not in FIELDS or kind == "skip"):
        raise DeclarationError((*location, "kind"), unknown(kind, FIELDS, "block"))
    at = (*location, "blocks")
    return Constraint(reader.condition(data["blocks"], at, FIGURES), True, kind, at)
