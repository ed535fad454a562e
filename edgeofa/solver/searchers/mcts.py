"""Monte-Carlo tree search over the decisions of a network, one after the other.

After DeepArchitect (Negrinho and Gordon 2017): UCT, ``mean + c * sqrt(2 ln(parent) / visits)``, an
unvisited child first; a random completion from the first new node; only nodes of the tree learn its
score. Decisions are the context, then along the path the edge and option at every node that leaves
a choice. Means are scaled to 0..1 by the range of scores seen so far, as UCT needs.

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
#: the cost of what is not allowed; sums of many of these stay in 64 bits
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
            while (ways := decisions.ways(state)) and (node is root or node.visits):
                choice = self._choose(search, node, [w.number for w in ways], low, high)
                state = decisions.take(state, next(w for w in ways if w.number == choice))
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


@dataclass(frozen=True)
class _Way:
    """One decision: at the root a context, at a node an edge and one of its options."""

    number: int
    context: int
    edge: int
    option: int
    target: int
    costs: tuple[int, ...]  # one a budget


@dataclass(frozen=True)
class _State:
    """What is decided so far; ``context`` is -1 before anything is."""

    context: int
    node: int
    picks: tuple[tuple[int, int], ...]  # (position, option)
    spent: tuple[int, ...]


class _Decisions:
    """Plain lists and tuples, because one decision at a time is made of them."""

    def __init__(self, choices: Choices):
        self._choices = choices
        self._axes = [a for a, s in enumerate(choices.limits.sums) if s is not None]
        self._most = [choices.limits.sums[a] or 0 for a in self._axes]
        self._end = len(choices.leaving) - 1
        self._roots = [
            _Way(
                c,
                c,
                -1,
                -1,
                0,
                tuple(int(choices.problem.fixed_costs[c, a]) for a in self._axes),
            )
            for c in choices.contexts.tolist()
        ]
        self._ways: dict[int, list[list[_Way]]] = {}
        #: [context][node] the least that it costs to go on from there, one a budget
        self._least: dict[int, list[tuple[int, ...]]] = {}
        for c in choices.contexts.tolist():
            self._prepare(c)

    def _prepare(self, context: int) -> None:
        at, nothing = self._choices, (0,) * len(self._axes)
        ways: list[list[_Way]] = [[] for _ in at.leaving]
        least = [(_FORBIDDEN,) * len(self._axes)] * len(at.leaving)
        least[self._end] = nothing
        for node in range(self._end - 1, -1, -1):
            for edge in at.leaving[node]:
                position, target = int(at.position[edge]), at.targets[edge]
                for option in at.open(context, edge):
                    costs = nothing
                    if position >= 0:
                        each = at.costs[context, position, option]
                        costs = tuple(int(each[a]) for a in self._axes)
                    number = len(ways[node])
                    ways[node].append(_Way(number, context, edge, option, target, costs))
            if ways[node] and self._axes:
                ends = [
                    [c + e for c, e in zip(w.costs, least[w.target], strict=True)]
                    for w in ways[node]
                ]
                least[node] = tuple(min(column) for column in zip(*ends, strict=True))
        self._ways[context], self._least[context] = ways, least

    def start(self) -> _State:
        return _State(-1, 0, (), (0,) * len(self._axes))

    def ways(self, state: _State) -> list[_Way]:
        """What may be decided next; empty when all is.

        Left out is what even the cheapest completion is over a budget after; where that is
        everything, nothing is left out.
        """
        if state.context < 0:
            every = self._roots
        elif state.node == self._end:
            return []
        else:
            every = self._ways[state.context][state.node]
        possible = [
            way
            for way in every
            if all(
                spent + cost + rest <= most
                for spent, cost, rest, most in zip(
                    state.spent,
                    way.costs,
                    self._least[way.context][way.target],
                    self._most,
                    strict=True,
                )
            )
        ]
        return possible or every

    def take(self, state: _State, way: _Way) -> _State:
        """The state after a decision, and after all that leave no choice."""
        while True:
            picks, position = state.picks, -1
            if way.edge >= 0:
                position = int(self._choices.position[way.edge])
            if position >= 0:
                picks = (*picks, (position, way.option))
            spent = tuple(s + c for s, c in zip(state.spent, way.costs, strict=True))
            state = _State(way.context, way.target, picks, spent)
            if way.target == self._end or len(self._ways[way.context][way.target]) != 1:
                return state
            way = self._ways[way.context][way.target][0]

    def complete(self, state: _State, rng: np.random.Generator) -> Ints | None:
        """A random row that begins with ``state`` and fits, or None when none was found."""
        for _ in range(_COMPLETIONS):
            whole = state
            while ways := self.ways(whole):
                whole = self.take(whole, ways[int(rng.integers(len(ways)))])
            if whole.node != self._end:
                continue
            row = np.full(1 + self._choices.positions, -1, dtype=np.int64)
            row[0] = whole.context
            for position, option in whole.picks:
                row[1 + position] = option
            if self._choices.fits(row[None])[0]:
                return row
        return None
