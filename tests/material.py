"""Real data that some tests need; it lies beside the checkout, never in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def material(name: str) -> Path:
    """The path of ``name``, or a skip that says what is absent."""
    path = Path(os.environ.get("EDGEOFA_TEST_DATA", _DEFAULT)) / name
    if not path.exists():
        pytest.skip(f"test material {name} is absent (EDGEOFA_TEST_DATA can point to it)")
    return path
