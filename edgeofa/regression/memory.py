"""How long a file takes to load, and how much memory it takes, against the baseline."""

from __future__ import annotations

from edgeofa.regression.baseline import Baseline
from edgeofa.regression.endurance import limit_bytes
from edgeofa.regression.record import Check
from edgeofa.regression.timing import Timing

#: a load may take so much longer: it reads files and packs weights, and varies with the disk
_LOAD_RATIO, _LOAD_MS = 1.5, 5.0
#: registers that a Cortex-M stacks for an interrupt, those of the FPU included
_FRAME_BYTES = 104


def check_load_and_memory(timing: Timing, baseline: Baseline) -> list[Check]:
    """What the device told of both, now and when the baseline was accepted."""
    found = []
    if timing.load_ms is None:
        summary = "an emulator's wall time is no load time"
        found.append(Check(name="load time", status="skipped", summary=summary))
    elif baseline.load_ms is not None:
        limit = max(_LOAD_RATIO * baseline.load_ms, baseline.load_ms + _LOAD_MS)
        found.append(
            Check(
                name="load time",
                status="failed" if timing.load_ms > limit else "passed",
                summary=f"{timing.load_ms:.2f} ms, baseline {baseline.load_ms:.2f} ms, "
                f"allowed {limit:.2f} ms",
                value=timing.load_ms,
                baseline=baseline.load_ms,
                unit="ms",
                evidence=timing.evidence,
            )
        )
    if timing.peak_rss_bytes is not None and baseline.peak_rss_bytes is not None:
        found.append(check_memory("memory", timing.peak_rss_bytes, baseline.peak_rss_bytes))
    for name, now, old in (
        ("arena", timing.arena_bytes, baseline.arena_bytes),
        ("stack", timing.stack_bytes, baseline.stack_bytes),
    ):
        if now is not None and old is not None:
            found.append(_check_painted(name, now, old))
    return found


def check_memory(name: str, now: int, old: int) -> Check:
    """A high-water mark of a process."""
    limit = limit_bytes(old)
    return Check(
        name=name,
        status="failed" if now > limit else "passed",
        summary=f"{now / 1024:.0f} KB at most, baseline {old / 1024:.0f} KB, "
        f"allowed {limit / 1024:.0f} KB",
        value=float(now),
        baseline=float(old),
        unit="bytes",
    )


def _check_painted(name: str, now: int, old: int) -> Check:
    """Of a microcontroller; all that moves by itself is an interrupt's frame on the stack."""
    limit = old + max(old // 10, _FRAME_BYTES)
    return Check(
        name=name,
        status="failed" if now > limit else "passed",
        summary=f"{now} bytes at most, baseline {old} bytes, allowed {limit} bytes",
        value=float(now),
        baseline=float(old),
        unit="bytes",
    )
