"""Random search, and regularised evolution."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from edgeofa.solver.searchers.base import Search, Searcher

_BATCH = 1024


@dataclass(frozen=True)
class RandomSearcher(Searcher):
    """Subnets drawn like once-for-all samples them, those over budget rejected."""

    name: ClassVar[str] = "random"

    def run(self, search: Search) -> None:
        while search.left:
            search.evaluate(search.random_rows(min(_BATCH, search.left)))


@dataclass(frozen=True)
class RegularisedEvolution(Searcher):
    """Aging evolution (Real et al. 2019, "Regularized evolution for image classifier search").

    The best of a random sample of the population has one mutated child, which replaces the oldest.
    Population and sample are the paper's 100 and 25.
    """

    name: ClassVar[str] = "regularised"
    population: int = 100
    sample: int = 25

    def run(self, search: Search) -> None:
        rows = search.random_rows(min(self.population, search.left))
        alive = deque(zip(search.evaluate(rows).tolist(), rows, strict=True))
        while search.left:
            entrants = search.rng.integers(len(alive), size=self.sample)
            parent = max((alive[int(n)] for n in entrants), key=lambda member: member[0])[1]
            child = search.mutant(parent)
            alive.append((float(search.evaluate(child[None])[0]), child))
            alive.popleft()
