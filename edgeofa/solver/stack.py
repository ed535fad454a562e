"""Several problems of one space as one: each brings the resolutions that its own table is of.

Official look-up tables come one a resolution, and two of them may time a shared block differently;
stacking keeps each one's figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Ints
from edgeofa.solver.core import Problem


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

    def together(arrays: Sequence[Ints]) -> Ints:
        return np.concatenate(arrays)

    def rescaled(arrays: Sequence[Ints]) -> Ints:
        each = zip(arrays, scales, strict=True)
        return together([np.rint(a * scale).astype(np.int64) for a, scale in each])

    arcs = tuple(
        replace(
            same[0],
            costs=together([a.costs for a in same]),
            peaks=together([a.peaks for a in same]),
            scores=rescaled([a.scores for a in same]),
            allowed=np.concatenate([a.allowed for a in same]),
        )
        for same in zip(*(p.arcs for p in problems), strict=True)
    )
    return replace(
        first,
        automaton=first.space.automaton(tuple(resolutions)),
        arcs=arcs,
        fixed_costs=together([p.fixed_costs for p in problems]),
        fixed_peaks=together([p.fixed_peaks for p in problems]),
        fixed_scores=rescaled([p.fixed_scores for p in problems]),
        allowed=np.concatenate([p.allowed for p in problems]),
        score_unit=unit,
    )
