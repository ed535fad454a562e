"""The pictures of a test report, in the style of the deployment's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeofa.regression.history import THIS_RUN
from edgeofa.regression.record import Moved, Point
from edgeofa.report.plots import new_axes, svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 40
_BLUE, _ORANGE = "#2563a8", "#d9480f"


def history_svg(points: Sequence[Point]) -> str:
    """Latency of everything that was accepted, and of this run, with intervals."""
    return svg_of(lambda: _history(points))


def blocks_svg(moved: Sequence[Moved]) -> str:
    """Blocks that moved, baseline against now."""
    return svg_of(lambda: _blocks(moved))


def _history(points: Sequence[Point]) -> Figure:
    shown = points[-_POINTS:]
    figure, axes = new_axes(7.0, 3.2)
    places = list(range(len(shown)))
    for place, point in zip(places, shown, strict=True):
        now = point.runtime.endswith(THIS_RUN)
        axes.errorbar(
            [place],
            [point.latency_ms],
            yerr=[[point.latency_ms - point.low_ms], [point.high_ms - point.latency_ms]],
            fmt="D" if now else "o",
            color=_ORANGE if now else _BLUE,
            ms=6,
            capsize=3,
        )
    axes.plot(places, [p.latency_ms for p in shown], color=_BLUE, linewidth=1, alpha=0.5)
    axes.set_xticks(
        places, [f"{p.date[:10]}\n{p.runtime.split()[0]}" for p in shown], fontsize=7, rotation=0
    )
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"latency, ms ({shown[-1].evidence})")
    return figure


def _blocks(moved: Sequence[Moved]) -> Figure:
    shown = moved[:20]
    figure, axes = new_axes(7.0, 1.0 + 0.42 * len(shown))
    places = range(len(shown))
    axes.barh(
        [p - 0.18 for p in places], [m.old_ms for m in shown], 0.34, color=_BLUE, label="baseline"
    )
    axes.barh(
        [p + 0.18 for p in places], [m.new_ms for m in shown], 0.34, color=_ORANGE, label="now"
    )
    axes.set_yticks(list(places), [m.block[:60] for m in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("latency of the block, ms")
    axes.legend(loc="lower right", frameon=False)
    return figure
