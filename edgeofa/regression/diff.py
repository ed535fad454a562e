"""Baselines among each other: what changed between two, and how a deployment came to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeofa.errors import MissingMaterial, UsageError
from edgeofa.regression.baseline import Baseline, list_baselines
from edgeofa.regression.cause import changes
from edgeofa.regression.record import Moved, Point
from edgeofa.regression.suite import points_of
from edgeofa.regression.timing import Change, compare

#: blocks that changed by less are not listed
_MOVED = 0.02


@dataclass(frozen=True)
class BaselineDiff:
    """``ratio`` is new over old latency, judged by the old one's gate; ``same_outputs`` whether
    the device computed the same bits."""

    old: str
    new: str
    change: Change
    ratio: float
    old_ms: float
    new_ms: float
    same_outputs: bool
    blocks: tuple[Moved, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """Everything that was accepted of one deployment on one target, the oldest first."""

    target: str
    deployment: str
    points: tuple[Point, ...]


def diff_baselines(old: Baseline, new: Baseline) -> BaselineDiff:
    """``UsageError`` for baselines of different targets, deployments or kinds of evidence: their
    numbers are not comparable."""
    for name in ("target", "deployment", "backend", "evidence"):
        has, wanted = getattr(old, name), getattr(new, name)
        if has != wanted:
            raise UsageError(f"they are not comparable: {name} {has} and {wanted}")
    found = compare(new.timing, old.timing, old.limits)
    was = {b.block: b.ms for b in old.blocks}
    moved = [
        Moved(block=b.block, old_ms=was[b.block], new_ms=b.ms)
        for b in new.blocks
        if b.block in was and abs(b.ms - was[b.block]) > _MOVED * was[b.block]
    ]
    return BaselineDiff(
        old=_title(old),
        new=_title(new),
        change=found.change,
        ratio=found.ratio,
        old_ms=old.latency.ms,
        new_ms=new.latency.ms,
        same_outputs=old.outputs == new.outputs,
        blocks=tuple(sorted(moved, key=lambda m: -abs(m.new_ms - m.old_ms))),
        changes=changes(old, new.artifact, new.device_identity, new.versions, new.timing),
    )


def _title(baseline: Baseline) -> str:
    return f"{baseline.backend} {baseline.runtime}, {baseline.evidence}, {baseline.date}"


def accepted_history(root: Path, target: str | None, deployment: str | None) -> tuple[History, ...]:
    """``MissingMaterial`` when nothing was accepted."""
    points: dict[tuple[str, str], list[Point]] = {}
    for _, baseline in list_baselines(root, target, deployment):
        key = (baseline.target, baseline.deployment)
        points.setdefault(key, []).extend(points_of(baseline))
    if not points:
        raise MissingMaterial("no baselines", where=root, hint="edgeofa baseline accept")
    return tuple(
        History(target, name, tuple(sorted(found, key=lambda p: p.date)))
        for (target, name), found in sorted(points.items())
    )
