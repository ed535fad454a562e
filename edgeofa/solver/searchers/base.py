"""What a searcher is: something that looks for a good network and counts what it looks at.

All searchers get the same objective (rows in, values out), the same limits on costs and the same
budget of objective calls, and draw from one seeded generator. What they may use besides is what the
rows cost, which needs no prediction.

A search is a pure function of problem, limits, objective, settings, calls and seed. That is what
makes it resumable: with ``state``, the values that it has been given are kept in a file, and a
search that was killed is run again from the start with those values at hand, up to the place where
it stopped and on from there. The result is bit for bit that of a search never interrupted.
"""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.choices import SLOPE_CALLS, BlackBox, Choices, Floats, Objective
from edgeofa.solver.problem import Ints, Limits, Problem
from edgeofa.solver.searchers.moves import Moves
from edgeofa.solver.searchers.state import StateFile, identity
from edgeofa.spaces.space import Subnet

#: draws in a row without a subnet that fits, after which rejection sampling gives up
MAX_TRIES = 1_000_000
_DRAW = 4096
_TRIES = 1000


@dataclass(frozen=True)
class Step:
    """A new best: how many calls had been made, and its value."""

    calls: int
    seconds: float
    value: float


@dataclass(frozen=True)
class SearchResult:
    """The best subnet found and the objective's value of it.

    ``trace`` holds every improvement in order. ``seconds`` count what was spent before an
    interruption too.
    """

    searcher: str
    best: Subnet
    value: float
    calls: int
    seconds: float
    trace: tuple[Step, ...]


class Search:
    """One running search: it evaluates rows, keeps the best, and knows when to stop."""

    def __init__(
        self,
        problem: Problem,
        limits: Limits,
        budget_calls: int,
        seed: int,
        objective: BlackBox | None = None,
        state: StateFile | None = None,
    ):
        if budget_calls < 1:
            raise UsageError(f"a search needs at least one call, not {budget_calls}")
        self.choices = Choices(problem, limits)
        self.objective = Objective(self.choices, objective)
        self.budget_calls = budget_calls
        self.rng = np.random.default_rng(seed)
        self.trace: list[Step] = []
        self._best: Ints | None = None
        self._state = state
        self._start = time.perf_counter() - (state.seconds if state else 0.0)

    @property
    def left(self) -> int:
        """Calls that may still be made."""
        return self.budget_calls - self.objective.calls

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @cached_property
    def moves(self) -> Moves:
        return Moves(self.choices)

    def values(self, rows: Ints) -> Floats:
        """Values of at most ``left`` rows, whether they fit or not; none becomes the best."""
        rows = rows[: self.left]
        if not len(rows):
            return np.zeros(0)
        if self._state is None:
            return self.objective(rows)
        self.objective.calls += len(rows)
        return self._state.answered(rows, self.objective, self.seconds)

    def estimated(self, row: Ints, others: Ints) -> Floats | None:
        """See :meth:`Objective.estimated`; None too where no calls are left for it."""
        return self.objective.estimated(row, others) if self.left > SLOPE_CALLS else None

    def evaluate(self, rows: Ints) -> Floats:
        """Values of rows that fit, at most ``left`` of them; the rest are not looked at."""
        values = self.values(rows)
        if not len(values):
            return values
        top = int(values.argmax())
        if not self.trace or values[top] > self.trace[-1].value:
            self._best = rows[top].copy()
            self.trace.append(Step(self.objective.calls, self.seconds, float(values[top])))
        return values

    def random_rows(self, n: int) -> Ints:
        """Random rows that fit, by rejection.

        Raises:
            NoSubnetFits: ``MAX_TRIES`` draws in a row did not fit (which proves nothing).
        """
        found = np.zeros((0, 1 + self.choices.positions), dtype=np.int64)
        missed = 0
        while len(found) < n:
            drawn = self.choices.sample(self.rng, _DRAW)
            if missed >= MAX_TRIES or not len(drawn):
                raise NoSubnetFits(
                    f"none of {missed} random subnets is within the budgets",
                    where=f"space {self.choices.problem.space.name}",
                    hint="edgeofa solve names the budget that the leanest subnet needs",
                )
            kept = drawn[self.choices.fits(drawn)]
            missed = 0 if len(kept) else missed + len(drawn)
            found = np.concatenate([found, kept])
        return found[:n]

    def mutant(self, parent: Ints) -> Ints:
        """The parent with one choice drawn anew, within the limits.

        A change over the limits is drawn again; after ``_TRIES`` of them the child is the parent.
        """
        for _ in range(_TRIES):
            child = self.moves.mutated(parent, self.rng)
            if not np.array_equal(child, parent) and self.choices.fits(child[None])[0]:
                return child
        return parent

    def result(self, name: str) -> SearchResult:
        assert self._best is not None  # noqa: S101 - every searcher evaluates at least one row
        best = self.choices.subnet(self._best)
        value = self.trace[-1].value
        if self.objective.function is None:
            # the search may have used single precision
            value = float(self.choices.problem.accuracy.rerank([best])[0])
        return SearchResult(
            name, best, value, self.objective.calls, self.seconds, tuple(self.trace)
        )


class Searcher(ABC):
    """A way to search; plugins of the entry-point group ``edgeofa.searchers`` derive from it.

    A searcher that is a dataclass has its fields as settings.
    """

    name: ClassVar[str]

    def search(
        self,
        problem: Problem,
        limits: Limits,
        budget_calls: int,
        seed: int,
        *,
        objective: BlackBox | None = None,
        state: Path | None = None,
    ) -> SearchResult:
        """The best subnet within ``limits`` that at most ``budget_calls`` predictions find.

        Args:
            objective: what to maximise, by default the problem's accuracy model; it must give the
                same value for the same subnet.
            state: a file that a killed search is resumed from, and a running one is kept in.

        Raises:
            NoSubnetFits: no random subnet was within the limits.
            FileFormatError: ``state`` is corrupt, or of another search (problem, limits, searcher,
                settings, calls or seed).
        """
        kept = None
        if state is not None:
            kept = StateFile(
                state,
                identity(problem, limits, self.name, self.settings, budget_calls, seed, objective),
            )
        search = Search(problem, limits, budget_calls, seed, objective, kept)
        try:
            self.run(search)
        finally:
            if kept is not None:
                kept.save(search.seconds)
        return search.result(self.name)

    @property
    def settings(self) -> dict[str, object]:
        """What the search depends on besides problem, calls and seed."""
        if dataclasses.is_dataclass(self):
            return dataclasses.asdict(self)
        return {}

    @abstractmethod
    def run(self, search: Search) -> None:
        """Evaluate rows until ``search.left`` is 0 or there is nothing left to try.

        It must draw from ``search.rng`` alone and depend on nothing else that changes.
        """
