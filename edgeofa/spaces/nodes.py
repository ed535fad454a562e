"""The tree that a space declares, and how it is read from plain data (TOML or Python values).

A node is a table with one of the keys ``block``, ``sequence``, ``repeat``, ``choose``, ``when`` or
``use``, or a list, which is a sequence. Fields of blocks are values: a scalar, a list of choices,
``{ tie = "width" }`` or ``{ input_times = [1, 2] }``. ``docs/spaces.md`` is the manual.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from edgeofa.spaces.blocks import BlockActivation, SpaceActivation, make_divisible
from edgeofa.spaces.expressions import Condition, ConditionError, Scalar, parse_condition

#: what a space file may hold at most: nesting, and nodes after parts are put in
MAX_DEPTH = 24
MAX_TREE = 2000
MAX_CHOICES = 64
MAX_CHANNELS = 8192

Location = tuple[str | int, ...]
Ties = Mapping[str, tuple[Scalar, ...]]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
#: what a condition about a block can name
FIGURES = (
    *("size", "size_out", "cin", "cout", "mid", "kernel", "stride", "expand"),
    *("residual", "se", "activation", "kind"),
)
RESERVED = frozenset({"resolution", "end", *FIGURES})


class DeclarationError(ValueError):
    """A mistake in a space's declaration: its place in the data, and the reason."""

    def __init__(self, location: Location, reason: str):
        self.location = location
        self.reason = reason
        super().__init__(f"{'.'.join(map(str, location)) or 'space'}: {reason}")


@dataclass(frozen=True)
class Choice:
    """One of several values, chosen here alone."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Tied:
    """The value of a tie, times a factor, rounded as ``make_divisible`` does."""

    tie: str
    times: float = 1
    multiple_of: int = 1

    def value(self, tied: Scalar) -> Scalar:
        if isinstance(tied, (str, bool)) or (self.times == 1 and self.multiple_of == 1):
            return tied
        return make_divisible(tied * self.times, self.multiple_of)


@dataclass(frozen=True)
class Relative:
    """The channels of the block's input times one of several factors, rounded likewise."""

    factors: tuple[float, ...]
    multiple_of: int = 8

    def value(self, channels: int, factor: float) -> int:
        return make_divisible(channels * factor, self.multiple_of)


Value = Choice | Tied | Relative


@dataclass(frozen=True)
class BlockNode:
    kind: str
    fields: tuple[tuple[str, Value], ...]
    where: Condition | None
    location: Location


@dataclass(frozen=True)
class SequenceNode:
    items: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class RepeatNode:
    """``body`` a number of times; the first copy is ``first``. ``tied``: all copies alike."""

    body: Node
    first: Node
    times: Choice | Tied
    tied: bool
    location: Location


@dataclass(frozen=True)
class ChooseNode:
    branches: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class WhenNode:
    """``otherwise`` is None where nothing may follow if the condition does not hold."""

    condition: Condition
    then: Node | None
    otherwise: Node | None
    location: Location


Node = BlockNode | SequenceNode | RepeatNode | ChooseNode | WhenNode


@dataclass(frozen=True)
class _Field:
    """What a block's field may be. ``low`` and ``high`` bound numbers."""

    kind: Literal["int", "bool", "activation"]
    low: int = 1
    high: int = 1
    odd: bool = False
    default: Scalar | None = None
    linear: bool = False


_OUT = _Field("int", 1, MAX_CHANNELS)
_KERNEL = _Field("int", 1, 31, odd=True)
_POOL_KERNEL = _Field("int", 2, 31)
_STRIDE = _Field("int", 1, 8, default=1)
_ACTIVATION = _Field("activation")
_ANY_ACTIVATION = _Field("activation", linear=True)
_OFF = _Field("bool", default=False)

