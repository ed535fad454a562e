"""Pairwise accuracy models: the problem in which a node also knows what came before it.

Where an option is worth more after some options than after others, the automaton is multiplied with
"the last option taken" (a product construction); on the product the score is a sum over arcs again,
and every solver works as before. Two last options stay one node wherever nothing that follows tells
them apart, so that the problem grows only where the model has pairs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.base import PairScorer
from edgeofa.solver.budgets import Ints
from edgeofa.solver.core import Arc, Problem
from edgeofa.spaces.automaton import Automaton, Edge, Option

#: (edge, option) that was taken last, None at the start
Last = tuple[int, int] | None
#: what an option of an edge is worth more after another, in every context
Worths = dict[tuple[tuple[int, int], tuple[int, int]], NDArray[np.float64]]


def adds_nothing(option: Option) -> bool:
    """Whether an option has no block in any context: it is nobody's neighbour."""
    return not any(option.blocks)


def pair_worths(model: PairScorer, automaton: Automaton) -> Worths:
    """The score of every pair that can follow each other, where it is not 0 in all contexts."""
    worths: Worths = {}
    reached = _reached(automaton)
    for e, edge in enumerate(automaton.edges):
        for o, option in enumerate(edge.options):
            if adds_nothing(option):
                continue
            for last in reached[edge.source]:
                if last is None:
                    continue
                worth = _worth(model, automaton, last, edge, option)
                if worth.any():
                    worths[last, (e, o)] = worth
    return worths


def _worth(
    model: PairScorer, automaton: Automaton, last: tuple[int, int], edge: Edge, option: Option
) -> NDArray[np.float64]:
    before = automaton.edges[last[0]]
    first = before.options[last[1]]
    return np.array(
        [
            0.0
            if option.blocks[c] is None or first.blocks[c] is None
            else model.pair_score(context, (before, first), edge, option)
            for c, context in enumerate(automaton.contexts)
        ]
    )


def _reached(automaton: Automaton) -> list[set[Last]]:
    """What can have been taken last when a node is reached."""
    reached: list[set[Last]] = [set() for _ in range(automaton.nodes)]
    reached[0].add(None)
    for e, edge in enumerate(automaton.edges):
        for o, option in enumerate(edge.options):
            if adds_nothing(option):
                reached[edge.target] |= reached[edge.source]
            else:
                reached[edge.target].add((e, o))
    return reached


def with_pairs(problem: Problem, worths: Worths) -> Problem:
    """The problem whose arcs also earn ``worths``."""
    if not worths:
        return problem
    units = {
        pair: np.rint(worth / problem.score_unit).astype(np.int64) for pair, worth in worths.items()
    }
    automaton = problem.automaton
    classes = _classes(problem, units)
    numbers: dict[tuple[int, int], int] = {}
    # one of the last options of every class stands for all
    members: dict[tuple[int, int], Last] = {}
    for node in range(problem.nodes):
        for last, kind in classes[node].items():
            if (node, kind) not in numbers:
                numbers[node, kind] = len(numbers)
                members[node, kind] = last
    arcs = []
    for (node, kind), source in numbers.items():
        last = members[node, kind]
        for arc in problem.leaving[node]:
            options = automaton.edges[arc.edge].options
            groups: dict[int, list[int]] = {}
            for n, o in enumerate(arc.options.tolist()):
                following: Last = last if adds_nothing(options[o]) else (arc.edge, o)
                groups.setdefault(classes[arc.target][following], []).append(n)
            for target, chosen in groups.items():
                scores = arc.scores[:, chosen].copy()
                for column, n in enumerate(chosen):
                    worth = units.get((last or (-1, -1), (arc.edge, int(arc.options[n]))))
                    if worth is not None:
                        scores[:, column] += worth
                arcs.append(
                    Arc(
                        source,
                        numbers[arc.target, target],
                        arc.edge,
                        arc.options[chosen],
                        arc.costs[:, chosen],
                        arc.peaks[:, chosen],
                        scores,
                        arc.allowed[:, chosen],
                    )
                )
    return replace(problem, nodes=len(numbers), arcs=tuple(arcs))


def _classes(
    problem: Problem, units: dict[tuple[tuple[int, int], tuple[int, int]], Ints]
) -> list[dict[Last, int]]:
    """For every node a number for each last option; equal ones are worth the same from there on."""
    automaton = problem.automaton
    reached = _reached(automaton)
    classes: list[dict[Last, int]] = [{} for _ in range(problem.nodes)]
    for node in range(problem.nodes - 1, -1, -1):
        known: dict[tuple[object, ...], int] = {}
        for last in sorted(reached[node], key=lambda x: x or (-1, -1)):
            signature: list[object] = []
            for arc in problem.leaving[node]:
                options = automaton.edges[arc.edge].options
                for o in arc.options.tolist():
                    if adds_nothing(options[o]):
                        signature.append(classes[arc.target][last])
                    elif last is not None and (last, (arc.edge, o)) in units:
                        signature.append(units[last, (arc.edge, o)].tobytes())
                    else:
                        signature.append(None)
            classes[node][last] = known.setdefault(tuple(signature), len(known))
    return classes
