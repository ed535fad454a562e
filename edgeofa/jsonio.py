"""JSON of the library's return values: what ``--json`` prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from edgeofa.spaces.space import Subnet


def to_plain(value: Any) -> Any:
    """Dataclasses, models, paths and numpy values as dicts, lists, strings and numbers."""
    if isinstance(value, Subnet):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value


def dumps(value: Any) -> str:
    """``value`` as indented JSON; NaN and infinities are refused (``ValueError``)."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
