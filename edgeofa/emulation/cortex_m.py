"""Cycles of a Cortex-M core from the blocks that it executed.

    cycles = sum(price of block * executions) + taken * taken branches + miss * flash data misses

The price of a block comes from one of two engines: ``classes``, the instruction timings of the
technical reference manual (see thumb.py), or ``mca``, llvm-mca's pipeline model of the core; or it
is the number of its instructions (``count``), where neither was ever compared with a board.

Judged on the four MLPerf Tiny reference networks with CMSIS-NN against published latencies (nothing
fitted): Cortex-M4 (NUCLEO-L4R5ZI) classes 2.9%, llvm-mca 3.4%, without the flash term 18%;
Cortex-M33 (nRF5340) classes 3.2%. Cortex-M7: llvm-mca 12 to 16% on three networks of one board,
which does not carry over to another one, so its interval is wider than the worst of them.
``benchmarks/mcu_model.py`` prints the comparison again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from edgeofa.devices.base import Evidence
from edgeofa.emulation.cortex_m_trace import Executed
from edgeofa.emulation.thumb import class_cycles, split
from edgeofa.errors import UsageError
from edgeofa.microcontroller import FlashTiming

Engine = Literal["classes", "mca", "count"]
Prices = Callable[[Iterable[str]], Mapping[str, float]]


@dataclass(frozen=True)
class CortexModel:
    """Constants of one core. ``error`` is the relative half-width of the 95% interval."""

    name: str
    engine: Engine
    taken_cycles: float
    error: float
    evidence: Evidence
    validated: bool
    source: str

    @property
    def identity(self) -> str:
        """Name, and a digest over everything that can change a number, as tables carry them."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "source"}
        digest = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
        return f"{self.name} {digest}"


_MLPERF = "MLPerf Tiny 0.5 to 1.3, networks compiled with CMSIS-NN"
_MODELS = {
    model.name: model
    for model in (
        CortexModel("cortex-m4", "classes", 2.0, 0.05, "modelled", True, _MLPERF),
        CortexModel("cortex-m33", "classes", 2.0, 0.05, "modelled", True, _MLPERF),
        # branches are predicted: the refill does not show
        CortexModel("cortex-m7", "mca", 0.0, 0.20, "modelled", False, f"{_MLPERF}, one board"),
        # one instruction a cycle, by no comparison with anything
        CortexModel("cortex-m55", "count", 0.0, 0.5, "estimated", False, "instruction counts"),
    )
}


def cortex_model(name: str) -> CortexModel:
    """A model by the name that target files use (``mcu.cycle_model``)."""
    model = _MODELS.get(name)
    if model is None:
        raise UsageError(f"unknown cycle model {name!r}", hint=f"one of {', '.join(_MODELS)}")
    return model


def model_names() -> tuple[str, ...]:
    return tuple(_MODELS)


@dataclass(frozen=True)
class CycleCost:
    """Cycles and what they are made of; ``code_misses`` are lines of code that an instruction
    cache of the flash would have missed, which the cycles do not contain."""

    core: float
    branches: float
    flash: float
    instructions: int
    code_misses: int

    @property
    def cycles(self) -> float:
        return self.core + self.branches + self.flash


def cycle_cost(
    executed: Executed, model: CortexModel, timing: FlashTiming | None, mca: Prices | None = None
) -> CycleCost:
    """What ``executed`` costs on ``model``'s core.

    Args:
        timing: the flash, None where reading it never waits.
        mca: llvm-mca's cycles per execution by code, for the engine ``mca``. A block that it does
            not know costs one cycle per instruction.
    """
    prices = mca(b.code for b in executed.blocks) if model.engine == "mca" and mca else {}
    core = 0.0
    for block in executed.blocks:
        if model.engine == "classes":
            price = class_cycles(block.code)
        else:
            price = prices.get(block.code, float(len(split(block.code))))
        core += price * block.executions
    misses = sum(b.data_misses for b in executed.blocks)
    return CycleCost(
        core=core,
        branches=model.taken_cycles * sum(b.taken for b in executed.blocks),
        flash=misses * timing.miss_cycles if timing is not None else 0.0,
        instructions=executed.instructions,
        code_misses=sum(b.code_misses for b in executed.blocks),
    )


def relative_error(cost: CycleCost, model: CortexModel, timing: FlashTiming | None) -> float:
    """Half-width of the interval: the model's own, and half of what fetching code from the flash
    could cost at most, because prefetching hides an unknown part of it."""
    if timing is None or cost.cycles == 0:
        return model.error
    return model.error + cost.code_misses * timing.miss_cycles / 2 / cost.cycles
