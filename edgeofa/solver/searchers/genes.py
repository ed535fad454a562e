"""Networks as genes, for the evolutionary search.

A staged space has once-for-all's genes: the resolution, a depth a stage, a kernel and an expansion
a layer. Any other space has the context, an edge for every node that several leave, and an option
for every edge. Genes that a network does not use are kept and inherited.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from edgeofa.solver.choices import Choices
from edgeofa.solver.problem import Ints


@dataclass
class Genome:
    """``routes`` are depths in a staged space, else edges; ``firsts`` kernels, else options."""

    context: int
    routes: list[int]
    firsts: list[int]
    seconds: list[int]


class Genes(ABC):
    """How genes are drawn and read; ``rng`` draws everything."""

    rng: random.Random
    contexts: list[int]

    @abstractmethod
    def genome(self, row: Ints) -> Genome:
        """A genome of the row; what it does not use is drawn."""

    @abstractmethod
    def row(self, genome: Genome) -> list[int]: ...

    @abstractmethod
    def fits(self, genome: Genome) -> bool: ...

    @abstractmethod
    def mutate(self, child: Genome, probability: float) -> None:
        """Draw every gene but the context anew with the probability."""

    def mutated(self, parent: Genome, probability: float, context: float) -> Genome:
        child = Genome(parent.context, parent.routes[:], parent.firsts[:], parent.seconds[:])
        if self.rng.random() < context:
            child.context = self.rng.choice(self.contexts)
        self.mutate(child, probability)
        return child

    def crossed(self, one: Genome, other: Genome) -> Genome:
        draw = self.rng.random

        def mix(a: list[int], b: list[int]) -> list[int]:
            return [x if draw() < 0.5 else y for x, y in zip(a, b, strict=True)]

        return Genome(
            one.context if draw() < 0.5 else other.context,
            mix(one.routes, other.routes),
            mix(one.firsts, other.firsts),
            mix(one.seconds, other.seconds),
        )


def genes_of(choices: Choices, rng: random.Random) -> Genes:
    """Once-for-all's genes where the space is staged, else those of its automaton."""
    stages = _stages(choices)
    return _PathGenes(choices, rng) if stages is None else _StagedGenes(choices, rng, stages)


@dataclass(frozen=True)
class _Stage:
    first: int
    depths: list[int]


def _stages(choices: Choices) -> list[_Stage] | None:
    """First position and depths of every stage, None for a space that is not staged."""
    edges = choices.problem.automaton.edges
    places = [edges[e].place for e in choices.edges.tolist()]
    found: list[_Stage] = []
    for n, place in enumerate(places):
        if place is None:
            return None
        stage, position = place
        if position == 0:
            found.append(_Stage(n, []))
        if stage != len(found) - 1 or position != n - found[-1].first:
            return None
        layers = [o.layer for o in edges[choices.edges[n]].options if o.layer is not None]
        if len({x.kernel for x in layers}) * len({x.expand for x in layers}) != len(layers):
            return None
        if choices.targets[choices.edges[n]] in choices.implied:
            found[-1].depths.append(position + 1)
    return found if found and all(stage.depths for stage in found) else None


