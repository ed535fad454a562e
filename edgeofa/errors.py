"""Everything that edgeofa raises on purpose, drawn as one tree.

    EdgeofaError                    exit code
    ├── UsageError                      2   a wrong option, name, unit or value
    │   ├── FileFormatError             2   a file that is corrupt, foreign or of another version
    │   ├── UnsupportedOperator         2   a module holds an operator that the graph does not know
    │   └── MissingMaterial             2   a checkpoint, table or data set that is not there
    │       └── StaleTable              2   a table that today's target would not give any more
    ├── NoSubnetFits                    3   no subnet of the space is within the budgets
    ├── TooLarge                        3   a network that a target's memory does not hold
    ├── DeviceError                     4   a device, emulator or runtime failed
    │   ├── SetupError                  4   a tool or library that a device needs is missing
    │   └── LinkLost                    4   the way to a device broke, again and again
    ├── UnstableMeasurement             5   the interval stayed wider than allowed
    ├── RegressionFound                 6   slower, larger or different than the baseline
    └── BudgetMissed                    7   the deployed subnet is over its budget on the device

Each message says what failed, where (target, block, file, port) and what to try.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "BudgetMissed",
    "DeviceError",
    "EdgeofaError",
    "FileFormatError",
    "LinkLost",
    "MissingMaterial",
    "NoSubnetFits",
    "RegressionFound",
    "SetupError",
    "StaleTable",
    "TooLarge",
    "UnstableMeasurement",
    "UnsupportedOperator",
    "UsageError",
]


class EdgeofaError(Exception):
    """Base of all errors.

    Args:
        what: what failed, one sentence.
        where: the target, block, file or port it happened at.
        hint: what the reader can try next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, hint: str | None = None):
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return text if self.hint is None else f"{text}\n  try: {self.hint}"


class UsageError(EdgeofaError):
    """A wrong option, name, unit or value."""

    exit_code = 2


class FileFormatError(UsageError):
    """A file that is corrupt, foreign or of another version; it is refused whole."""


class UnsupportedOperator(UsageError):
    """A module holds an operator that the graph does not know; ``where`` is its place."""


class MissingMaterial(UsageError):
    """A checkpoint, table or data set that is not there."""


class StaleTable(MissingMaterial):
    """A table of another target file, latency model or runtime; a fresh one is not there."""


class NoSubnetFits(EdgeofaError):
    """No subnet of the space is within the budgets."""

    exit_code = 3


class TooLarge(EdgeofaError):
    """A network that the memory of a target, or a budget for it, does not hold."""

    exit_code = 3


class DeviceError(EdgeofaError):
    """A device, an emulator or a runtime on it failed."""

    exit_code = 4


class SetupError(DeviceError):
    """A tool or library that a device needs is missing."""


class LinkLost(DeviceError):
    """The way to a device broke, and did so again when it was tried again."""


class UnstableMeasurement(EdgeofaError):
    """The interval of a measurement stayed wider than the protocol allows."""

    exit_code = 5


class RegressionFound(EdgeofaError):
    """A deployment became slower, larger or different than its baseline."""

    exit_code = 6


class BudgetMissed(EdgeofaError):
    """The deployed subnet is over its budget on the device."""

    exit_code = 7
