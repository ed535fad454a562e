"""The pictures of a report, as SVG text or as PNG and SVG files.

Each ``*_svg`` function draws one picture; ``save_frontier`` writes one to files. Labels carry their
units. The drawing library is imported when a picture is drawn, never before, and is used through
its object interface: no global state, no display. The same figures give the same SVG bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeofa.paths import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

_INK, _SOFT, _LINE = "#1c2430", "#5b6675", "#dfe4ea"
_BLUE, _ORANGE = "#2563a8", "#d9480f"
_PART_COLOURS = {"stem": "#94a3b8", "mbconv": _BLUE, "head": "#475569"}
_STYLE: Any = {  # the key type of a style is a literal of 300 names
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _INK,
    "svg.hashsalt": "edgeofa",
    "svg.fonttype": "none",
}


def frontier_svg(
    points: Sequence[Point],
    *,
    pick: Point | None = None,
    budget_ms: float | None = None,
    evidence: str = "",
    claims_accuracy: bool = True,
) -> str:
    """The latency-accuracy frontier with the pick and the budget marked.

    Args:
        points: (latency in ms, accuracy 0 to 1) of every non-dominated subnet, in any order; with
            ``claims_accuracy=False`` the second is a score without a unit.
    """
    return svg_of(lambda: _frontier(points, pick, budget_ms, evidence, claims_accuracy, ""))


def save_frontier(
    points: Sequence[Point],
    folder: Path,
    name: str,
    *,
    title: str,
    x_label: str = "predicted latency, ms",
    claims_accuracy: bool = True,
) -> tuple[Path, Path]:
    """The frontier as ``NAME.png`` (200 dpi) and ``NAME.svg`` in ``folder``; returns both paths."""

    def draw() -> Figure:
        figure = _frontier(points, None, None, "", claims_accuracy, title)
        figure.axes[0].set_xlabel(x_label)
        return figure

    return _save(draw, folder, name)


def save_surface(
    points: Sequence[tuple[float, float, float]],
    folder: Path,
    name: str,
    *,
    title: str,
    labels: tuple[str, str],
    claims_accuracy: bool = True,
) -> tuple[Path, Path]:
    """Accuracy against two costs, ``(cost, cost, accuracy)``: one panel a cost, coloured by the
    other; as ``NAME.png`` and ``NAME.svg``."""
    return _save(lambda: _surface(points, labels, claims_accuracy, title), folder, name)


def save_growth(
    panels: Sequence[tuple[str, Sequence[tuple[str, Sequence[Point]]]]], path: Path, *, title: str
) -> Path:
    """Seconds against sizes, logarithmic, to a .png or .svg file.

    Args:
        panels: for each its x label and its series, a name and (size, seconds) points.
    """
    with _style():
        figure, first = new_axes(5.0 * len(panels), 4.2)
        figure.delaxes(first)
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (x_label, series) in zip(drawn, panels, strict=True):
            for label, points in series:
                axes.plot([x for x, _ in points], [y for _, y in points], "o-", ms=4, label=label)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlabel(x_label)
        drawn[0].set_ylabel("seconds")
        drawn[0].legend(loc="upper left", frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        options = _SVG_OPTIONS if path.suffix == ".svg" else {"dpi": 200, "format": "png"}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            figure.savefig(file, **options)
    return path


def _save(draw: Callable[[], Figure], folder: Path, name: str) -> tuple[Path, Path]:
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with _style():
        figure = draw()
        for path, options in ((png, {"dpi": 200, "format": "png"}), (svg, _SVG_OPTIONS)):
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                figure.savefig(file, **options)
    return png, svg


def blocks_svg(blocks: Sequence[tuple[str, float]], *, evidence: str = "") -> str:
    """One bar a block, input at the top: ``(block key, latency in ms)``."""
    return svg_of(lambda: _blocks(blocks, evidence))


def layers_svg(layers: Sequence[tuple[str, float]], *, evidence: str = "") -> str:
    """One bar a layer, input at the top: ``(name, latency in ms)``."""
    return svg_of(lambda: _bars(layers, "layer", evidence))


def agreement_svg(pairs: Sequence[Point], *, evidence: str) -> str:
    """Predicted against measured latency, ms, with the line of equality and a 5% band."""
    return svg_of(lambda: _agreement(pairs, evidence))


# ------------------------------------------------------------------------------------ drawing


def _frontier(
    points: Sequence[Point],
    pick: Point | None,
    budget_ms: float | None,
    evidence: str,
    claims_accuracy: bool,
    title: str,
) -> Figure:
    figure, axes = new_axes(7.0, 4.2)
    scale = 100 if claims_accuracy else 1
    ordered = sorted(points)
    axes.step(
        [x for x, _ in ordered],
        [scale * y for _, y in ordered],
        where="post",
        color=_BLUE,
        linewidth=1.4,
        label="non-dominated subnets",
        zorder=3,
    )
    if len(ordered) <= 80:
        axes.plot([x for x, _ in ordered], [scale * y for _, y in ordered], "o", color=_BLUE, ms=3)
    if budget_ms is not None:
        axes.axvline(
            budget_ms, color=_SOFT, linestyle="--", linewidth=1, label=f"budget {budget_ms:g} ms"
        )
    if pick is not None:
        x, y = pick[0], scale * pick[1]
        what = f"{y:.2f}%" if claims_accuracy else f"score {y:.3g}"
        axes.plot([x], [y], "D", color=_ORANGE, ms=7, zorder=4, label=f"pick: {x:.2f} ms, {what}")
    axes.set_xlabel(f"predicted latency, ms{_of(evidence)}")
    axes.set_ylabel("predicted top-1 accuracy, %" if claims_accuracy else "score (no accuracy)")
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _surface(
    points: Sequence[tuple[float, float, float]],
    labels: tuple[str, str],
    claims_accuracy: bool,
    title: str,
) -> Figure:
    figure, left = new_axes(10.0, 4.4)
    figure.delaxes(left)
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    scale = 100 if claims_accuracy else 1
    worth = [scale * p[2] for p in points]
    for n, axes in enumerate(panels):
        costs, others = [p[n] for p in points], [p[1 - n] for p in points]
        dots = axes.scatter(costs, worth, c=others, s=5, cmap="viridis", linewidths=0, zorder=2)
        # the best of each cost alone, whatever the other
        best = -float("inf")
        steps = []
        for cost, value in sorted(zip(costs, worth, strict=True), key=lambda s: (s[0], -s[1])):
            if value > best:
                best = value
                steps.append((cost, value))
        axes.step(*zip(*steps, strict=True), where="post", color=_INK, linewidth=0.8, zorder=3)
        axes.set_xlabel(labels[n])
        figure.colorbar(dots, ax=axes, label=labels[1 - n])
    panels[0].set_ylabel("predicted top-1 accuracy, %" if claims_accuracy else "score")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _blocks(blocks: Sequence[tuple[str, float]], evidence: str) -> Figure:
    colours = [_PART_COLOURS.get(key.split("-", 1)[0], _BLUE) for key, _ in blocks]
    return _bars([(_short(key), ms) for key, ms in blocks], "block", evidence, colours)


def _bars(
    bars: Sequence[tuple[str, float]], what: str, evidence: str, colours: Sequence[str] = ()
) -> Figure:
    figure, axes = new_axes(7.0, 1.0 + 0.24 * len(bars))
    total = sum(ms for _, ms in bars)
    places = range(len(bars))
    axes.barh(places, [ms for _, ms in bars], color=list(colours) or _BLUE, height=0.72)
    axes.set_yticks(places, [name for name, _ in bars], fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    longest = max((ms for _, ms in bars), default=1.0)
    for place, (_, ms) in enumerate(bars):
        axes.text(
            ms + 0.01 * longest,
            place,
            f"{ms:.2f} ms  {100 * ms / total:.0f}%" if total else f"{ms:.2f} ms",
            va="center",
            fontsize=8,
            color=_SOFT,
        )
    axes.set_xlim(0, 1.2 * longest)
    axes.set_xlabel(f"latency of the {what}, ms{_of(evidence)}; sum {total:.2f} ms")
    return figure


def _agreement(pairs: Sequence[Point], evidence: str) -> Figure:
    figure, axes = new_axes(4.8, 4.4)
    values = [v for pair in pairs for v in pair] or [1.0]
    margin = 0.12 * max(values)
    low, high = max(min(values) - margin, 0.0), max(values) + margin
    ends = [low, high]
    axes.fill_between(
        ends, [0.95 * e for e in ends], [1.05 * e for e in ends], color=_LINE, label="within 5%"
    )
    axes.plot(ends, ends, color=_SOFT, linewidth=1, label="equal")
    axes.plot([p for p, _ in pairs], [m for _, m in pairs], "o", color=_ORANGE, ms=6, zorder=3)
    if len(pairs) <= 5:
        for predicted, found in pairs:
            axes.annotate(
                f"{found:.2f} ms ({100 * (found / predicted - 1):+.1f}%)",
                (predicted, found),
                textcoords="offset points",
                xytext=(8, -12),
                fontsize=8,
            )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted from the table, ms")
    axes.set_ylabel(f"whole network on the device, ms{_of(evidence)}")
    axes.legend(loc="upper left", frameon=False)
    return figure


def _of(evidence: str) -> str:
    return f" ({evidence})" if evidence else ""


def _short(key: str) -> str:
    """A block key as a reader wants it: kind, shapes, width, kernel, stride."""
    kind, source, result, *rest = key.split("-")
    facts = {part[0]: part for part in rest if part[0] in "mks" and part[1:].isdigit()}
    if kind == "mbconv":
        return f"{source} → {result}  mid {facts['m'][1:]}, {facts['k']}, {facts['s']}"
    return f"{kind}  {source} → {result}"


_SVG_OPTIONS: dict[str, Any] = {"format": "svg", "metadata": {"Date": None}}


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches, to be drawn inside :func:`svg_of`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def svg_of(draw: Callable[[], Figure]) -> str:
    """The figure as an ``<svg>`` element that can stand inside a page."""
    with _style():
        text = io.StringIO()
        draw().savefig(text, **_SVG_OPTIONS)
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
