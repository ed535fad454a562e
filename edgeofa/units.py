"""Quantities as people write them: ``20ms``, ``60mJ``, ``512KB``."""

from __future__ import annotations

import re
from typing import Literal

from edgeofa.errors import UsageError

Dimension = Literal["time", "energy", "memory"]

_FACTORS: dict[Dimension, dict[str, float]] = {
    # to milliseconds, millijoules, bytes; KB and MB are what a data sheet's kB is: 1024
    "time": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6},
    "energy": {"nj": 1e-6, "uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3},
    "memory": {"b": 1, "kb": 1024, "kib": 1024, "mb": 1 << 20, "mib": 1 << 20},
}
_EXAMPLE: dict[Dimension, str] = {"time": "20ms", "energy": "60mJ", "memory": "512KB"}
_ARTICLE: dict[Dimension, str] = {
    "time": "a time",
    "energy": "an energy",
    "memory": "a size in memory",
}
_OPTION: dict[Dimension, str] = {
    "time": "--latency",
    "energy": "--energy",
    "memory": "--flash or --sram",
}


def parse_quantity(text: str, dimension: Dimension) -> float:
    """The value in ms, mJ or bytes; a missing or foreign unit is a ``UsageError``."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([a-zA-Zµ]{1,3})\s*", text)
    factor = _FACTORS[dimension].get(match[2].lower()) if match else None
    value = float(match[1]) * factor if match and factor is not None else 0.0
    if match and factor is None:
        for other, option in _OPTION.items():
            if match[2].lower() in _FACTORS[other]:
                raise UsageError(
                    f"{text.strip()} is not {_ARTICLE[dimension]}, but {_ARTICLE[other]}",
                    hint=f"write it as {_EXAMPLE[dimension]}, or use {option}",
                )
    if value <= 0:
        units = ", ".join(_FACTORS[dimension])
        raise UsageError(
            f"not a positive {dimension}: {text[:40]!r}",
            hint=f"write it as {_EXAMPLE[dimension]} (units: {units})",
        )
    return value


def parse_each(text: str | None, dimension: Dimension, count: int) -> list[float | None]:
    """A quantity for each of ``count`` targets: one for all of them, or ``20ms,15ms`` in their
    order with ``-`` for none; None for no text."""
    if text is None:
        return [None] * count
    parts = [part.strip() for part in text[:1000].split(",")]
    if len(parts) == 1:
        parts *= count
    if len(parts) != count:
        raise UsageError(
            f"{len(parts)} budgets for {count} target(s): {text[:80]!r}",
            hint=f"give one for all targets, or one each with - for none: {_EXAMPLE[dimension]},-",
        )
    return [None if part == "-" else parse_quantity(part, dimension) for part in parts]


def parse_share(text: str) -> float:
    """A share as people write it: ``92%``, ``92.5 %`` or ``0.92``."""
    match = re.fullmatch(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*(%?)\s*", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value < 1:
        raise UsageError(
            f"not a share between 0 and 100%: {text[:40]!r}", hint="write it as 92% or 0.92"
        )
    return value
