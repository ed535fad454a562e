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
    if len(problem.arcs) != len(problem.automaton.edges) or not hasattr(problem.space, "stages"):
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
    place = [edge.place for edge in problem.automaton.edges]
    first = {p[0]: arc.source for arc in problem.arcs if (p := place[arc.edge]) and p[1] == 0}
    last = {i: first[i] + len(stages[i].slots) for i in first}
    ends = {}
    for i, node in first.items():
        for j in range(len(stages[i].slots) + 1):
            ends[node + j, last[i] + 1] = j in stages[i].depths

    def changed(arc: Arc) -> Arc:
        where = place[arc.edge]
        if where is not None:
            slot = stages[where[0]].slots[where[1]]
            return replace(
                arc,
                costs=slot.costs,
                peaks=slot.peaks,
                scores=np.asarray(slot.scores),
                allowed=slot.allowed,
            )
        if not ends.get((arc.source, arc.target), True):
            return replace(arc, allowed=np.zeros_like(arc.allowed))
        return arc

    return replace(problem, arcs=tuple(changed(a) for a in problem.arcs))


def slots_subnet(problem: Problem, context: int, picks: Iterable[int]) -> Subnet:
    """The subnet of option indices, one a slot in the space's order, -1 for no layer."""
    rest = iter(picks)
    stages = []
    for stage in problem.stages:
        chosen = [(slot, next(rest)) for slot in stage.slots]
        stages.append(tuple(slot.layers[o] for slot, o in chosen if o >= 0))
    return Subnet(problem.space.name, problem.resolutions[context], tuple(stages))
