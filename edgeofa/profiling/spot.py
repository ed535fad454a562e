"""Does a table say what the device does? Measure random blocks again, or whole subnets."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgeofa.backends.base import Backend
from edgeofa.devices.base import Device
from edgeofa.devices.registry import device_for
from edgeofa.errors import UsageError
from edgeofa.profiling.groups import MAX_ITEMS, subnet_groups
from edgeofa.profiling.journal import WholeSubnet
from edgeofa.profiling.measuring import Work, measure_blocks, measure_subnets
from edgeofa.profiling.protocol import RULES, Rules
from edgeofa.spaces.space import Space, Subnet
from edgeofa.tables.diff import Change, rows_differ
from edgeofa.tables.table import Table
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder


def spot_check(
    table: Table,
    target: Target,
    space: Space,
    backend: Backend,
    *,
    blocks: int = 8,
    device: Device | None = None,
    seed: int = 0,
    rules: Rules = RULES,
) -> tuple[tuple[Change, bool], ...]:
    """Measure ``blocks`` random usable rows again; for each its change, and whether that is more
    than chance (see :func:`edgeofa.tables.diff.rows_differ`)."""
    if not 1 <= blocks <= MAX_ITEMS:
        raise UsageError(f"{blocks} blocks", hint=f"1 to {MAX_ITEMS}")
    h = table.header
    usable = [
        b
        for b in space.all_blocks(h.resolutions)
        if b in table and table.rows[b.key].status != "failed"
    ]
    chosen = random.Random(seed).sample(usable, min(blocks, len(usable)))
    with _work(table, target, space, backend, device, rules) as work:
        rows = measure_blocks(work, chosen, h.overhead_ms)
    found = []
    for row in rows:
        old = table.rows[row.block]
        change = Change(row.block, old.latency_ms, row.latency_ms, row.latency_ms / old.latency_ms)
        found.append((change, row.status == "failed" or rows_differ(old, row)))
    return tuple(found)


def measure_whole(
    table: Table,
    target: Target,
    space: Space,
    backend: Backend,
    subnets: Sequence[Subnet],
    *,
    device: Device | None = None,
    rules: Rules = RULES,
) -> tuple[WholeSubnet, ...]:
    """Whole subnets with random weights, measured as ``table`` was: what its sums predict."""
    found: list[WholeSubnet] = []
    with _work(table, target, space, backend, device, rules) as work:
        for group in subnet_groups(space, subnets):
            found += measure_subnets(work, group)
    return tuple(found)


@contextmanager
def _work(
    table: Table,
    target: Target,
    space: Space,
    backend: Backend,
    device: Device | None,
    rules: Rules,
) -> Iterator[Work]:
    h = table.header
    with work_folder("spot") as folder:
        yield Work(
            target=target,
            space=space,
            backend=backend.for_target(target),
            precision=h.precision,
            threads=h.threads,
            seed=h.seed,
            device=device or device_for(target),
            rules=rules,
            folder=folder,
        )
