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
#: the cost of what is not allowed
_FORBIDDEN = 1 << 50


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
        self._starts: list[int] = choices.starts.tolist()
        self._depths: list[list[int]] = [d.tolist() for d in choices.depths]
        self._counts: list[int] = choices.options.tolist()
        limits = choices.limits.sums
        axes = [a for a, limit in enumerate(limits) if limit is not None]
        self._most = [limits[a] or 0 for a in axes]
        costs = np.where(choices.allowed[..., None], choices.costs, _FORBIDDEN)[:, :, :-1]
        real = np.arange(costs.shape[2]) < choices.options[:, None]
        least = np.where(real[None, :, :, None], costs, _FORBIDDEN).min(axis=2)
        # plain lists: one decision at a time is made of them; [axis][resolution][slot][option]
        self._costs = [costs[..., a].tolist() for a in axes]
        self._least = [least[..., a].tolist() for a in axes]
        self._fixed = [choices.problem.fixed_costs[:, a].tolist() for a in axes]

    def start(self) -> _State:
        return ()

    def options(self, state: _State) -> list[int]:
        """What may be decided next; empty when all is.

        Left out is what even the cheapest completion is over a budget after; where that is
        everything, nothing is left out.
        """
        if not state:
            every = [int(r) for r in self._choices.resolutions]
            shortest = [d[0] for d in self._depths]
            added = [[self._rest(a, r, shortest) for r in every] for a in range(len(self._most))]
            spent = [0] * len(self._most)
        else:
            place = self._place(state)
            if place is None:
                return []
            stage, slot = place
            every = self._depths[stage] if slot < 0 else list(range(self._counts[slot]))
            spent, added = [], []
            for a in range(len(self._most)):
                base = self._cheapest(a, state)
                least, costs = self._least[a][state[0]], self._costs[a][state[0]]
                if slot < 0:
                    start, least_depth = self._starts[stage], self._depths[stage][0]
                    grown = [sum(least[start + least_depth : start + d]) for d in every]
                else:
                    grown = [costs[slot][o] - least[slot] for o in every]
                spent.append(base)
                added.append(grown)
        possible = [
            option
            for n, option in enumerate(every)
            if all(
                s + more[n] <= most for s, more, most in zip(spent, added, self._most, strict=True)
            )
        ]
        return possible or every

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
        for stage, start in enumerate(self._starts):
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
        for start in self._starts:
            if n >= len(state):
                break
            layers = state[n + 1 : n + 1 + state[n]]
            row[1 + start : 1 + start + len(layers)] = layers
            n += 1 + state[n]
        return row

    def _rest(self, axis: int, r: int, depths: list[int]) -> int:
        """The least that a network of these depths costs at a resolution."""
        least = self._least[axis][r]
        inside = sum(
            sum(least[start : start + depth])
            for start, depth in zip(self._starts, depths, strict=True)
        )
        return int(self._fixed[axis][r] + inside)

    def _cheapest(self, axis: int, state: _State) -> int:
        """The least that a network costs that begins with these decisions."""
        r, n = state[0], 1
        costs, least = self._costs[axis][r], self._least[axis][r]
        total = int(self._fixed[axis][r])
        for start, depths in zip(self._starts, self._depths, strict=True):
            depth = state[n] if n < len(state) else depths[0]
            decided = state[n + 1 : n + 1 + depth]
            for j, option in enumerate(decided):
                total += costs[start + j][option]
            total += sum(least[start + len(decided) : start + depth])
            n += 1 + depth
        return total
