"""The pictures: complete SVG, the figures in them, the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from edgeofa.report import plots

FRONT = [(float(x), 0.5 + 0.4 * x / (x + 5)) for x in range(1, 30)]
BLOCKS = [
    ("stem-64x64x3-32x32x16-m0-k3-s2-r0-se0-relu-same", 0.5),
    ("mbconv-32x32x16-16x16x24-m96-k5-s2-r0-se1-hardswish-same", 2.25),
    ("head-16x16x24-1x1x10-m64-k1-s1-r0-se0-relu-same-x128", 0.25),
]


def texts(svg: str) -> str:
    """All text of a well-formed SVG."""
    return " ".join("".join(e.itertext()) for e in ET.fromstring(svg).iter())  # noqa: S314


def test_frontier_marks_pick_and_budget() -> None:
    svg = plots.frontier_svg(FRONT, pick=(19.5, 0.8182), budget_ms=20, evidence="modelled")
    text = texts(svg)
    assert "pick: 19.50 ms, 81.82%" in text
    assert "budget 20 ms" in text
    assert "predicted latency, ms (modelled)" in text
    assert svg == plots.frontier_svg(FRONT, pick=(19.5, 0.8182), budget_ms=20, evidence="modelled")


def test_a_score_is_not_shown_as_accuracy() -> None:
    text = texts(plots.frontier_svg(FRONT, claims_accuracy=False))
    assert "score (no accuracy)" in text
    assert "top-1" not in text


def test_blocks_are_named_and_add_up() -> None:
    text = texts(plots.blocks_svg(BLOCKS, evidence="measured"))
    assert "mid 96, k5, s2" in text
    assert "2.25 ms  75%" in text
    assert "(measured); sum 3.00 ms" in text


def test_agreement_says_the_error() -> None:
    assert "20.90 ms (+4.5%)" in texts(plots.agreement_svg([(20.0, 20.9)], evidence="modelled"))


@pytest.mark.parametrize("points", [[], FRONT[:1]])
def test_little_data_still_draws(points: list[tuple[float, float]], tmp_path: Path) -> None:
    png, svg = plots.save_frontier(points, tmp_path, "f", title="t")
    assert png.stat().st_size > 1000
    assert ET.parse(svg)  # noqa: S314
