"""Energy of an inference where there is no meter: power times time.

The Raspberry Pi's power says little about which network runs: published figures of whole boards
move with the number of busy cores, not with the model. So the model is the board's idle power
plus a figure for each busy core, both intervals from published measurements.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeofa.targets import Target


class Energy(NamedTuple):
    """Millijoules per inference with a 95% interval; evidence ``modelled``."""

    mj: float
    low_mj: float
    high_mj: float


def energy_mj(target: Target, latency_ms: float, threads: int = 1) -> Energy | None:
    """Gross energy of one inference: what the whole board draws while it runs, idle included.

    The interval is that of the power alone; an interval of the latency multiplies it. None for a
    target without power figures.
    """
    if target.mcu is not None and target.mcu.active_w is not None:
        active = target.mcu.active_w
        return Energy(active.value * latency_ms, active.low * latency_ms, active.high * latency_ms)
    if target.power is None:
        return None
    idle, core = target.power.idle_w, target.power.core_w
    return Energy(
        (idle.value + threads * core.value) * latency_ms,
        (idle.low + threads * core.low) * latency_ms,
        (idle.high + threads * core.high) * latency_ms,
    )
