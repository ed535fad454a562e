"""Does a table still say what the device does? Measure a few random blocks again."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from edgeofa.backends.base import Backend
from edgeofa.devices.base import Device
from edgeofa.devices.registry import device_for
from edgeofa.errors import UsageError
from edgeofa.paths import cache_dir
from edgeofa.profiling.groups import MAX_ITEMS
from edgeofa.profiling.profile import Work, measure_blocks
from edgeofa.profiling.protocol import RULES, Rules
from edgeofa.spaces.space import Space
from edgeofa.tables.diff import Change, rows_differ
from edgeofa.tables.table import Table
from edgeofa.targets import Target


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
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="spot-") as folder:
        work = Work(
            target=target,
            space=space,
            backend=backend,
            precision=h.precision,
            threads=h.threads,
            seed=h.seed,
            device=device or device_for(target),
            rules=rules,
            folder=Path(folder),
        )
        rows = measure_blocks(work, chosen, h.overhead_ms)
    found = []
    for row in rows:
        old = table.rows[row.block]
        change = Change(row.block, old.latency_ms, row.latency_ms, row.latency_ms / old.latency_ms)
        found.append((change, row.status == "failed" or rows_differ(old, row)))
    return tuple(found)
