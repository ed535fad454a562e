"""The selection problem, free of devices and files: what each choice costs and what it is worth.

A subnet is a resolution plus one option for each layer that exists. Its cost is the sum over its
blocks of latency, energy and weight bytes, and the maximum over its blocks of peak bytes (a network
runs block by block, so that the largest block decides; what a runtime keeps besides is not in it).

All sums are integers, so that ties, limits and optima are exact: nanoseconds and nanojoules, each
block rounded **up** from the table's decimals, and bytes. Scores become integers too: multiples of
``score_unit``, which is at most 2**-44 of the largest score, by rounding to nearest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, frexp, isfinite, ldexp
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.base import AccuracyModel
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces.space import Block, Layer, Space, Subnet
from edgeofa.tables.table import Table

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Axis = Literal["latency", "energy", "weight"]

#: the summed costs, in the order of every ``costs`` array's last dimension
AXES: tuple[Axis, ...] = ("latency", "energy", "weight")
_NANO_PER_MILLI = 10**6
#: total scores stay below 2**46 units, so that 2**14 resolutions share one 64-bit key
_SCORE_BITS = 46


@dataclass(frozen=True)
class Budgets:
    """What the network may cost at most; ``None`` is no limit. Peak is a maximum over blocks."""

    latency_ms: float | None = None
    energy_mj: float | None = None
    weight_bytes: int | None = None
    peak_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (isfinite(value) and value > 0):
                raise UsageError(f"the budget {name} must be positive, not {value}")


@dataclass(frozen=True)
class Limits:
    """Budgets as limits on the integer sums (in the order of ``AXES``) and on the peak."""

    sums: tuple[int | None, int | None, int | None]
    peak: int | None


@dataclass(frozen=True, eq=False)
class Slot:
    """The options of one layer; arrays are stacked over the resolutions.

    ``costs`` is (resolutions, options, 3), the others (resolutions, options).
    """

    layers: tuple[Layer, ...]
    costs: Ints
    peaks: Ints
    scores: Ints
    allowed: Bools


@dataclass(frozen=True, eq=False)
class StageSlots:
    """A stage: it stops after a number of layers that is in ``depths``."""

    depths: tuple[int, ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Totals:
    """What one subnet costs and scores, in the problem's integers."""

    latency_ns: int
    energy_nj: int
    weight_bytes: int
    peak_bytes: int
    score: int

    @property
    def sums(self) -> tuple[int, int, int]:
        """The summed costs in the order of ``AXES``."""
        return self.latency_ns, self.energy_nj, self.weight_bytes


