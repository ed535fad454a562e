from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeofa.errors import UsageError
from edgeofa.units import Dimension, parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("20ms", "time", 20.0),
        ("1.5 s", "time", 1500.0),
        ("250us", "time", 0.25),
        ("60mJ", "energy", 60.0),
        ("0.06J", "energy", 60.0),
        ("512KB", "memory", 512 * 1024),
        ("1MB", "memory", 1 << 20),
        ("100b", "memory", 100),
    ],
)
def test_values(text: str, dimension: Dimension, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value)


@pytest.mark.parametrize("text", ["20", "20mJ", "-3ms", "0ms", "ms", "", "1e3ms", "9" * 99 + "ms"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="20ms"):
        parse_quantity(text, "time")


@given(st.text(max_size=30))
def test_any_text_is_a_positive_value_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_quantity(text, "memory") > 0
