"""What is different from the day of the baseline, and what that says about a slow-down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeofa.devices.base import DeviceState
from edgeofa.regression.baseline import Baseline
from edgeofa.regression.record import Moved
from edgeofa.regression.timing import Timing

#: below this a clock has not changed (readings of one clock vary by less)
_CLOCK = 0.05
#: warmer by this much: a board near its limit behaves differently
_WARMER_C = 15.0
_BUSIER = 1.0


def changes(
    baseline: Baseline,
    artifact: str,
    identity: Mapping[str, str],
    versions: Mapping[str, str],
    timing: Timing | None,
) -> tuple[str, ...]:
    """Lines such as ``kernel: 6.1.0 → 6.6.2``: artifact, identity, versions, state."""
    found = []
    if artifact != baseline.artifact:
        found.append(f"artifact: {baseline.artifact[:12]} → {artifact[:12]}")
    for old, new in ((baseline.device_identity, identity), (baseline.versions, versions)):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                found.append(f"{key}: {_short(old.get(key))} → {_short(new.get(key))}")
    if timing is not None:
        found += _state_changes(baseline.timing, timing)
    return tuple(found)


def _short(text: str | None) -> str:
    return "none" if text is None else text[:100]


def _state_changes(old: Timing, new: Timing) -> list[str]:
    found = []
    was, now = old.state, new.state
    if was.governor != now.governor:
        found.append(f"governor: {was.governor or 'unknown'} → {now.governor or 'unknown'}")
    if _clock_change(was, now) is not None:
        found.append(
            f"clock: {(was.clock_hz or 0) / 1e6:.0f} → {(now.clock_hz or 0) / 1e6:.0f} MHz"
        )
    if now.throttled and not was.throttled:
        found.append("throttled: no → yes")
    if _above(was.temperature_c, now.temperature_c, _WARMER_C):
        found.append(f"temperature: {was.temperature_c:.0f} → {now.temperature_c:.0f} °C")
    if _above(was.load, now.load, _BUSIER):
        found.append(f"load: {was.load:.1f} → {now.load:.1f}")
    if old.yardstick_ns and new.yardstick_ns:
        machine = new.yardstick_ns / old.yardstick_ns
        if abs(machine - 1) > _CLOCK:
            found.append(f"yardstick: {100 * (machine - 1):+.0f}% (the machine's own speed)")
    return found


def _above(old: float | None, new: float | None, by: float) -> bool:
    return old is not None and new is not None and new > old + by


def _clock_change(was: DeviceState, now: DeviceState) -> float | None:
    """New over old clock, where both are known and differ."""
    if not was.clock_hz or not now.clock_hz:
        return None
    ratio = now.clock_hz / was.clock_hz
    return ratio if abs(ratio - 1) > _CLOCK else None


def likely_cause(
    baseline: Baseline,
    artifact: str,
    identity: Mapping[str, str],
    timing: Timing,
    moved: Sequence[Moved],
) -> str:
    """One sentence about a slow-down, from what is known; says so when nothing is."""
    was, now = baseline.timing.state, timing.state
    ratio = timing.ms / baseline.latency.ms
    where = ""
    if moved:
        lost = sum(m.new_ms - m.old_ms for m in moved)
        share = (moved[0].new_ms - moved[0].old_ms) / lost if lost > 0 else 0.0
        where = f"; {100 * share:.0f}% of it in block {moved[0].block}"
    if now.throttled and not was.throttled:
        return "the device throttles"
    clock = _clock_change(was, now)
    if clock is not None and clock < 1:
        fits = "which explains it" if abs(ratio * clock - 1) < 0.1 else "which explains a part"
        return f"the clock is {100 * (1 - clock):.0f}% lower, {fits}"
    if was.governor != now.governor:
        return f"the governor is {now.governor or 'unknown'} instead of {was.governor or 'unknown'}"
    reasons = []
    if artifact != baseline.artifact:
        reasons.append("the artifact is another one")
    for key, what in (
        (baseline.backend, "the runtime"),
        ("runner", "edgeofa's runner"),
        ("native_code", "edgeofa's runner"),
        ("kernels", "the choice of kernels"),
        ("kernel", "the operating system's kernel"),
        ("emulator", "the emulator"),
    ):
        if baseline.device_identity.get(key) != identity.get(key):
            reasons.append(f"{what} is another build")
    if reasons:
        return " and ".join(dict.fromkeys(reasons)) + where
    return f"nothing that is recorded has changed{where}"
