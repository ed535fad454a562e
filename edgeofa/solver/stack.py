"""Several problems of one space as one: each brings the resolutions that its own table is of.

Official look-up tables come one a resolution, and two of them may time a shared block differently;
stacking keeps each one's figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.solver.problem import Problem, StageSlots


def stacked(problems: Sequence[Problem]) -> Problem:
    """One problem over all resolutions; space, table and units are those of the first.

    Raises:
        UsageError: another space or another additivity fit, or a resolution that comes twice.
    """
    first = problems[0]
    resolutions = [r for p in problems for r in p.resolutions]
    if any(p.space != first.space or p.table.fit != first.table.fit for p in problems):
        raise UsageError("only problems of one space and one additivity fit can be stacked")
    if resolutions != sorted(set(resolutions)):
        raise UsageError(f"resolutions must ascend without repeats: {resolutions}")
    unit = max(p.score_unit for p in problems)
    # units are powers of two, so the division is exact and only the rounding is left
    scales = [p.score_unit / unit for p in problems]
    rows = list(zip(problems, scales, strict=True))
    stages = []
    for i, stage in enumerate(first.stages):
        slots = []
        for j, slot in enumerate(stage.slots):
            parts = [(p.stages[i].slots[j], scale) for p, scale in rows]
            slots.append(
                replace(
                    slot,
                    costs=np.concatenate([s.costs for s, _ in parts]),
                    peaks=np.concatenate([s.peaks for s, _ in parts]),
                    scores=np.concatenate(
                        [np.rint(s.scores * scale).astype(np.int64) for s, scale in parts]
                    ),
                    allowed=np.concatenate([s.allowed for s, _ in parts]),
                )
            )
        stages.append(StageSlots(stage.depths, tuple(slots)))
    return replace(
        first,
        resolutions=tuple(resolutions),
        fixed_costs=np.concatenate([p.fixed_costs for p in problems]),
        fixed_peaks=np.concatenate([p.fixed_peaks for p in problems]),
        fixed_scores=np.concatenate(
            [np.rint(p.fixed_scores * scale).astype(np.int64) for p, scale in rows]
        ),
        allowed=np.concatenate([p.allowed for p in problems]),
        stages=tuple(stages),
        score_unit=unit,
    )
