"""Alternatives of one thing on a device with a clock: measured in turns, compared as ratios.

What slows the whole machine for a while slows every alternative of a round alike, so ratios within
a round are steadier than times. Each round runs all of them once, in an order of its own.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeofa.devices.base import Device, Failure, Job
from edgeofa.profiling.protocol import bootstrap_median


@dataclass(frozen=True)
class Compared:
    """One alternative: the median of its rounds, and its ratio to the reference's of the same
    round, with bootstrapped 95% intervals. ``reason``: why there is nothing to compare."""

    ns: float
    low_ns: float
    high_ns: float
    ratio: float
    low: float
    high: float
    reason: str = ""


def interleaved(
    device: Device, jobs: Mapping[str, Job], reference: str, *, rounds: int = 9, seed: int = 0
) -> dict[str, Compared]:
    """Measure ``jobs`` by name against ``reference``, which is one of them, on one thread.

    Each of ``jobs`` says how long one turn is (warm-ups, runs, ``min_run_ms``). An alternative
    that fails is left out from the next round on; all are where the reference fails.
    """
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    ratios: dict[str, list[float]] = {name: [] for name in jobs}
    failed: dict[str, str] = {}
    with device.exclusive():
        for number in range(rounds):
            order = [name for name in jobs if name not in failed]
            random.Random(f"{seed} {number}").shuffle(order)
            outcomes = device.run([jobs[name] for name in order])
            medians = {}
            for name, outcome in zip(order, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    failed[name] = outcome.reason
                else:
                    medians[name] = float(np.median(outcome.samples_ns))
            if reference not in medians:
                break
            for name, ns in medians.items():
                taken[name].append(ns)
                ratios[name].append(ns / medians[reference])
    return {
        name: _compared(name, taken[name], ratios[name], failed.get(name), seed) for name in jobs
    }


def _compared(
    name: str, taken: list[float], ratios: list[float], reason: str | None, seed: int
) -> Compared:
    if reason is not None or not ratios:
        return Compared(
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, reason or "what it is compared with does not run"
        )
    seeds = (seed, zlib.crc32(name.encode()))
    low_ns, ns, high_ns = bootstrap_median(taken, seeds)
    low, middle, high = bootstrap_median(ratios, seeds)
    return Compared(ns, low_ns, high_ns, middle, low, high)
