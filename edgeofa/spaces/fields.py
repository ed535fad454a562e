"""What the fields of blocks may be, and how their values are read from plain data.

A value is a scalar, a list of choices, ``{ tie = "width" }`` or ``{ input_times = [1, 2] }``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from edgeofa.spaces.blocks import BlockActivation, SpaceActivation
from edgeofa.spaces.expressions import Scalar
from edgeofa.spaces.nodes import (
    MAX_CHANNELS,
    MAX_CHOICES,
    RESERVED,
    Choice,
    DeclarationError,
    Location,
    Relative,
    Tied,
    Ties,
    Value,
)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class FieldSpec:
    """What a block's field may be. ``low`` and ``high`` bound numbers."""

    kind: Literal["int", "bool", "activation"]
    low: int = 1
    high: int = 1
    odd: bool = False
    default: Scalar | None = None
    linear: bool = False


_OUT = FieldSpec("int", 1, MAX_CHANNELS)
_KERNEL = FieldSpec("int", 1, 31, odd=True)
_POOL_KERNEL = FieldSpec("int", 2, 31)
_STRIDE = FieldSpec("int", 1, 8, default=1)
_ACTIVATION = FieldSpec("activation")
_ANY_ACTIVATION = FieldSpec("activation", linear=True)
_OFF = FieldSpec("bool", default=False)

#: fields of each kind of block, in the order in which their choices are labelled and counted
FIELDS: dict[str, dict[str, FieldSpec]] = {
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
        "expand": FieldSpec("int", 1, 32),
        "stride": _STRIDE,
        "se": _OFF,
        "activation": _ACTIVATION,
    },
    "max_pool": {"kernel": _POOL_KERNEL, "stride": _STRIDE},
    "average_pool": {"kernel": _POOL_KERNEL, "stride": _STRIDE},
    "skip": {},
    "head": {
        "expand": FieldSpec("int", 1, 16384),
        "mix": FieldSpec("int", 0, 16384, default=0),
        "activation": _ACTIVATION,
    },
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


def read_value(
    data: object,
    spec: FieldSpec,
    location: Location,
    ties: Ties,
    *,
    relative: bool = False,
) -> Value:
    """A value; ``relative`` ones may be factors of the input's channels."""
    if isinstance(data, Mapping):
        return _reference(data, spec, location, ties, relative=relative)
    values = list(data) if isinstance(data, (list, tuple)) else [data]
    if not 1 <= len(values) <= MAX_CHOICES:
        raise DeclarationError(location, f"1 to {MAX_CHOICES} choices, not {len(values)}")
    choices = tuple(read_scalar(v, spec, location) for v in values)
    ascending = list(choices) == sorted(set(choices), key=choices.index)
    if spec.kind == "int":
        ascending = list(choices) == sorted(set(choices))
    if not ascending:
        raise DeclarationError(location, f"choices must be ascending and without repeats: {values}")
    return Choice(choices)


def _reference(
    data: Mapping[object, object],
    spec: FieldSpec,
    location: Location,
    ties: Ties,
    *,
    relative: bool,
) -> Value:
    table = read_table(data, location, "")
    keys = ("tie", "times", "multiple_of", *(("input_times",) if relative else ()))
    only(table, keys, location, "key of a value")
    if "input_times" in table and ("tie" in table or "times" in table):
        raise DeclarationError(location, "either a tie or input_times")
    multiple = table.get("multiple_of", 8 if "input_times" in table else 1)
    if not isinstance(multiple, int) or not 1 <= multiple <= 1024:
        raise DeclarationError((*location, "multiple_of"), "a whole number, 1 to 1024")
    if "input_times" in table:
        at = (*location, "input_times")
        given = table["input_times"]
        factors = [_factor(x, at) for x in (given if isinstance(given, (list, tuple)) else [given])]
        if not factors or factors != sorted(set(factors)) or len(factors) > MAX_CHOICES:
            raise DeclarationError(at, "factors must be ascending and without repeats")
        return Relative(tuple(factors), multiple)
    tie = table.get("tie")
    at = (*location, "tie")
    if not isinstance(tie, str) or tie not in ties:
        if not ties:
            raise DeclarationError(at, f"no tie {tie!r}: the space declares none (key ties)")
        raise DeclarationError(at, unknown(tie, ties, "tie"))
    found = Tied(tie, _factor(table.get("times", 1), (*location, "times")), multiple)
    for value in ties[tie]:
        read_scalar(found.value(value), spec, at)
    return found


def read_scalar(value: object, spec: FieldSpec, location: Location) -> Scalar:
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


def read_table(data: object, location: Location, what: str) -> dict[str, object]:
    if not isinstance(data, Mapping) or not all(isinstance(k, str) for k in data):
        raise DeclarationError(location, f"{what}, not {str(data)[:40]!r}")
    return dict(data)


def read_list(data: object, location: Location) -> list[object]:
    if not isinstance(data, (list, tuple)):
        raise DeclarationError(location, f"a list of nodes, not {str(data)[:40]!r}")
    return list(data)


def only(table: Iterable[str], valid: Iterable[str], location: Location, what: str) -> None:
    known = list(valid)
    for key in table:
        if key not in known:
            raise DeclarationError((*location, key), unknown(key, known, what))
