"""Monte-Carlo tree search over the decisions of a subnet, one after the other.

After DeepArchitect (Negrinho and Gordon 2017): UCT, ``mean + c * sqrt(2 ln(parent) / visits)``, an
unvisited child first; a random completion from the first new node; only nodes of the tree learn its
score. Decisions are the resolution, then for each stage its depth and its layers. Means are scaled
to 0..1 by the range of scores seen so far, as UCT needs.

A decision after which even the cheapest completion is over a budget is not taken, so that nearly
every completion that is drawn fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log, sqrt
from typing import ClassVar

import numpy as np

from edgeofa.solver.choices import Choices
from edgeofa.solver.problem import Ints
from edgeofa.solver.searchers.base import Search, Searcher

_COMPLETIONS = 64
_FIRST = 32


@dataclass
class _Node:
    visits: int = 0
    total: float = 0.0
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(frozen=True)
class MonteCarloTreeSearch(Searcher):
    """UCT over the tree of decisions; 0.5 is the constant of the paper's experiments."""

    name: ClassVar[str] = "mcts"
    exploration: float = 0.5

    def run(self, search: Search) -> None:
        decisions = _Decisions(search.choices)
        seen = search.evaluate(search.random_rows(min(_FIRST, search.left)))
        low, high = float(seen.min()), float(seen.max())
        root = _Node()
        while search.left:
            state, path, node = decisions.start(), [root], root
            while (options := decisions.options(state)) and (node is root or node.visits):
                choice = self._choose(search, node, options, low, high)
                state = decisions.take(state, choice)
                node = node.children.setdefault(choice, _Node())
                path.append(node)
            row = decisions.complete(state, search.rng)
            if row is None:
                # as bad as the worst seen: the tree turns away from here
                value = low
            else:
                value = float(search.evaluate(row[None])[0])
                low, high = min(low, value), max(high, value)
            for passed in path:
                passed.visits += 1
                passed.total += value

    def _choose(
        self, search: Search, node: _Node, options: list[int], low: float, high: float
    ) -> int:
        span = max(high - low, 1e-12)

        def promise(option: int) -> float:
            child = node.children.get(option)
            if child is None or not child.visits:
                return inf
            mean = (child.total / child.visits - low) / span
            return mean + self.exploration * sqrt(2 * log(max(node.visits, 1)) / child.visits)

        promises = [promise(option) for option in options]
        best = max(promises)
        ties = [o for o, p in zip(options, promises, strict=True) if p == best]
        return ties[int(search.rng.integers(len(ties)))]


_State = tuple[int, ...]


class _Decisions:
    """The decisions of a subnet in order: resolution, then depth and layers of each stage."""

    def __init__(self, choices: Choices):
        self._choices = choices
        costs = np.where(choices.allowed[..., None], choices.costs, 1 << 50)[:, :, :-1]
        real = np.arange(costs.shape[2]) < choices.options[:, None]
        self._least = np.where(real[None, :, :, None], costs, 1 << 50).min(axis=2)  # (r, slots, 3)
        limits = choices.limits.sums
        self._limited = [a for a, limit in enumerate(limits) if limit is not None]
        self._most = np.array([limits[a] or 0 for a in self._limited])

    def start(self) -> _State:
        return ()

    def options(self, state: _State) -> list[int]:
        """What may be decided next; empty when all is."""
        at = self._choices
        if not state:
            every = [int(r) for r in at.resolutions]
        else:
            place = self._place(state)
            if place is None:
                return []
            stage, slot = place
            every = at.depths[stage].tolist() if slot < 0 else list(range(int(at.options[slot])))
        return [o for o in every if self._possible((*state, o))] or every

    def take(self, state: _State, option: int) -> _State:
        return (*state, option)

    def complete(self, state: _State, rng: np.random.Generator) -> Ints | None:
        """A random row that begins with ``state`` and fits, or None when none was found."""
        for _ in range(_COMPLETIONS):
            whole = state
            while options := self.options(whole):
                whole = self.take(whole, options[int(rng.integers(len(options)))])
            row = self._row(whole)
            if self._choices.fits(row[None])[0]:
                return row
        return None

    def _place(self, state: _State) -> tuple[int, int] | None:
        """(stage, slot) of the next decision, slot -1 for the depth; None at the end."""
        n = 1
        for stage, start in enumerate(self._choices.starts.tolist()):
            if n == len(state):
                return stage, -1
            depth = state[n]
            if n + 1 + depth > len(state):
                return stage, start + len(state) - n - 1
            n += 1 + depth
        return None

    def _row(self, state: _State) -> Ints:
        row = np.full(1 + self._choices.slots, -1, dtype=np.int64)
        row[0] = state[0]
        n = 1
        for start in self._choices.starts.tolist():
            if n >= len(state):
                break
            layers = state[n + 1 : n + 1 + state[n]]
            row[1 + start : 1 + start + len(layers)] = layers
            n += 1 + state[n]
        return row

    def _possible(self, state: _State) -> bool:
        """Whether the cheapest completion is within each budget, taken alone."""
        if not self._limited:
            return True
        at, r = self._choices, state[0]
        total = at.problem.fixed_costs[r].copy()
        n = 1
        for stage, start in enumerate(at.starts.tolist()):
            depth = state[n] if n < len(state) else int(at.depths[stage][0])
            decided = state[n + 1 : n + 1 + depth]
            for j in range(depth):
                if j < len(decided):
                    if not at.allowed[r, start + j, decided[j]]:
                        return False
                    total += at.costs[r, start + j, decided[j]]
                else:
                    total += self._least[r, start + j]
            n += 1 + depth
        return bool((total[self._limited] <= self._most).all())