#: fields of each kind of block, in the order in which their choices are labelled and counted
FIELDS: dict[str, dict[str, _Field]] = {
    "stem": {"out": _OUT, "kernel": _KERNEL, "stride": _STRIDE, "activation": _ACTIVATION},
    "conv": {
        "out": _OUT,
        "kernel": _KERNEL,
        "stride": _STRIDE,
        "residual": _OFF,
        "activation": _ANY_ACTIVATION,
    },
    "mbconv": {
        "out": _OUT,
        "kernel": _KERNEL,
        "expand": _Field("int", 1, 32),
        "stride": _STRIDE,
        "se": _OFF,
        "activation": _ACTIVATION,
    },
    "max_pool": {"kernel": _POOL_KERNEL, "stride": _STRIDE},
    "average_pool": {"kernel": _POOL_KERNEL, "stride": _STRIDE},
    "skip": {},
    "head": {
        "expand": _Field("int", 1, 16384),
        "mix": _Field("int", 0, 16384, default=0),
        "activation": _ACTIVATION,
    },
}
_KEYS: dict[str, tuple[str, ...]] = {
    "sequence": ("sequence", "name"),
    "repeat": ("repeat", "times", "tied", "first", "name"),
    "choose": ("choose", "name"),
    "when": ("when", "then", "else", "name"),
    "use": ("use", "name"),
}


def unknown(key: object, valid: Iterable[str], what: str) -> str:
    """The sentence about a key that does not exist, with the nearest one that does."""
    known = list(valid)
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
    also = f"; did you mean {near[0]}?" if near else ""
    return f"unknown {what} {str(key)[:40]!r} (valid: {', '.join(known)}{also})"


def read_name(data: object, location: Location) -> str:
    """A name of a node, tie or part."""
    if not isinstance(data, str) or not _NAME.fullmatch(data):
        raise DeclarationError(
            location, f"not a name: {str(data)[:40]!r} (lower-case letters, digits and _)"
        )
    if data in RESERVED:
        raise DeclarationError(location, f"{data!r} has a meaning of its own: take another name")
    return data


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
        table = _table(data, location, "a node is a table or a list")
        kinds = [k for k in ("block", *_KEYS) if k in table]
        if len(kinds) != 1:
            raise DeclarationError(location, self._no_kind(table, kinds))
        if kinds == ["block"]:
            return self._block(table, location)
        _only(table, _KEYS[kinds[0]], location, f"key of a {kinds[0]}")
        if kinds == ["sequence"]:
            items = _list(table["sequence"], (*location, "sequence"))
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
        times = self._value(table["times"], _Field("int", 0, 64), at, relative=False)
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
            over = _table(table["first"], at, "a table of fields of the block")
            only = content
            if isinstance(content, (list, tuple)) and len(content) == 1:
                only = content[0]
            if not isinstance(only, Mapping) or "block" not in only:
                raise DeclarationError(at, "only where one block alone is repeated")
            kind = str(only["block"])
            _only(over, FIELDS.get(kind, {}), at, f"field of a {kind}")
            first = self.read({**only, **over}, at, depth + 1)
        if isinstance(times, Relative):
            raise DeclarationError((*location, "times"), "a number, a list, or a tie")
        if tied and isinstance(times, Tied) and 0 in map(times.value, self._ties[times.tie]):
            raise DeclarationError(at, "tied copies that may be none need their own list of times")
        return RepeatNode(_single(body), _single(first), times, tied, location)

    def _choose(self, table: Mapping[str, object], location: Location, depth: int) -> Node:
        at = (*location, "choose")
        data = _list(table["choose"], at)
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

    def _block(self, table: Mapping[str, object], location: Location) -> Node:
        kind = table["block"]
        if not isinstance(kind, str) or kind not in FIELDS:
            raise DeclarationError((*location, "block"), unknown(kind, FIELDS, "block"))
        specs = FIELDS[kind]
        _only(table, ("block", *specs, "where", "name"), location, f"field of a {kind}")
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

    def _value(self, data: object, spec: _Field, location: Location, *, relative: bool) -> Value:
        if isinstance(data, Mapping):
            return self._reference(data, spec, location, relative=relative)
        values = list(data) if isinstance(data, (list, tuple)) else [data]
        if not 1 <= len(values) <= MAX_CHOICES:
            raise DeclarationError(location, f"1 to {MAX_CHOICES} choices, not {len(values)}")
        choices = tuple(_scalar(v, spec, location) for v in values)
        ascending = list(choices) == sorted(set(choices), key=choices.index)
        if spec.kind == "int":
            ascending = list(choices) == sorted(set(choices))
        if not ascending:
            raise DeclarationError(
                location, f"choices must be ascending and without repeats: {values}"
            )
        return Choice(choices)

    def _reference(
        self, data: Mapping[object, object], spec: _Field, location: Location, *, relative: bool
    ) -> Value:
        table = _table(data, location, "")
        keys = ("tie", "times", "multiple_of", *(("input_times",) if relative else ()))
        _only(table, keys, location, "key of a value")
        if "input_times" in table and ("tie" in table or "times" in table):
            raise DeclarationError(location, "either a tie or input_times")
        multiple = table.get("multiple_of", 8 if "input_times" in table else 1)
        if not isinstance(multiple, int) or not 1 <= multiple <= 1024:
            raise DeclarationError((*location, "multiple_of"), "a whole number, 1 to 1024")
        if "input_times" in table:
            at = (*location, "input_times")
            given = table["input_times"]
            factors = [
                _factor(x, at) for x in (given if isinstance(given, (list, tuple)) else [given])
            ]
            if not factors or factors != sorted(set(factors)) or len(factors) > MAX_CHOICES:
                raise DeclarationError(at, "factors must be ascending and without repeats")
            return Relative(tuple(factors), multiple)
        tie = table.get("tie")
        at = (*location, "tie")
        if not isinstance(tie, str) or tie not in self._ties:
            if not self._ties:
                raise DeclarationError(at, f"no tie {tie!r}: the space declares none (key ties)")
            raise DeclarationError(at, unknown(tie, self._ties, "tie"))
        self.used_ties.add(tie)
        found = Tied(tie, _factor(table.get("times", 1), (*location, "times")), multiple)
        for value in self._ties[tie]:
            _scalar(found.value(value), spec, at)
        return found


