"""A context's networks as a product of segments whose ways are few enough to list.

Between two nodes that every path passes, the ways through are independent of the rest of the
network. Listed one by one, any function of a way can be looked at exactly, not only linear ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeofa.solver.choices import Choices, Floats
from edgeofa.solver.problem import Ints
from edgeofa.solver.relaxed import Part

_MOST_WAYS = 8192


@dataclass(frozen=True, eq=False)
class Segment:
    """``inputs`` (ways, columns) of zeros and ones for the predictor's ``columns``; ``costs``
    (ways,) in units of the room."""

    columns: Ints
    inputs: Floats
    costs: Floats

    def __len__(self) -> int:
        return len(self.costs)

    def times(self, other: Segment) -> Segment:
        """Every way of this one with every way of the other."""
        one, two = np.divmod(np.arange(len(self) * len(other)), len(other))
        return Segment(
            np.concatenate([self.columns, other.columns]),
            np.concatenate([self.inputs[one], other.inputs[two]], axis=1),
            self.costs[one] + other.costs[two],
        )


def segments_of(part: Part) -> list[Segment] | None:
    """The segments of a whole context, start to end; None where one has too many ways."""
    at = part.choices
    last = len(at.leaving) - 1
    passed = np.zeros(last + 1, dtype=np.bool_)
    edges = [e for leaving in at.leaving for e in leaving if at.open(part.context, e)]
    automaton = at.problem.automaton
    for e in edges:
        passed[automaton.edges[e].source + 1 : automaton.edges[e].target] = True
    cuts = np.flatnonzero(~passed).tolist()
    merged: list[Segment] = []
    for start, end in pairwise(cuts):
        if _count(at, part.context, start, end) > _MOST_WAYS:
            return None
        segment = _segment(part, _ways(at, part.context, start, end))
        if merged and len(merged[-1]) * len(segment) <= _MOST_WAYS:
            merged[-1] = merged[-1].times(segment)
        else:
            merged.append(segment)
    return merged


def _count(at: Choices, context: int, start: int, end: int) -> int:
    counts = {end: 1}
    for node in range(end - 1, start - 1, -1):
        counts[node] = sum(
            len(at.open(context, e)) * counts.get(at.targets[e], 0) for e in at.leaving[node]
        )
    return counts[start]


def _ways(at: Choices, context: int, start: int, end: int) -> list[list[tuple[int, int]]]:
    """(position, option) of every way from ``start`` to ``end``."""
    ends: dict[int, list[list[tuple[int, int]]]] = {end: [[]]}
    for node in range(end - 1, start - 1, -1):
        ends[node] = [
            ([(int(at.position[e]), o)] if at.position[e] >= 0 else []) + rest
            for e in at.leaving[node]
            for o in at.open(context, e)
            for rest in ends.get(at.targets[e], [])
        ]
    return ends[start]


def _segment(part: Part, ways: list[list[tuple[int, int]]]) -> Segment:
    spare = part.features.model.encoder.features
    of = part.features.columns
    used = {int(c) for way in ways for p, o in way for c in of[p, o]} - {spare}
    columns = np.array(sorted(used), dtype=np.int64)
    place = {c: n for n, c in enumerate(columns.tolist())}
    inputs = np.zeros((len(ways), len(columns)))
    costs = np.zeros(len(ways))
    for n, way in enumerate(ways):
        for p, o in way:
            costs[n] += part.costs[p, o]
            for c in of[p, o].tolist():
                if c != spare:
                    inputs[n, place[c]] = 1
    return Segment(columns, inputs, costs)
