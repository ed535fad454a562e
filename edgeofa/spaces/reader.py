"""Reads a declared tree from plain data (TOML or Python values).

A node is a table with one of the keys ``block``, ``sequence``, ``repeat``, ``choose``, ``when`` or
``use``, or a list, which is a sequence. ``docs/spaces.md`` is the manual.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from edgeofa.spaces.expressions import Condition, ConditionError, parse_condition
from edgeofa.spaces.fields import (
    FIELDS,
    FieldSpec,
    only,
    read_list,
    read_name,
    read_table,
    read_value,
    unknown,
)
from edgeofa.spaces.nodes import (
    FIGURES,
    MAX_CHOICES,
    MAX_DEPTH,
    MAX_TREE,
    BlockNode,
    Choice,
    ChooseNode,
    DeclarationError,
    Location,
    Node,
    Relative,
    RepeatNode,
    SequenceNode,
    Tied,
    Ties,
    Value,
    WhenNode,
)

_KEYS: dict[str, tuple[str, ...]] = {
    "sequence": ("sequence", "name"),
    "repeat": ("repeat", "times", "tied", "first", "name"),
    "choose": ("choose", "name"),
    "when": ("when", "then", "else", "name"),
    "use": ("use", "name"),
}


class Reader:
    """Reads the nodes of one declaration; counts them, because parts can be used many times."""

    def __init__(self, parts: Mapping[str, object], ties: Ties):
        self._parts = parts
        self._ties = ties
        self._nodes = 0
        self.used_ties: set[str] = set()
        self.used_parts: set[str] = set()

    def read(self, data: object, location: Location, depth: int = 0) -> Node:
        """The node that ``data`` declares; ``DeclarationError`` names the first mistake."""
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise DeclarationError(location, f"nodes are nested more than {MAX_DEPTH} deep")
        if self._nodes > MAX_TREE:
            raise DeclarationError(location, f"more than {MAX_TREE} nodes")
        if isinstance(data, (list, tuple)):
            return self._sequence(data, location, depth)
        table = read_table(data, location, "a node is a table or a list")
        kinds = [k for k in ("block", *_KEYS) if k in table]
        if len(kinds) != 1:
            raise DeclarationError(location, self._no_kind(table, kinds))
        if kinds == ["block"]:
            return self._block(table, location)
        only(table, _KEYS[kinds[0]], location, f"key of a {kinds[0]}")
        if kinds == ["sequence"]:
            items = read_list(table["sequence"], (*location, "sequence"))
            return self._sequence(items, (*location, "sequence"), depth)
        if kinds == ["repeat"]:
            return self._repeat(table, location, depth)
        if kinds == ["choose"]:
            return self._choose(table, location, depth)
        if kinds == ["when"]:
            return self._when(table, location, depth)
        return self._use(table, location, depth)

    def _no_kind(self, table: Mapping[str, object], kinds: list[str]) -> str:
        if kinds:
            return f"both {kinds[0]} and {kinds[1]}: a node is one of them"
        keys = ("block", *_KEYS)
        for key in table:
            if difflib.get_close_matches(str(key), keys, n=1, cutoff=0.6):
                return unknown(key, keys, "node")
        return f"a node needs one of the keys {', '.join(keys)}"

    def condition(self, data: object, location: Location, names: Iterable[str] = ()) -> Condition:
        try:
            found = parse_condition(data, ("resolution", *self._ties, *names))
        except ConditionError as error:
            raise DeclarationError(location, str(error)) from None
        self.used_ties |= found.names & self._ties.keys()
        return found

    # ------------------------------------------------------------------ composites

    def _sequence(self, data: Iterable[object], location: Location, depth: int) -> Node:
        items = []
        names: set[str] = set()
        for n, item in enumerate(data):
            at = (*location, n)
            name = _own_name(item, at) or str(n)
            if name in names:
                raise DeclarationError(at, f"a second node of the name {name!r}")
            names.add(name)
            items.append((name, self.read(item, at, depth + 1)))
        return SequenceNode(tuple(items))

    def _repeat(self, table: Mapping[str, object], location: Location, depth: int) -> Node:
        at = (*location, "times")
        if "times" not in table:
            raise DeclarationError(at, "missing: how many copies, such as [1, 2, 3]")
        times = self._value(table["times"], FieldSpec("int", 0, 64), at)
        tied = table.get("tied", False)
        if not isinstance(tied, bool):
            raise DeclarationError((*location, "tied"), "true or false")
        inner = (*location, "repeat")
        content = table["repeat"]
        body = self.read(content, inner, depth + 1)
        first = body
        if "first" in table:
            at = (*location, "first")
            if tied:
                raise DeclarationError(at, "copies that are tied have no other first one")
            over = read_table(table["first"], at, "a table of fields of the block")
            alone = content
            if isinstance(content, (list, tuple)) and len(content) == 1:
                alone = content[0]
            if not isinstance(alone, Mapping) or "block" not in alone:
                raise DeclarationError(at, "only where one block alone is repeated")
            kind = str(alone["block"])
            only(over, FIELDS.get(kind, {}), at, f"field of a {kind}")
            first = self.read({**alone, **over}, at, depth + 1)
        if isinstance(times, Relative):
            raise DeclarationError((*location, "times"), "a number, a list, or a tie")
        if tied and isinstance(times, Tied) and 0 in map(times.value, self._ties[times.tie]):
            raise DeclarationError(at, "tied copies that may be none need their own list of times")
        return RepeatNode(_single(body), _single(first), times, tied, location)

    def _choose(self, table: Mapping[str, object], location: Location, depth: int) -> Node:
        at = (*location, "choose")
        data = read_list(table["choose"], at)
        if not 1 <= len(data) <= MAX_CHOICES:
            raise DeclarationError(at, f"1 to {MAX_CHOICES} branches, not {len(data)}")
        branches: dict[str, Node] = {}
        obvious = [_obvious_name(item) for item in data]
        for n, item in enumerate(data):
            if item in data[:n]:
                raise DeclarationError((*at, n), f"the same as branch {data.index(item)}")
            name = _own_name(item, (*at, n))
            if name is None and obvious.count(obvious[n]) == 1:
                name = obvious[n]
            name = name or str(n)
            if name in branches:
                raise DeclarationError((*at, n), f"a second branch of the name {name!r}")
            branches[name] = self.read(item, (*at, n), depth + 1)
        return ChooseNode(tuple(branches.items()))

    def _when(self, table: Mapping[str, object], location: Location, depth: int) -> Node:
        condition = self.condition(table["when"], (*location, "when"))
        if "then" not in table:
            raise DeclarationError((*location, "then"), "missing")
        return WhenNode(
            condition,
            self.read(table["then"], (*location, "then"), depth + 1),
            self.read(table.get("else", ()), (*location, "else"), depth + 1),
            location,
        )

    def _use(self, table: Mapping[str, object], location: Location, depth: int) -> Node:
        name, at = table["use"], (*location, "use")
        if not isinstance(name, str) or name not in self._parts:
            raise DeclarationError(at, unknown(name, self._parts, "part"))
        self.used_parts.add(name)
        # a part that uses itself ends at MAX_DEPTH
        return self.read(self._parts[name], ("parts", name), depth + 1)

    # ------------------------------------------------------------------ blocks

    def _value(
        self, data: object, spec: FieldSpec, location: Location, *, relative: bool = False
    ) -> Value:
        found = read_value(data, spec, location, self._ties, relative=relative)
        if isinstance(found, Tied):
            self.used_ties.add(found.tie)
        return found

    def _block(self, table: Mapping[str, object], location: Location) -> Node:
        kind = table["block"]
        if not isinstance(kind, str) or kind not in FIELDS:
            raise DeclarationError((*location, "block"), unknown(kind, FIELDS, "block"))
        specs = FIELDS[kind]
        only(table, ("block", *specs, "where", "name"), location, f"field of a {kind}")
        fields: list[tuple[str, Value]] = []
        for name, spec in specs.items():
            at = (*location, name)
            if name in table:
                fields.append((name, self._value(table[name], spec, at, relative=name == "out")))
            elif spec.default is None:
                raise DeclarationError(at, f"missing: a {kind} needs it")
            else:
                fields.append((name, Choice((spec.default,))))
        where = None
        if "where" in table:
            where = self.condition(table["where"], (*location, "where"), FIGURES)
        return BlockNode(kind, tuple(fields), where, location)


def _own_name(item: object, location: Location) -> str | None:
    if isinstance(item, Mapping) and "name" in item:
        return read_name(item["name"], (*location, "name"))
    return None


def _obvious_name(item: object) -> str | None:
    """What a branch without a name is called where no other is like it: its block, its part."""
    if isinstance(item, Mapping):
        for key in ("block", "use"):
            if isinstance(item.get(key), str):
                return str(item[key])
    return None


def _single(node: Node) -> Node:
    """A sequence of one unnamed node is that node."""
    if isinstance(node, SequenceNode) and len(node.items) == 1 and node.items[0][0] == "0":
        return node.items[0][1]
    return node
