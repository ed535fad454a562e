"""The evolutionary search that once-for-all was published with, at its published settings.

From the official code's description (facts of its ``EvolutionFinder``): a population of 100, 500
generations; the best quarter are parents and survive; half of the 100 children are mutants
(each layer and each depth is drawn anew with probability 0.1, the resolution with 0.5), half are
uniform crossovers of two parents, gene by gene; children over the budget are drawn again. It is
elitist, not aging. Genes of layers past the depth are kept and inherited.

Where the original would draw for ever, a child that does not fit after ``tries`` is its parent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeofa.solver.choices import Choices
from edgeofa.solver.problem import Ints
from edgeofa.solver.searchers.base import Search, Searcher


@dataclass
class _Genome:
    resolution: int
    depths: list[int]
    kernels: list[int]  # indices, one a slot
    expands: list[int]


@dataclass(frozen=True)
class OfaEvolution(Searcher):
    """Once-for-all's evolutionary search."""

    name: ClassVar[str] = "ofa-evolution"
    population: int = 100
    generations: int = 500
    parent_ratio: float = 0.25
    mutation_ratio: float = 0.5
    mutation_probability: float = 0.1
    resolution_probability: float = 0.5
    tries: int = 10_000

    def run(self, search: Search) -> None:
        genes = _Genes(search.choices, random.Random(int(search.rng.integers(1 << 62))))
        rows = search.random_rows(min(self.population, search.left))
        genomes = [genes.genome(row) for row in rows]
        population = list(zip(search.evaluate(rows).tolist(), genomes, strict=True))
        parents = max(1, round(self.parent_ratio * self.population))
        mutants = round(self.mutation_ratio * self.population)
        for _ in range(self.generations):
            if not search.left:
                break
            population = sorted(population, key=lambda member: -member[0])[:parents]
            living = [genome for _, genome in population]
            children = [self._mutant(genes, genes.draw(living)) for _ in range(mutants)]
            children += [
                self._cross(genes, genes.draw(living), genes.draw(living))
                for _ in range(self.population - mutants)
            ]
            values = search.evaluate(np.array([genes.row(c) for c in children])).tolist()
            population += zip(values, children, strict=False)

    def _mutant(self, genes: _Genes, parent: _Genome) -> _Genome:
        for _ in range(self.tries):
            child = genes.mutated(parent, self.mutation_probability, self.resolution_probability)
            if genes.fits(child):
                return child
        return parent

    def _cross(self, genes: _Genes, one: _Genome, other: _Genome) -> _Genome:
        for _ in range(self.tries):
            child = genes.crossed(one, other)
            if genes.fits(child):
                return child
        return one


class _Genes:
    """Plain lists and numbers, because one child at a time is made of them."""

    def __init__(self, choices: Choices, rng: random.Random):
        self._rng = rng
        self._resolutions = [int(r) for r in choices.resolutions]
        self._depths = [d.tolist() for d in choices.depths]
        self._stage = [
            (int(start), int(depths[-1]))
            for start, depths in zip(choices.starts, choices.depths, strict=True)
        ]
        slots = [slot for stage in choices.problem.stages for slot in stage.slots]
        self._kernels = [len({x.kernel for x in slot.layers}) for slot in slots]
        self._expands = [len({x.expand for x in slot.layers}) for slot in slots]
        axes = [a for a, limit in enumerate(choices.limits.sums) if limit is not None]
        self._limits = [choices.limits.sums[a] or 0 for a in axes]
        big = max(self._limits, default=0) + 1
        # what is not allowed costs more than the limit
        costs = np.where(choices.allowed[..., None], choices.costs[..., axes], big)
        self._costs = np.moveaxis(costs, -1, 0).tolist()  # [axis][resolution][slot][option]
        self._fixed = choices.problem.fixed_costs[:, axes].T.tolist()
        self._forbidden = choices.allowed.tolist() if not axes else None

    def draw(self, genomes: list[_Genome]) -> _Genome:
        return self._rng.choice(genomes)

    def genome(self, row: Ints) -> _Genome:
        depths, kernels, expands = [], [], []
        for start, most in self._stage:
            depths.append(int((row[1 + start : 1 + start + most] >= 0).sum()))
        for slot, option in enumerate(row[1:].tolist()):
            if option < 0:
                option = self._rng.randrange(self._kernels[slot] * self._expands[slot])
            kernel, expand = divmod(option, self._expands[slot])
            kernels.append(kernel)
            expands.append(expand)
        return _Genome(int(row[0]), depths, kernels, expands)

    def row(self, genome: _Genome) -> list[int]:
        row = [genome.resolution]
        for (start, most), depth in zip(self._stage, genome.depths, strict=True):
            for j in range(start, start + most):
                there = j < start + depth
                row.append(
                    genome.kernels[j] * self._expands[j] + genome.expands[j] if there else -1
                )
        return row

    def fits(self, genome: _Genome) -> bool:
        if self._forbidden is not None:
            allowed = self._forbidden[genome.resolution]
            return all(allowed[s][o] for s, o in enumerate(self.row(genome)[1:]))
        for costs, fixed, limit in zip(self._costs, self._fixed, self._limits, strict=True):
            here, total = costs[genome.resolution], fixed[genome.resolution]
            for (start, _), depth in zip(self._stage, genome.depths, strict=True):
                for j in range(start, start + depth):
                    total += here[j][genome.kernels[j] * self._expands[j] + genome.expands[j]]
            if total > limit:
                return False
        return True

    def mutated(self, parent: _Genome, probability: float, resolution: float) -> _Genome:
        draw, pick = self._rng.random, self._rng.randrange
        child = _Genome(parent.resolution, parent.depths[:], parent.kernels[:], parent.expands[:])
        if draw() < resolution:
            child.resolution = self._rng.choice(self._resolutions)
        for slot in range(len(child.kernels)):
            if draw() < probability:
                child.kernels[slot] = pick(self._kernels[slot])
                child.expands[slot] = pick(self._expands[slot])
        for i, depths in enumerate(self._depths):
            if draw() < probability:
                child.depths[i] = self._rng.choice(depths)
        return child

    def crossed(self, one: _Genome, other: _Genome) -> _Genome:
        draw = self._rng.random

        def mix(a: list[int], b: list[int]) -> list[int]:
            return [x if draw() < 0.5 else y for x, y in zip(a, b, strict=True)]

        return _Genome(
            one.resolution if draw() < 0.5 else other.resolution,
            mix(one.depths, other.depths),
            mix(one.kernels, other.kernels),
            mix(one.expands, other.expands),
        )
