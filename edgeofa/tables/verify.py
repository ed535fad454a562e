"""Is a table complete and consistent, on its own and against its space and target.

The spot check against the device itself needs measuring and lives in
:mod:`edgeofa.profiling.spot`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeofa.spaces.space import Space
from edgeofa.tables.freshness import staleness
from edgeofa.tables.table import Table
from edgeofa.targets import Target

Severity = Literal["error", "warning"]

#: limits of the acceptance: beyond them the table does not describe whole networks well
MAX_MAPE_PERCENT = {"modelled": 3.0, "measured": 10.0, "estimated": 25.0}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``error``) or deserves a look (``warning``)."""

    severity: Severity
    what: str
    where: str


def check_table(table: Table, space: Space, target: Target) -> tuple[Finding, ...]:
    """Findings, errors first; an empty tuple is a good table."""
    h = table.header
    found: list[Finding] = []

    def add(severity: Severity, what: str, where: str = "header") -> None:
        found.append(Finding(severity, what, where))

    if h.target != target.name or h.space != space.name:
        add("error", f"is about {h.target} and {h.space}, not {target.name} and {space.name}")
    if "emulated" in h.device:
        add("error", f"its times are an emulator's, not the device's ({h.device['emulated']})")
    if stale := staleness(h, target):
        add("error", stale)
    if foreign := sorted(set(h.resolutions) - set(space.resolutions)):
        add("error", f"resolutions {foreign} are not in the space")
        return tuple(found)
    expected = {b.key for b in space.all_blocks(h.resolutions)}
    for key in sorted(expected - table.rows.keys()):
        add("error", "has no row", key)
    for key in sorted(table.rows.keys() - expected):
        add("error", "is not a block of the space at these resolutions", key)
    for key in sorted(table.rows):
        status = table.rows[key].status
        if status == "failed":
            add("error", "failed: no subnet with this block can be planned", key)
        elif status != "ok":
            add("warning", f"is {status}", key)
    found += _check_fit(table)
    return tuple(sorted(found, key=lambda f: (f.severity != "error", f.where)))


def _check_fit(table: Table) -> list[Finding]:
    fit = table.header.additivity
    if fit is None:
        what = ["no whole subnet was measured: sums are not calibrated"]
    else:
        limit = MAX_MAPE_PERCENT[table.header.evidence]
        what = []
        if fit.mape_percent > limit:
            what.append(f"whole subnets are {fit.mape_percent:.1f}% off the sums (over {limit}%)")
        if not 0.67 <= fit.b <= 1.5:
            what.append(
                f"a whole subnet costs {fit.b:.2f} times its sum: the device was busy with other "
                "work, or its caches suit whole networks and single blocks very differently"
            )
        if fit.spearman < 0.95:
            what.append(f"sums rank whole subnets badly (Spearman {fit.spearman:.3f})")
    return [Finding("warning", w, "additivity") for w in what]
