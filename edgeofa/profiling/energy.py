"""The energy columns of a row."""

from __future__ import annotations

from dataclasses import dataclass

from edgeofa.profiling.protocol import Estimate
from edgeofa.targets import Target


@dataclass(frozen=True)
class Energy:
    mj: float
    low_mj: float
    high_mj: float


def energy_of(target: Target, estimate: Estimate) -> Energy | None:
    if target.power is None:
        return None
    p = target.power
    return Energy(
        estimate.ms * (p.idle_w.value + p.core_w.value),
        estimate.ms * (p.idle_w.low + p.core_w.low),
        estimate.ms * (p.idle_w.high + p.core_w.high),
    )