class _StagedGenes(Genes):
    """Plain lists and numbers, because one child at a time is made of them."""

    def __init__(self, choices: Choices, rng: random.Random, stages: list[_Stage]):
        self.rng = rng
        self.contexts = [int(c) for c in choices.contexts]
        self._stage = [(s.first, s.depths[-1]) for s in stages]
        self._depths = [s.depths for s in stages]
        edges = choices.problem.automaton.edges
        layers = [
            [o.layer for o in edges[e].options if o.layer is not None]
            for e in choices.edges.tolist()
        ]
        self._kernels = [len({x.kernel for x in each}) for each in layers]
        self._expands = [len({x.expand for x in each}) for each in layers]
        axes = [a for a, limit in enumerate(choices.limits.sums) if limit is not None]
        self._limits = [choices.limits.sums[a] or 0 for a in axes]
        big = max(self._limits, default=0) + 1
        # what is not allowed costs more than the limit
        costs = np.where(choices.allowed[..., None], choices.costs[..., axes], big)
        self._costs = np.moveaxis(costs, -1, 0).tolist()  # [axis][context][position][option]
        self._fixed = choices.problem.fixed_costs[:, axes].T.tolist()
        self._forbidden = choices.allowed.tolist() if not axes else None

    def genome(self, row: Ints) -> Genome:
        depths, kernels, expands = [], [], []
        for start, most in self._stage:
            depths.append(int((row[1 + start : 1 + start + most] >= 0).sum()))
        for position, option in enumerate(row[1:].tolist()):
            if option < 0:
                option = self.rng.randrange(self._kernels[position] * self._expands[position])
            kernel, expand = divmod(option, self._expands[position])
            kernels.append(kernel)
            expands.append(expand)
        return Genome(int(row[0]), depths, kernels, expands)

    def row(self, genome: Genome) -> list[int]:
        row = [genome.context]
        for (start, most), depth in zip(self._stage, genome.routes, strict=True):
            for j in range(start, start + most):
                option = genome.firsts[j] * self._expands[j] + genome.seconds[j]
                row.append(option if j < start + depth else -1)
        return row

    def fits(self, genome: Genome) -> bool:
        if self._forbidden is not None:
            allowed = self._forbidden[genome.context]
            return all(allowed[s][o] for s, o in enumerate(self.row(genome)[1:]))
        for costs, fixed, limit in zip(self._costs, self._fixed, self._limits, strict=True):
            here, total = costs[genome.context], fixed[genome.context]
            for (start, _), depth in zip(self._stage, genome.routes, strict=True):
                for j in range(start, start + depth):
                    total += here[j][genome.firsts[j] * self._expands[j] + genome.seconds[j]]
            if total > limit:
                return False
        return True

    def mutate(self, child: Genome, probability: float) -> None:
        draw, pick = self.rng.random, self.rng.randrange
        for position in range(len(child.firsts)):
            if draw() < probability:
                child.firsts[position] = pick(self._kernels[position])
                child.seconds[position] = pick(self._expands[position])
        for i, depths in enumerate(self._depths):
            if draw() < probability:
                child.routes[i] = self.rng.choice(depths)


class _PathGenes(Genes):
    def __init__(self, choices: Choices, rng: random.Random):
        self.rng = rng
        self.contexts = [int(c) for c in choices.contexts]
        self._choices = choices
        self._options: list[int] = choices.options.tolist()

    def genome(self, row: Ints) -> Genome:
        taken = {
            self._choices.problem.automaton.edges[e].source: e for e, _ in self._choices.path(row)
        }
        routes = [
            taken.get(node) if node in taken else self.rng.choice(edges) if edges else -1
            for node, edges in enumerate(self._choices.leaving)
        ]
        firsts = [
            option if option >= 0 else self.rng.randrange(count)
            for option, count in zip(row[1:].tolist(), self._options, strict=True)
        ]
        return Genome(int(row[0]), [-1 if r is None else r for r in routes], firsts, [])

    def row(self, genome: Genome) -> list[int]:
        at, node = self._choices, 0
        row = [genome.context] + [-1] * at.positions
        while node < len(at.leaving) - 1:
            edge = genome.routes[node]
            position = int(at.position[edge])
            if position >= 0:
                row[1 + position] = genome.firsts[position]
            node = at.targets[edge]
        return row

    def fits(self, genome: Genome) -> bool:
        return bool(self._choices.fits(np.array([self.row(genome)]))[0])

    def mutate(self, child: Genome, probability: float) -> None:
        draw = self.rng.random
        for position, count in enumerate(self._options):
            if draw() < probability:
                child.firsts[position] = self.rng.randrange(count)
        for node, edges in enumerate(self._choices.leaving):
            if len(edges) > 1 and draw() < probability:
                child.routes[node] = self.rng.choice(edges)