@dataclass(frozen=True, eq=False)
class Problem:
    """All options of a space. ``fixed_*`` are stem plus head (and the score's intercept).

    Space, table and accuracy model are those that the figures were taken from; the solver itself
    works on the arrays alone.
    """

    space: Space
    table: Table
    accuracy: AccuracyModel
    #: mean power over the table's blocks; None where the table has no energies
    power_w: float | None
    resolutions: tuple[int, ...]
    fixed_costs: Ints  # (resolutions, 3)
    fixed_peaks: Ints  # (resolutions,)
    fixed_scores: Ints  # (resolutions,)
    allowed: Bools  # (resolutions,)
    stages: tuple[StageSlots, ...]
    score_unit: float

    # ------------------------------------------------------------ units

    def latency_ms(self, latency_ns: int) -> float:
        """Latency of a whole network from its sum: the additivity fit, no safety margin."""
        return self.table.fit.a_ms + self.table.fit.b * (latency_ns / _NANO_PER_MILLI)

    def plan_ms(self, latency_ns: int) -> float:
        """The latency that is held against a budget: the fit's 95% residual included."""
        return self.table.fit.plan_ms(latency_ns / _NANO_PER_MILLI)

    def energy_mj(self, energy_nj: int) -> float:
        """Energy of a whole network from its sum.

        Energy follows time: the factor of the latency's fit applies to it too, and its constant
        ``a_ms`` is spent at the mean power of the blocks. 0 for a table without energies.
        """
        fit = self.table.fit
        return fit.a_ms * (self.power_w or 0.0) + fit.b * (energy_nj / _NANO_PER_MILLI)

    def plan_energy_mj(self, energy_nj: int) -> float:
        """The energy that is held against a budget, with the same relative margin as latency."""
        return self.energy_mj(energy_nj) * (1 + self.table.fit.q95_percent / 100)

    def score(self, units: int) -> float:
        return units * self.score_unit

    def limits(self, budgets: Budgets) -> Limits:
        """The largest sums within the budgets.

        Latency holds with its margin, ``(a + b * sum) * (1 + q95) <= budget``, and energy likewise
        (``a`` at the mean power), solved for the sum in exact arithmetic and rounded down.
        """
        fit = self.table.fit
        latency = energy = None

        def room(budget: float, offset: Fraction) -> int:
            whole = _exact(budget) / (1 + _exact(fit.q95_percent) / 100)
            return floor((whole - offset) / _exact(fit.b) * _NANO_PER_MILLI)

        if budgets.latency_ms is not None:
            latency = room(budgets.latency_ms, _exact(fit.a_ms))
        if budgets.energy_mj is not None:
            if self.power_w is None:
                raise UsageError(
                    "an energy budget needs a table with energies",
                    where=f"table {self.table.name}",
                    hint="profile a target whose file has a [power] section, or drop the budget",
                )
            energy = room(budgets.energy_mj, _exact(fit.a_ms) * _exact(self.power_w))
        weight = None if budgets.weight_bytes is None else floor(budgets.weight_bytes)
        peak = None if budgets.peak_bytes is None else floor(budgets.peak_bytes)
        return Limits((latency, energy, weight), peak)

    # ------------------------------------------------------------ subnets

    def totals(self, subnet: Subnet) -> Totals:
        """Costs and score of a subnet of this problem's space and resolutions."""
        r = self.resolutions.index(subnet.resolution)
        costs, peak, score = self.fixed_costs[r].copy(), self.fixed_peaks[r], self.fixed_scores[r]
        for stage, layers in zip(self.stages, subnet.stages, strict=True):
            for slot, layer in zip(stage.slots, layers, strict=False):
                o = slot.layers.index(layer)
                costs += slot.costs[r, o]
                peak = max(peak, slot.peaks[r, o])
                score += slot.scores[r, o]
        return Totals(int(costs[0]), int(costs[1]), int(costs[2]), int(peak), int(score))

    def subnet(self, resolution_index: int, picks: Iterable[int]) -> Subnet:
        """The subnet of option indices, one a slot in the space's order, -1 for no layer."""
        rest = iter(picks)
        stages = []
        for stage in self.stages:
            chosen = [(slot, next(rest)) for slot in stage.slots]
            stages.append(tuple(slot.layers[o] for slot, o in chosen if o >= 0))
        return Subnet(self.space.name, self.resolutions[resolution_index], tuple(stages))

    def within_peak(self, limit: int | None) -> Problem:
        """The problem without the options, and the resolutions, whose peak is above ``limit``."""
        if limit is None:
            return self
        stages = tuple(
            StageSlots(
                stage.depths,
                tuple(replace(s, allowed=s.allowed & (s.peaks <= limit)) for s in stage.slots),
            )
            for stage in self.stages
        )
        return replace(self, stages=stages, allowed=self.allowed & (self.fixed_peaks <= limit))

    def rescored(self, axis: int) -> Problem:
        """The problem whose best subnet is the one of least cost on ``axis``."""
        stages = tuple(
            StageSlots(
                stage.depths, tuple(replace(s, scores=-s.costs[:, :, axis]) for s in stage.slots)
            )
            for stage in self.stages
        )
        return replace(self, stages=stages, fixed_scores=-self.fixed_costs[:, axis], score_unit=1.0)


def _exact(value: float) -> Fraction:
    """The decimal that a person or a file wrote, not the binary number nearest to it."""
    return Fraction(repr(float(value)))


def _nano(value: float) -> int:
    """Milli to nano units, rounded up from the decimal as written."""
    nearest = round(value * _NANO_PER_MILLI)
    if nearest / _NANO_PER_MILLI == value:
        return nearest
    return ceil(_exact(value) * _NANO_PER_MILLI)


