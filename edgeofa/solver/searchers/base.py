"""What a searcher is: something that looks for a good subnet and counts what it looks at.

All searchers get the same objective (rows in, accuracies out), the same limits on costs and the
same budget of objective calls, and draw from one seeded generator. What they may use besides is
what the rows cost, which needs no prediction.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.choices import Choices, Floats, Objective
from edgeofa.solver.problem import Ints, Limits, Problem
from edgeofa.spaces.space import Subnet

#: draws in a row without a subnet that fits, after which rejection sampling gives up
MAX_TRIES = 1_000_000
_DRAW = 4096


@dataclass(frozen=True)
class Step:
    """A new best: how many calls had been made, and its value."""

    calls: int
    seconds: float
    value: float


@dataclass(frozen=True)
class SearchResult:
    """The best subnet found and the accuracy model's value of it.

    ``trace`` holds every improvement in order.
    """

    searcher: str
    best: Subnet
    value: float
    calls: int
    seconds: float
    trace: tuple[Step, ...]


class Search:
    """One running search: it evaluates rows, keeps the best, and knows when to stop."""

    def __init__(self, problem: Problem, limits: Limits, budget_calls: int, seed: int):
        if budget_calls < 1:
            raise UsageError(f"a search needs at least one call, not {budget_calls}")
        self.choices = Choices(problem, limits)
        self.objective = Objective(self.choices)
        self.budget_calls = budget_calls
        self.rng = np.random.default_rng(seed)
        self.trace: list[Step] = []
        self._best: Ints | None = None
        self._start = time.perf_counter()

    @property
    def left(self) -> int:
        """Calls that may still be made."""
        return self.budget_calls - self.objective.calls

    def evaluate(self, rows: Ints) -> Floats:
        """Values of rows that fit, at most ``left`` of them; the rest are not looked at."""
        rows = rows[: self.left]
        if not len(rows):
            return np.zeros(0)
        values = self.objective(rows)
        top = int(values.argmax())
        if not self.trace or values[top] > self.trace[-1].value:
            self._best = rows[top].copy()
            seconds = time.perf_counter() - self._start
            self.trace.append(Step(self.objective.calls, seconds, float(values[top])))
        return values

    def random_rows(self, n: int) -> Ints:
        """Random rows that fit, by rejection.

        Raises:
            NoSubnetFits: ``MAX_TRIES`` draws in a row did not fit (which proves nothing).
        """
        found = np.zeros((0, 1 + self.choices.slots), dtype=np.int64)
        missed = 0
        while len(found) < n:
            if missed >= MAX_TRIES or not len(self.choices.resolutions):
                raise NoSubnetFits(
                    f"none of {missed} random subnets is within the budgets",
                    where=f"space {self.choices.problem.space.name}",
                    hint="edgeofa solve names the budget that the leanest subnet needs",
                )
            drawn = self.choices.sample(self.rng, _DRAW)
            kept = drawn[self.choices.fits(drawn)]
            missed = 0 if len(kept) else missed + len(drawn)
            found = np.concatenate([found, kept])
        return found[:n]

    def result(self, name: str) -> SearchResult:
        assert self._best is not None  # noqa: S101 - every searcher evaluates at least one row
        best = self.choices.subnet(self._best)
        return SearchResult(
            name,
            best,
            # the search may have used single precision
            float(self.choices.problem.accuracy.rerank([best])[0]),
            self.objective.calls,
            time.perf_counter() - self._start,
            tuple(self.trace),
        )


class Searcher(ABC):
    """A way to search; plugins of the entry-point group ``edgeofa.searchers`` derive from it."""

    name: ClassVar[str]

    def search(
        self, problem: Problem, limits: Limits, budget_calls: int, seed: int
    ) -> SearchResult:
        """The best subnet within ``limits`` that at most ``budget_calls`` predictions find.

        Raises:
            NoSubnetFits: no random subnet was within the limits.
        """
        search = Search(problem, limits, budget_calls, seed)
        self.run(search)
        return search.result(self.name)

    @abstractmethod
    def run(self, search: Search) -> None:
        """Evaluate rows until ``search.left`` is 0 or there is nothing left to try."""
