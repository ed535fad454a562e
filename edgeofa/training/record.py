"""A training's record: what it was, what it cost, its curve as numbers and as a figure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.training.trainer import Budget, Trainer

__all__ = ["draw_curves", "record_of", "write_record"]

_SCHEMA = 1
#: the figure's lines: key of a point, and what it is called
LINES = {"largest": "largest", "random": "random subnets", "smallest": "smallest"}


def record_of(trainer: Trainer, budget: Budget) -> dict[str, Any]:
    """Costs in multiply-accumulates (``training_macs``: forward and backward passes, a backward
    one counted as two forward ones) and seconds; the curve's accuracies are of averaged weights on
    held-out images, 0 to 1."""
    limits = {k: v for k, v in asdict(budget).items() if v is not None and isfinite(v)}
    return {
        "schema_version": _SCHEMA,
        "space": trainer.space.name,
        "schedule": trainer.schedule.text,
        "seed": trainer.seed,
        "training_images": len(trainer.train),
        "budget": limits,
        "recipe": asdict(trainer.recipe),
        "cost": asdict(trainer.progress),
        "curve": trainer.curve,
    }


def write_record(trainer: Trainer, budget: Budget) -> None:
    """``record.json`` and ``curve.png`` in the training's folder."""
    write_atomic(trainer.out / "record.json", dumps(record_of(trainer, budget)) + "\n")
    if trainer.curve:
        title = f"{trainer.space.name}, {trainer.schedule.text}"
        draw_curves({"": trainer.curve}, title, trainer.out / "curve.png")


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, float]]], title: str, out: Path) -> None:
    """Accuracy over cost; one panel for each of the largest, random and smallest subnets where
    several trainings are compared, else one panel for all."""
    from matplotlib.figure import Figure

    several = len(curves) > 1
    figure = Figure(figsize=(11, 3.6) if several else (6, 4), layout="constrained")
    axes = figure.subplots(1, len(LINES) if several else 1, squeeze=False)[0]
    for panel, (key, label) in enumerate(LINES.items()):
        axis = axes[panel if several else 0]
        for name, points in curves.items():
            axis.plot(
                [p["training_macs"] / 1e12 for p in points],
                [100 * p[key] for p in points],
                marker=".",
                label=name if several else label,
            )
        if several:
            axis.set_title(label)
    for axis in axes:
        axis.set_xlabel("cost, 10¹² MAC")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on held-out images, %")
    axes[0].legend()
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    write_atomic(out, buffer.getvalue())
