"""The staged view of a problem: stages of layers, as MBConv spaces are.

Searches that walk from subnet to subnet think in layers and depths; the exact solver does not need
them. ``restaged`` is the way back: a problem with other scores, options or depths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Bools, Ints
from edgeofa.spaces.automaton import Edge
from edgeofa.spaces.space import Layer, Subnet

if TYPE_CHECKING:
    from edgeofa.solver.core import Arc, Problem


@dataclass(frozen=True, eq=False)
class Slot:
    """The options of one layer; arrays are stacked over the contexts.

    ``costs`` is (contexts, options, columns), ``peaks`` (contexts, options, boards), the others
    (contexts, options).
    """

    layers: tuple[Layer, ...]
    costs: Ints
    peaks: Ints
    scores: Ints
    allowed: Bools


@dataclass(frozen=True, eq=False)
class StageSlots:
    """A stage: it stops after a number of layers that is in ``depths``."""

    depths: tuple[int, ...]
    slots: tuple[Slot, ...]


def stages_of(problem: Problem) -> tuple[StageSlots, ...]:
    """The stages of a problem.

    Raises:
        UsageError: the space is not staged, or its accuracy model is pairwise.
    """
    if len(problem.arcs) != len(problem.automaton.edges) or not problem.space.is_staged:
        raise UsageError(
            "only staged spaces with an additive or a network model are searched layer by layer",
            where=f"space {problem.space.name}",
            hint="edgeofa solve is exact for this one",
        )
    slots: dict[int, list[Slot]] = {}
    for arc in problem.arcs:
        edge = problem.automaton.edges[arc.edge]
        if edge.place is None:
            continue
        layers = tuple(edge.options[o].layer for o in arc.options.tolist())
        slot = Slot(
            tuple(x for x in layers if x is not None),
            arc.costs,
            arc.peaks,
            arc.scores,
            arc.allowed,
        )
        slots.setdefault(edge.place[0], []).append(slot)
    return tuple(
        StageSlots(stage.depths, tuple(slots[i])) for i, stage in enumerate(problem.space.stages)
    )


def restaged(problem: Problem, stages: tuple[StageSlots, ...]) -> Problem:
    """The problem with the layers and depths of ``stages``."""
    edges = problem.automaton.edges
    # where a stage has how many layers
    depth_at = {
        arc.target: (place[0], place[1] + 1)
        for arc in problem.arcs
        if (place := edges[arc.edge].place) is not None
    }

    def changed(arc: Arc) -> Arc:
        edge = edges[arc.edge]
        if edge.place is not None:
            i, j = edge.place
            slot = stages[i].slots[j]
            allowed = slot.allowed if j < max(stages[i].depths) else np.zeros_like(slot.allowed)
            scores = np.asarray(slot.scores)
            return replace(arc, costs=slot.costs, peaks=slot.peaks, scores=scores, allowed=allowed)
        stage, depth = depth_at.get(arc.source, (0, 0))
        if depth and adds_nothing(edge) and depth not in stages[stage].depths:
            return replace(arc, allowed=np.zeros_like(arc.allowed))
        return arc

    return replace(problem, arcs=tuple(changed(a) for a in problem.arcs))


def adds_nothing(edge: Edge) -> bool:
    """Whether an edge only moves on: it is where a stage may stop."""
    return not any(any(option.blocks) for option in edge.options)


def slots_subnet(problem: Problem, context: int, picks: Iterable[int]) -> Subnet:
    """The subnet of option indices, one a slot in the space's order, -1 for no layer."""
    rest = iter(picks)
    stages = []
    for stage in problem.stages:
        chosen = [(slot, next(rest)) for slot in stage.slots]
        stages.append(tuple(slot.layers[o] for slot, o in chosen if o >= 0))
    return Subnet(problem.space.name, problem.resolutions[context], tuple(stages))
