"""Builds the selection problem of a space: its automaton with the figures of tables and models.

What everything else works on is in :mod:`edgeofa.solver.core` and :mod:`edgeofa.solver.budgets`,
whose names are found here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import frexp, isfinite, ldexp

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.base import AccuracyModel, PairScorer, context_scores, option_scores
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.solver.budgets import (
    AXES,
    Axis,
    Board,
    Bools,
    Budgets,
    Ints,
    Limits,
    Totals,
    make_board,
)
from edgeofa.solver.core import Arc, Path, Problem
from edgeofa.solver.margins import margin_of
from edgeofa.solver.pairs import Worths, pair_worths, with_pairs
from edgeofa.spaces.automaton import Automaton
from edgeofa.spaces.space import Block, Space
from edgeofa.tables.table import Table

__all__ = [
    "AXES",
    "Arc",
    "Axis",
    "Board",
    "Bools",
    "Budgets",
    "Ints",
    "Limits",
    "Path",
    "Problem",
    "Totals",
    "build_problem",
    "pose",
]

#: total scores stay below 2**46 units, so that 2**14 contexts share one 64-bit key
_SCORE_BITS = 46


def build_problem(
    space: Space,
    tables: Table | Sequence[Table],
    accuracy: AccuracyModel,
    resolutions: tuple[int, ...] | None = None,
    *,
    confidence: float | None = None,
) -> Problem:
    """The problem of a space on one table, or on several at once (one network on several boards).

    Args:
        resolutions: those to choose from; by default every one that all tables cover.
        confidence: how surely the budgets hold, see :mod:`edgeofa.solver.margins`.

    Raises:
        UsageError: table or resolutions of another space, or a score that is not a number.
        MissingMaterial: a table lacks blocks of the space (named, with the way to profile them).
        FileFormatError: a table's figures cannot be planned with.
    """
    given = (tables,) if isinstance(tables, Table) else tuple(tables)
    for table in given:
        if table.header.space != space.name:
            raise UsageError(
                f"the table is of space {table.header.space!r}, not {space.name!r}",
                where=f"table {table.header.target}/{table.name}",
                hint=f"--space {table.header.space}, or edgeofa profile --target "
                f"{table.header.target} --space {space.source}",
            )
    where = " and ".join(f"table {t.header.target}/{t.name}" for t in given)
    covered = tuple(r for r in space.resolutions if all(r in t.header.resolutions for t in given))
    chosen = covered if resolutions is None else tuple(sorted(set(resolutions)))
    foreign = [r for r in chosen if r not in space.resolutions]
    if foreign or not chosen:
        raise UsageError(
            f"no such resolution in space {space.name}: {foreign}"
            if foreign
            else "no resolution of the space is covered",
            where=where,
            hint=f"the space has {', '.join(map(str, space.resolutions))}",
        )
    boards = tuple(make_board(t, margin_of(t.fit, confidence)) for t in given)
    return pose(space, space.automaton(chosen), boards, accuracy)


def pose(
    space: Space, automaton: Automaton, boards: tuple[Board, ...], accuracy: AccuracyModel
) -> Problem:
    """The problem of an automaton; ``space`` names its networks."""
    where = " and ".join(board.where for board in boards)
    used = {
        block
        for edge in automaton.edges
        for option in edge.options
        for blocks in option.blocks
        for block in blocks or ()
    }
    figures = [_figures(board, used, space.source) for board in boards]
    arcs, raw = [], option_scores(accuracy, automaton)
    bases = np.array(context_scores(accuracy, automaton), dtype=np.float64)
    pairs = pair_worths(accuracy, automaton) if isinstance(accuracy, PairScorer) else {}
    unit = _score_unit(bases, [*raw, *_largest_pairs(pairs)], where)
    contexts = len(automaton.contexts)
    fixed_costs = np.zeros((contexts, len(AXES) * len(boards)), dtype=np.int64)
    fixed_peaks = np.zeros((contexts, len(boards)), dtype=np.int64)
    fixed_scores = np.rint(bases / unit).astype(np.int64)
    most = 0
    unavoidable = _unavoidable(automaton)
    for number, (edge, scores) in enumerate(zip(automaton.edges, raw, strict=True)):
        costs, peaks, allowed = _edge_figures(automaton, number, figures)
        most += int(costs.max(initial=0))
        units = np.rint(scores / unit).astype(np.int64)
        if number in unavoidable and len(edge.options) == 1 and allowed.all():
            fixed_costs += costs[:, 0]
            fixed_peaks = np.maximum(fixed_peaks, peaks[:, 0])
            fixed_scores += units[:, 0]
            costs, peaks, units = (np.zeros_like(x) for x in (costs, peaks, units))
        options = np.arange(len(edge.options))
        arcs.append(Arc(edge.source, edge.target, number, options, costs, peaks, units, allowed))
    if most >= 2**_SCORE_BITS:
        raise FileFormatError("the table's figures are too large to add up exactly", where=where)
    problem = Problem(
        space=space,
        automaton=automaton,
        boards=boards,
        accuracy=accuracy,
        nodes=automaton.nodes,
        arcs=tuple(arcs),
        fixed_costs=fixed_costs,
        fixed_peaks=fixed_peaks,
        fixed_scores=fixed_scores,
        allowed=np.ones(contexts, dtype=np.bool_),
        score_unit=unit,
    )
    return with_pairs(problem, pairs)


def _largest_pairs(pairs: Worths) -> list[NDArray[np.float64]]:
    """For every edge the pairs that end there: one of them at most is in a network."""
    by_edge: dict[int, list[NDArray[np.float64]]] = {}
    for (_, (edge, _)), worth in pairs.items():
        by_edge.setdefault(edge, []).append(worth)
    return [np.array(worths) for worths in by_edge.values()]


def _figures(
    board: Board, blocks: set[Block], source: str
) -> dict[Block, tuple[int, int, int, int]]:
    """What every block costs on a board; all that its table lacks are named at once."""
    rows = board.table.rows_of(blocks, source=source)
    return {block: board.figures(row) for block, row in rows.items()}


def _edge_figures(
    automaton: Automaton, number: int, figures: list[dict[Block, tuple[int, int, int, int]]]
) -> tuple[Ints, Ints, Bools]:
    """Costs (contexts, options, columns), peaks (contexts, options, boards) and what is allowed."""
    options, contexts = automaton.edges[number].options, len(automaton.contexts)
    costs = np.zeros((contexts, len(options), len(AXES) * len(figures)), dtype=np.int64)
    peaks = np.zeros((contexts, len(options), len(figures)), dtype=np.int64)
    allowed = np.ones((contexts, len(options)), dtype=np.bool_)
    for o, option in enumerate(options):
        for c, blocks in enumerate(option.blocks):
            if blocks is None:
                allowed[c, o] = False
                continue
            for b, known in enumerate(figures):
                for block in blocks:
                    *sums, peak = known[block]
                    costs[c, o, len(AXES) * b : len(AXES) * (b + 1)] += sums
                    peaks[c, o, b] = max(peaks[c, o, b], peak)
    return costs, peaks, allowed


def _unavoidable(automaton: Automaton) -> set[int]:
    """Edges that every path takes and that are no layer of a stage."""
    crossing = np.zeros(automaton.nodes, dtype=np.int64)
    for edge in automaton.edges:
        crossing[edge.source : edge.target] += 1
    return {
        number
        for number, edge in enumerate(automaton.edges)
        if edge.place is None and crossing[edge.source] == 1
    }


def _score_unit(bases: NDArray[np.float64], edges: list[NDArray[np.float64]], where: str) -> float:
    """The power of two that keeps every total score below ``2**_SCORE_BITS`` units."""
    total = float(np.abs(bases).max() + sum(np.abs(x).max(initial=0.0) for x in edges))
    if not isfinite(total):
        raise UsageError("the accuracy model gives a score that is not a number", where=where)
    return ldexp(1.0, frexp(total)[1] - _SCORE_BITS + 1) if total > 0 else 1.0
