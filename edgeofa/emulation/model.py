"""From executed code to milliseconds on a core.

One thread, all terms of one invoke::

    t = pipeline * core + memory * (L2 + DRAM) + fixed

``core`` are the block prices of llvm-mca times the executions, ``L2`` and ``DRAM`` the missed
cache lines times a cost per line, by whether the prefetchers saw them coming. ``pipeline``,
``memory`` and ``fixed`` are fitted to published measurements (see calibrate.py); every other
constant has a source or is a stated judgement. docs/numbers.md says how well it holds.

Several threads (one emulated, the others modelled)::

    t = (pipeline * core + memory * L2) / n + memory * DRAM + synchronise * operators + fixed

because the cores have their own L1 and pipelines, the four of a cluster share one L2 whose
bandwidth grows with them, and the memory controller is one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from edgeofa.emulation.trace import Region
from edgeofa.errors import DeviceError, UsageError


@dataclass(frozen=True)
class LineCosts:
    """Core cycles per cache line brought from L2 or DRAM, and per dirty line written to DRAM."""

    l2_stream: float
    l2_other: float
    dram_stream: float
    dram_other: float
    write_back: float


@dataclass(frozen=True)
class CoreModel:
    """Constants of one core at one clock. ``error`` is the 95% quantile of the relative error that
    the model showed on shapes it was not fitted to; ``error_threads`` the same by judgement for
    several threads, which nothing was fitted to."""

    name: str
    lines: LineCosts
    pipeline: float
    memory: float
    fixed_ms: float
    #: starting an operator on all threads and waiting for the last, per operator
    synchronise_ms: float
    error: float
    error_threads: float
    source: str

    @property
    def digest(self) -> str:
        """Over everything that can change a number, the first 16 hex digits."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "source"}
        return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]


CORTEX_A72 = CoreModel(
    name="cortex-a72",
    lines=LineCosts(l2_stream=5, l2_other=12, dram_stream=24, dram_other=150, write_back=24),
    pipeline=1.0,
    memory=1.0,
    fixed_ms=0.0,
    synchronise_ms=0.006,
    error=0.25,
    error_threads=0.4,
    source="FBNet blocks on a Raspberry Pi 4 (HW-NAS-Bench, through HELP), see calibrate.py",
)

_MODELS = {model.name: model for model in (CORTEX_A72,)}
#: more code than this without a price means that the price list does not fit the program
_MAX_UNPRICED = 0.02


def core_model(name: str) -> CoreModel:
    """A model by the name that target files use (``emulation.model``)."""
    model = _MODELS.get(name)
    if model is None:
        raise UsageError(f"unknown latency model {name!r}", hint=f"one of {', '.join(_MODELS)}")
    return model


@dataclass(frozen=True)
class RegionCost:
    """Cycles of one invoke on one thread, before the fitted constants."""

    core: float
    l2: float
    dram: float
    instructions: int


def region_cost(region: Region, prices: Mapping[str, float], lines: LineCosts) -> RegionCost:
    """Sum a region's blocks; ``prices`` are cycles per execution by code.

    A block without a price costs one cycle per instruction; ``DeviceError`` when such blocks are
    more than 2% of the instructions, or when other threads ran meanwhile (what they did
    depends on the host's scheduler).
    """
    if region.foreign:
        raise DeviceError("more than one thread computed in the emulator; the model needs one")
    core = l2 = dram = 0.0
    unpriced = 0
    for block in region.blocks:
        price = prices.get(block.code)
        if price is None:
            unpriced += block.instructions
            core += block.instructions
        else:
            core += price * block.executions
        l2 += lines.l2_stream * max(block.l1_stream - block.l2_stream, 0)
        l2 += lines.l2_other * max(block.l1_other - block.l2_other, 0)
        dram += lines.dram_stream * block.l2_stream + lines.dram_other * block.l2_other
    instructions = region.instructions
    if unpriced > _MAX_UNPRICED * instructions:
        raise DeviceError(f"llvm-mca has no price for {unpriced / instructions:.0%} of the code")
    return RegionCost(core, l2, dram + lines.write_back * region.written_back, instructions)


@dataclass(frozen=True)
class ModelledLatency:
    """Milliseconds of one invoke and what they are made of; ``error`` is relative (95%)."""

    ms: float
    parts_ms: dict[str, float]
    error: float


def latency(
    model: CoreModel, cost: RegionCost, clock_hz: float, *, threads: int = 1, operators: int = 0
) -> ModelledLatency:
    """Apply the constants of ``model``; ``operators`` matters for several threads only."""
    cycle_ms = 1e3 / clock_hz
    parts = {
        "core": model.pipeline * cost.core * cycle_ms / threads,
        "l2": model.memory * cost.l2 * cycle_ms / threads,
        "dram": model.memory * cost.dram * cycle_ms,
        "fixed": model.fixed_ms,
    }
    if threads > 1:
        parts["synchronise"] = model.synchronise_ms * operators
    error = model.error if threads == 1 else model.error_threads
    return ModelledLatency(sum(parts.values()), parts, error)
