from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeofa.errors import UsageError
from edgeofa.units import Dimension, parse_each, parse_quantity, parse_share


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


def test_another_units_option_is_named() -> None:
    with pytest.raises(UsageError, match="60mJ is not a time, but an energy") as caught:
        parse_quantity("60mJ", "time")
    assert "--energy" in (caught.value.hint or "")


def test_one_quantity_for_all_or_one_each() -> None:
    assert parse_each(None, "time", 2) == [None, None]
    assert parse_each("20ms", "time", 2) == [20, 20]
    assert parse_each("20ms, -", "time", 2) == [20, None]
    with pytest.raises(UsageError, match="2 budgets for 3 target"):
        parse_each("20ms,15ms", "time", 3)


@pytest.mark.parametrize(("text", "value"), [("92%", 0.92), ("92.5 %", 0.925), ("0.9", 0.9)])
def test_shares(text: str, value: float) -> None:
    assert parse_share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["92", "0%", "100%", "-5%", "", "0.9ms"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="not a share"):
        parse_share(text)
