"""What changed between two baselines."""

from __future__ import annotations

from dataclasses import dataclass

from edgeofa.errors import UsageError
from edgeofa.regression.baseline import Baseline, other_device
from edgeofa.regression.blocks import moved_blocks
from edgeofa.regression.cause import changes
from edgeofa.regression.record import Moved
from edgeofa.regression.timing import Change, compare


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


def diff_baselines(old: Baseline, new: Baseline) -> BaselineDiff:
    """``UsageError`` for baselines of different targets, deployments, kinds of evidence, devices or
    latency models: their numbers are not comparable."""
    for name in ("target", "deployment", "backend", "evidence"):
        has, wanted = getattr(old, name), getattr(new, name)
        if has != wanted:
            raise UsageError(f"they are not comparable: {name} {has} and {wanted}")
    for key, has, wanted in other_device(old, new.device_identity):
        raise UsageError(
            f"they are of different devices: {key} {has or 'none'} and {wanted or 'none'}"
        )
    found = compare(new.timing, old.timing, old.limits)
    return BaselineDiff(
        old=_title(old),
        new=_title(new),
        change=found.change,
        ratio=found.ratio,
        old_ms=old.latency.ms,
        new_ms=new.latency.ms,
        same_outputs=old.outputs == new.outputs,
        blocks=moved_blocks(
            {b.block: b.ms for b in old.blocks}, {b.block: b.ms for b in new.blocks}
        ),
        changes=changes(old, new.artifact, new.device_identity, new.versions, new.timing),
    )


def _title(baseline: Baseline) -> str:
    return f"{baseline.backend} {baseline.runtime}, {baseline.evidence}, {baseline.date}"