def _scalar(value: object, spec: _Field, location: Location) -> Scalar:
    if spec.kind == "bool":
        if isinstance(value, bool):
            return value
        raise DeclarationError(location, f"true or false, not {str(value)[:40]!r}")
    if spec.kind == "activation":
        valid = get_args(BlockActivation if spec.linear else SpaceActivation)
        if isinstance(value, str) and value in valid:
            return value
        raise DeclarationError(location, unknown(value, valid, "activation"))
    if isinstance(value, bool) or not isinstance(value, int):
        raise DeclarationError(location, f"a whole number, not {str(value)[:40]!r}")
    if not spec.low <= value <= spec.high:
        raise DeclarationError(location, f"{spec.low} to {spec.high}, not {value}")
    if spec.odd and value % 2 == 0:
        raise DeclarationError(location, f"must be odd: {value}")
    return value


def _factor(value: object, location: Location) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-3 <= value <= 1e3:
        raise DeclarationError(location, f"a factor from 0.001 to 1000, not {str(value)[:40]!r}")
    return value


def _table(data: object, location: Location, what: str) -> dict[str, object]:
    if not isinstance(data, Mapping) or not all(isinstance(k, str) for k in data):
        raise DeclarationError(location, f"{what}, not {str(data)[:40]!r}")
    return dict(data)


def _list(data: object, location: Location) -> list[object]:
    if not isinstance(data, (list, tuple)):
        raise DeclarationError(location, f"a list of nodes, not {str(data)[:40]!r}")
    return list(data)


def _only(table: Iterable[str], valid: Iterable[str], location: Location, what: str) -> None:
    known = list(valid)
    for key in table:
        if key not in known:
            raise DeclarationError((*location, key), unknown(key, known, what))


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
