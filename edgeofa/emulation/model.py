"""From executed code to milliseconds on a core.

One thread, summed over the basic blocks of one invoke::

    t = sum max(pipeline * core, stream) + sum other + write_back + operator * operators

``core`` is a block's price by llvm-mca times its executions. ``stream`` is the time that missed
lines in sequence take at the bandwidth of L2 or DRAM: prefetchers fetch them while the block
computes, so only what exceeds the computing shows. ``other`` are misses that no prefetcher saw
coming, and show in full. ``pipeline`` and ``operator`` are fitted to published measurements of
single blocks (see calibrate.py); every other constant is a stated judgement. docs/numbers.md says
how well it all holds.

Several threads (one is emulated, the others are modelled)::

    t = (pipeline * core + L2) / n + DRAM + operator * operators

because each core has its own pipeline and L1, the L2 serves them side by side, and they queue for
the one memory controller, which nothing hides any more.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from edgeofa.emulation.trace import BlockCount, Region
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
    """Constants of one core at one clock.

    ``error`` is the 95% quantile of the relative error on shapes that the fit had not seen;
    ``error_threads`` the same for several threads, by judgement: nothing was fitted to them.
    """

    name: str
    lines: LineCosts
    #: real cycles per cycle of llvm-mca, which knows no branch misses, TLB or bank conflicts
    pipeline: float
    #: each operator begins with cold branch predictors, TLB and code
    operator_ms: float
    error: float
    error_threads: float
    source: str

    @property
    def digest(self) -> str:
        """Over everything that can change a number, the first 16 hex digits."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "source"}
        return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]

    @property
    def identity(self) -> str:
        """Name and digest, as tables carry them."""
        return f"{self.name} {self.digest}"


CORTEX_A72 = CoreModel(
    name="cortex-a72",
    # 4 GB/s from DRAM at 1.5 GHz is 24 cycles a line; the others are latencies of the TRM's order
    lines=LineCosts(l2_stream=5, l2_other=12, dram_stream=24, dram_other=150, write_back=24),
    pipeline=1.2,
    operator_ms=0.0283,
    error=0.22,
    error_threads=0.25,
    source="FBNet blocks on a Raspberry Pi 4 (HW-NAS-Bench, through HELP), by calibrate.py",
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
    """Cycles on one thread, of one invoke or of one block in it.

    ``core`` is computing. ``l2`` and ``dram`` are waiting for lines if nothing hides it,
    ``l2_shown`` and ``dram_shown`` what computing does not hide.
    """

    core: float
    l2: float
    dram: float
    l2_shown: float
    dram_shown: float
    instructions: int

    @property
    def cycles(self) -> float:
        """All that shows."""
        return self.core + self.l2_shown + self.dram_shown


def region_cost(region: Region, prices: Mapping[str, float], model: CoreModel) -> RegionCost:
    """Sum a region's blocks; ``prices`` are llvm-mca's cycles per execution by code.

    A block without a price costs one cycle per instruction; ``DeviceError`` when such blocks are
    more than 2% of the instructions, or when other threads ran meanwhile (what they did depends
    on the host's scheduler).
    """
    if region.foreign:
        raise DeviceError("more than one thread computed in the emulator; the model needs one")
    instructions, unpriced = region.instructions, 0
    core = l2 = dram = l2_shown = dram_shown = 0.0
    for block in region.blocks:
        price = prices.get(block.code)
        if price is None:
            unpriced += block.instructions
        cost = block_cost(block, price, model)
        core += cost.core
        l2 += cost.l2
        dram += cost.dram
        l2_shown += cost.l2_shown
        dram_shown += cost.dram_shown
    if unpriced > _MAX_UNPRICED * instructions:
        raise DeviceError(f"llvm-mca has no price for {unpriced / instructions:.0%} of the code")
    write_back = model.lines.write_back * region.written_back
    return RegionCost(core, l2, dram + write_back, l2_shown, dram_shown + write_back, instructions)


def block_cost(block: BlockCount, price: float | None, model: CoreModel) -> RegionCost:
    """What a block's executions cost; ``price``: cycles of one, None: one for each instruction."""
    per_execution = len(block.code) / 8 if price is None else price
    computing = model.pipeline * per_execution * block.executions
    l2_stream, l2_other, dram_stream, dram_other = _waiting(block, model.lines)
    stream = l2_stream + dram_stream
    share = max(stream - computing, 0.0) / stream if stream else 0.0
    return RegionCost(
        core=computing,
        l2=l2_stream + l2_other,
        dram=dram_stream + dram_other,
        l2_shown=share * l2_stream + l2_other,
        dram_shown=share * dram_stream + dram_other,
        instructions=block.instructions,
    )


def _waiting(block: BlockCount, lines: LineCosts) -> tuple[float, float, float, float]:
    """Cycles for a block's lines: L2 in streams, L2 other, DRAM in streams, DRAM other."""
    return (
        lines.l2_stream * max(block.l1_stream - block.l2_stream, 0),
        lines.l2_other * max(block.l1_other - block.l2_other, 0),
        lines.dram_stream * block.l2_stream,
        lines.dram_other * block.l2_other,
    )


@dataclass(frozen=True)
class ModelledLatency:
    """Milliseconds of one invoke and what they are made of; ``error`` is relative (95%)."""

    ms: float
    parts_ms: dict[str, float]
    error: float


def latency(
    model: CoreModel, cost: RegionCost, clock_hz: float, operators: int, *, threads: int = 1
) -> ModelledLatency:
    """Milliseconds of an invoke with ``operators`` operators (see the module's formulas)."""
    cycle_ms = 1e3 / clock_hz
    if threads == 1:
        core, l2, dram = cost.core, cost.l2_shown, cost.dram_shown
    else:
        core, l2, dram = cost.core / threads, cost.l2 / threads, cost.dram
    parts = {
        "core": core * cycle_ms,
        "l2": l2 * cycle_ms,
        "dram": dram * cycle_ms,
        "operators": model.operator_ms * operators,
    }
    error = model.error if threads == 1 else model.error_threads
    return ModelledLatency(sum(parts.values()), parts, error)