def build_problem(
    space: Space,
    table: Table,
    accuracy: AccuracyModel,
    resolutions: tuple[int, ...] | None = None,
) -> Problem:
    """The problem of a space on one table.

    Args:
        resolutions: those to choose from; by default every one that the table covers.

    Raises:
        UsageError: table or resolutions of another space, or a score that is not a number.
        MissingMaterial: the table lacks a block of the space (named, with the way to profile it).
        FileFormatError: the table's figures cannot be planned with.
    """
    where = f"table {table.header.target}/{table.name}"
    if table.header.space != space.name:
        raise UsageError(f"the table is of space {table.header.space!r}", where=where)
    covered = tuple(r for r in space.resolutions if r in table.header.resolutions)
    chosen = covered if resolutions is None else tuple(sorted(set(resolutions)))
    foreign = [r for r in chosen if r not in space.resolutions]
    if foreign or not chosen:
        raise UsageError(
            f"no such resolution in space {space.name}: {foreign}"
            if foreign
            else "the table covers no resolution of the space",
            where=where,
            hint=f"the space has {', '.join(map(str, space.resolutions))}",
        )
    fit = table.fit
    if not (isfinite(fit.a_ms) and isfinite(fit.b) and fit.b > 0 and 0 <= fit.q95_percent < 1e3):
        raise FileFormatError(f"the additivity fit cannot be planned with: {fit}", where=where)

    figures: dict[Block, tuple[int, int, int, int]] = {}

    def figures_of(block: Block) -> tuple[int, int, int, int]:
        known = figures.get(block)
        if known is None:
            row = table.row(block)
            energy = 0.0 if row.energy_mj is None else row.energy_mj
            values = (row.latency_ms, energy, row.weight_bytes, row.peak_bytes)
            if not all(isfinite(v) and v >= 0 for v in values):
                raise FileFormatError(f"a figure of {block.key} is not usable: {row}", where=where)
            known = (_nano(row.latency_ms), _nano(energy), row.weight_bytes, row.peak_bytes)
            figures[block] = known
        return known

    ends = np.array(
        [[figures_of(b) for b in (space.stem_block(r), space.head_block(r))] for r in chosen]
    )
    intercepts = np.array([accuracy.intercept(r) for r in chosen], dtype=np.float64)
    raw = {
        (i, j): np.array(
            [
                [
                    (
                        *figures_of(space.layer_block(r, i, j, layer)),
                        accuracy.layer_score(r, i, j, layer),
                    )
                    for layer in stage.layers_at(j)
                ]
                for r in chosen
            ],
            dtype=np.float64,
        )
        for i, stage in enumerate(space.stages)
        for j in range(stage.depths[-1])
    }
    unit = _score_unit(intercepts, [x[:, :, 4] for x in raw.values()], where)
    most = ends.sum(axis=1).max() + sum(float(x[:, :, :4].max()) for x in raw.values())
    if most >= 2**_SCORE_BITS:
        raise FileFormatError("the table's figures are too large to add up exactly", where=where)

    def slot(i: int, j: int) -> Slot:
        values = raw[i, j]
        costs = values[:, :, :3].astype(np.int64)
        return Slot(
            space.stages[i].layers_at(j),
            costs,
            values[:, :, 3].astype(np.int64),
            np.rint(values[:, :, 4] / unit).astype(np.int64),
            np.ones(costs.shape[:2], dtype=np.bool_),
        )

    return Problem(
        space=space,
        table=table,
        accuracy=accuracy,
        power_w=_mean_power(table),
        resolutions=chosen,
        fixed_costs=ends[:, :, :3].sum(axis=1),
        fixed_peaks=ends[:, :, 3].max(axis=1),
        fixed_scores=np.rint(intercepts / unit).astype(np.int64),
        allowed=np.ones(len(chosen), dtype=np.bool_),
        stages=tuple(
            StageSlots(stage.depths, tuple(slot(i, j) for j in range(stage.depths[-1])))
            for i, stage in enumerate(space.stages)
        ),
        score_unit=unit,
    )


def _mean_power(table: Table) -> float | None:
    usable = [row for row in table.rows.values() if row.status != "failed"]
    energies = [row.energy_mj for row in usable if row.energy_mj is not None]
    time = sum(row.latency_ms for row in usable)
    return sum(energies) / time if len(energies) == len(usable) and time > 0 else None


def _score_unit(
    intercepts: NDArray[np.float64], layers: list[NDArray[np.float64]], where: str
) -> float:
    """The power of two that keeps every total score below ``2**_SCORE_BITS`` units."""
    total = float(np.abs(intercepts).max() + sum(np.abs(x).max() for x in layers))
    if not isfinite(total):
        raise UsageError("the accuracy model gives a score that is not a number", where=where)
    return ldexp(1.0, frexp(total)[1] - _SCORE_BITS + 1) if total > 0 else 1.0
