"""What changed between two tables.

A measured row changed when the two 95% intervals do not overlap. The interval of a modelled row
is the error of the model against real boards, which both tables share, and says nothing about a
difference between them; there a row changed when it moved by more than ``REPEATABILITY``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgeofa.tables.table import Row, Status, Table

#: how far a modelled row may move for no reason: its place among the jobs of one emulated process
#: (what lies in the caches and branch-dependent start-up work before it) moves it by up to 1.7%
REPEATABILITY = 0.02


@dataclass(frozen=True)
class Change:
    """One block in two tables; ``ratio`` is new / old."""

    block: str
    old_ms: float
    new_ms: float
    ratio: float


@dataclass(frozen=True)
class Difference:
    """Rows changed beyond their intervals, and what else differs. ``old`` and ``new`` in order."""

    changed: tuple[Change, ...]
    unchanged: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    #: block: (old status, new status)
    status: dict[str, tuple[Status, Status]]
    #: header key: (old, new), as text
    header: dict[str, tuple[str, str]]
    #: geometric mean of new / old over the rows that both have
    mean_ratio: float | None


def rows_differ(old: Row, new: Row) -> bool:
    """Whether the latencies of one block differ by more than chance, see the module's text."""
    if old.evidence == new.evidence == "modelled":
        return abs(new.latency_ms / old.latency_ms - 1) > REPEATABILITY
    return old.latency_high_ms < new.latency_low_ms or new.latency_high_ms < old.latency_low_ms


def diff_tables(old: Table, new: Table) -> Difference:
    """Compare two tables row by row and key by key."""
    changed, ratios = [], []
    status: dict[str, tuple[Status, Status]] = {}
    for key in sorted(old.rows.keys() & new.rows.keys()):
        a, b = old.rows[key], new.rows[key]
        if a.status != b.status:
            status[key] = (a.status, b.status)
        if "failed" in (a.status, b.status):
            continue
        ratio = b.latency_ms / a.latency_ms
        ratios.append(ratio)
        if rows_differ(a, b):
            changed.append(Change(key, a.latency_ms, b.latency_ms, ratio))
    mean = 1.0
    for ratio in ratios:
        mean *= ratio ** (1 / len(ratios))
    return Difference(
        changed=tuple(sorted(changed, key=lambda c: (-abs(c.ratio - 1), c.block))),
        unchanged=len(ratios) - len(changed),
        added=tuple(sorted(new.rows.keys() - old.rows.keys())),
        removed=tuple(sorted(old.rows.keys() - new.rows.keys())),
        status=status,
        header=_header_changes(old, new),
        mean_ratio=mean if ratios else None,
    )


def _header_changes(old: Table, new: Table) -> dict[str, tuple[str, str]]:
    def flat(table: Table) -> dict[str, str]:
        out: dict[str, str] = {}
        for key, value in dataclasses.asdict(table.header).items():
            if isinstance(value, dict):
                out.update({f"{key}.{k}": str(v) for k, v in value.items()})
            else:
                out[key] = str(value)
        return out

    a, b = flat(old), flat(new)
    return {
        k: (a.get(k, "-"), b.get(k, "-")) for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)
    }
