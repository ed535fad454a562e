"""The evolutionary search that once-for-all was published with, at its published settings.

From the official code's description (facts of its ``EvolutionFinder``): a population of 100, 500
generations; the best quarter are parents and survive; half of the 100 children are mutants
(each layer and each depth is drawn anew with probability 0.1, the resolution with 0.5), half are
uniform crossovers of two parents, gene by gene; children over the budget are drawn again. It is
elitist, not aging. Genes of layers past the depth are kept and inherited. What the genes of a space
are: ``genes``.

Where the original would draw for ever, a child that does not fit after ``tries`` is its parent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeofa.solver.searchers.base import Search, Searcher
from edgeofa.solver.searchers.genes import Genes, Genome, genes_of


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
        genes = genes_of(search.choices, random.Random(int(search.rng.integers(1 << 62))))
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
            children = [self._mutant(genes, genes.rng.choice(living)) for _ in range(mutants)]
            children += [
                self._cross(genes, genes.rng.choice(living), genes.rng.choice(living))
                for _ in range(self.population - mutants)
            ]
            values = search.evaluate(np.array([genes.row(c) for c in children])).tolist()
            population += zip(values, children, strict=False)

    def _mutant(self, genes: Genes, parent: Genome) -> Genome:
        for _ in range(self.tries):
            child = genes.mutated(parent, self.mutation_probability, self.resolution_probability)
            if genes.fits(child):
                return child
        return parent

    def _cross(self, genes: Genes, one: Genome, other: Genome) -> Genome:
        for _ in range(self.tries):
            child = genes.crossed(one, other)
            if genes.fits(child):
                return child
        return one
