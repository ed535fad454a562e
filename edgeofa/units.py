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


def parse_quantity(text: str, dimension: Dimension) -> float:
    """The value in ms, mJ or bytes; a missing or foreign unit is a ``UsageError``."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([a-zA-Zµ]{1,3})\s*", text)
    factor = _FACTORS[dimension].get(match[2].lower()) if match else None
    value = float(match[1]) * factor if match and factor is not None else 0.0
    if value <= 0:
        units = ", ".join(_FACTORS[dimension])
        raise UsageError(
            f"not a positive {dimension}: {text[:40]!r}",
            hint=f"write it as {_EXAMPLE[dimension]} (units: {units})",
        )
    return value
