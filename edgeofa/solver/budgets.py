"""Budgets as people give them, limits as the solver holds them, and the boards between the two.

All sums are integers, so that ties, limits and optima are exact: nanoseconds and nanojoules, each
block rounded **up** from the table's decimals, and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import FileFormatError, UsageError
from edgeofa.solver.margins import Margin
from edgeofa.tables.table import Row, Table

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Axis = Literal["latency", "energy", "weight"]

#: the summed costs of one board, in the order of every ``costs`` array's last dimension; ``weight``
#: is flash: weights, and code where the table knows it
AXES: tuple[Axis, ...] = ("latency", "energy", "weight")
_NANO_PER_MILLI = 10**6


@dataclass(frozen=True)
class Budgets:
    """What the network may cost at most; ``None`` is no limit. Peak is a maximum over blocks.

    ``weight_bytes`` is for all that lies in flash: weights, and code where the table knows it.
    """

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
    """Budgets as limits on the integer sums and on the peaks.

    ``sums`` has one item a column of ``costs`` (three a board, in the order of ``AXES``); ``peak``
    is the first board's and ``other_peaks`` those of the boards after it.
    """

    sums: tuple[int | None, ...]
    peak: int | None = None
    other_peaks: tuple[int | None, ...] = ()

    @property
    def peaks(self) -> tuple[int | None, ...]:
        """One a board; boards past the end have none."""
        return (self.peak, *self.other_peaks)


@dataclass(frozen=True)
class Totals:
    """What one network costs and scores, in the problem's integers, columns as in ``Limits``."""

    sums: tuple[int, ...]
    peaks: tuple[int, ...]
    score: int

    @property
    def latency_ns(self) -> int:
        """Of the first board, like the other figures by name."""
        return self.sums[0]

    @property
    def energy_nj(self) -> int:
        return self.sums[1]

    @property
    def weight_bytes(self) -> int:
        return self.sums[2]

    @property
    def peak_bytes(self) -> int:
        return self.peaks[0]


@dataclass(frozen=True, eq=False)
class Board:
    """One table that a network is planned with, and how carefully."""

    table: Table
    margin: Margin
    #: mean power over the table's blocks; None where the table has no energies
    power_w: float | None

    @property
    def where(self) -> str:
        return f"table {self.table.header.target}/{self.table.name}"

    # ------------------------------------------------------------ from the table

    def figures(self, row: Row) -> tuple[int, int, int, int]:
        """Latency in ns, energy in nJ, flash bytes and peak bytes that one block is planned at."""
        energy = low = 0.0
        if row.energy_mj is not None:
            energy = row.energy_mj
            low = energy if row.energy_high_mj is None else row.energy_high_mj
        values = (row.latency_ms, row.latency_high_ms, energy, low, row.flash_bytes)
        if not all(isfinite(v) and v >= 0 for v in (*values, row.peak_bytes)):
            raise FileFormatError(f"a figure of {row.block} is not usable: {row}", where=self.where)
        return (
            _nano(self._careful(row.latency_ms, row.latency_high_ms)),
            _nano(self._careful(energy, low)),
            row.flash_bytes,
            row.peak_bytes,
        )

    def _careful(self, value: float, high: float) -> float:
        return value + self.margin.interval * max(high - value, 0.0)

    def need_energies(self) -> float:
        """The mean power in W; ``UsageError`` where the table has no energies."""
        if self.power_w is None:
            raise UsageError(
                "energy was asked for, but the table has no energies",
                where=self.where,
                hint="profile a target whose file has a [power] section, or leave energy out",
            )
        return self.power_w

    # ------------------------------------------------------------ units

    def latency_ms(self, latency_ns: int) -> float:
        """Latency of a whole network from its sum: the additivity fit, no safety margin."""
        return self.table.fit.a_ms + self.table.fit.b * (latency_ns / _NANO_PER_MILLI)

    def plan_ms(self, latency_ns: int) -> float:
        """The latency that is held against a budget: the margin included."""
        return self.latency_ms(latency_ns) * (1 + self.margin.percent / 100)

    def energy_mj(self, energy_nj: int) -> float:
        """Energy of a whole network from its sum.

        Energy follows time: the factor of the latency's fit applies to it too, and its constant
        ``a_ms`` is spent at the mean power of the blocks. 0 for a table without energies.
        """
        fit = self.table.fit
        return fit.a_ms * (self.power_w or 0.0) + fit.b * (energy_nj / _NANO_PER_MILLI)

    def plan_energy_mj(self, energy_nj: int) -> float:
        """The energy that is held against a budget, with the same relative margin as latency."""
        return self.energy_mj(energy_nj) * (1 + self.margin.percent / 100)

    def planned(self, axis: Axis, cost: int) -> float:
        """A sum in the unit of its budget, margin included: ms, mJ or bytes."""
        if axis == "latency":
            return self.plan_ms(cost)
        return self.plan_energy_mj(cost) if axis == "energy" else float(cost)

    def limits(self, budgets: Budgets) -> tuple[int | None, int | None, int | None]:
        """The largest sums within the budgets.

        Latency holds with its margin, ``(a + b * sum) * (1 + margin) <= budget``, and energy
        likewise (``a`` at the mean power), solved for the sum in exact arithmetic, rounded down.
        """
        fit = self.table.fit
        latency = energy = None

        def room(budget: float, offset: Fraction) -> int:
            whole = exact(budget) / (1 + exact(self.margin.percent) / 100)
            return floor((whole - offset) / exact(fit.b) * _NANO_PER_MILLI)

        if budgets.latency_ms is not None:
            latency = room(budgets.latency_ms, exact(fit.a_ms))
        if budgets.energy_mj is not None:
            energy = room(budgets.energy_mj, exact(fit.a_ms) * exact(self.need_energies()))
        weight = None if budgets.weight_bytes is None else floor(budgets.weight_bytes)
        return latency, energy, weight


def make_board(table: Table, margin: Margin) -> Board:
    """The board of a table; ``FileFormatError`` where its fit cannot be planned with."""
    fit = table.fit
    board = Board(table, margin, _mean_power(table))
    if not (isfinite(fit.a_ms) and isfinite(fit.b) and fit.b > 0 and 0 <= fit.q95_percent < 1e3):
        raise FileFormatError(
            f"the additivity fit cannot be planned with: {fit}", where=board.where
        )
    return board


def exact(value: float) -> Fraction:
    """The decimal that a person or a file wrote, not the binary number nearest to it."""
    return Fraction(repr(float(value)))


def _nano(value: float) -> int:
    """Milli to nano units, rounded up from the decimal as written."""
    nearest = round(value * _NANO_PER_MILLI)
    if nearest / _NANO_PER_MILLI == value:
        return nearest
    return ceil(exact(value) * _NANO_PER_MILLI)


def _mean_power(table: Table) -> float | None:
    usable = [row for row in table.rows.values() if row.status != "failed"]
    energies = [row.energy_mj for row in usable if row.energy_mj is not None]
    time = sum(row.latency_ms for row in usable)
    return sum(energies) / time if len(energies) == len(usable) and time > 0 else None
