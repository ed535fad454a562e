"""Small changes of one network: another option, another way around, another context.

Another way around leaves the path at a node by another edge and comes back to it by the fewest
edges; in a staged space that is a layer more or fewer. Every change says between which nodes it
changes the path, so that changes of different places can be made together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from edgeofa.solver.choices import Choices
from edgeofa.solver.problem import Ints


class Moves:
    """The changes of rows of ``choices``."""

    def __init__(self, choices: Choices):
        self._choices = choices
        self._last = len(choices.leaving) - 1
        self._choice: dict[tuple[int, int], bool] = {}
        edges = choices.problem.automaton.edges
        self._sources = np.array([edges[e].source for e in choices.edges], dtype=np.int64)
        self._targets = np.array([edges[e].target for e in choices.edges], dtype=np.int64)
        # the first budget's cheapest option, for edges that a way around passes besides
        axis = next((a for a, s in enumerate(choices.limits.sums) if s is not None), 0)
        costs = np.where(choices.allowed, choices.costs[..., axis], np.iinfo(np.int64).max)
        self._cheapest = costs[:, :, :-1].argmin(axis=2)

    def singles(self, row: Ints) -> tuple[Ints, Ints]:
        """Every row that is one change away (n, 1 + positions), whatever it costs.

        And (n, 2) the nodes between which it changes the path.
        """
        at, context = self._choices, int(row[0])
        # other options of what is passed
        allowed = at.allowed[context, :, :-1] & (row[1:, None] >= 0)
        passed = np.flatnonzero(row[1:] >= 0)
        allowed[passed, row[1 + passed]] = False
        position, option = np.nonzero(allowed)
        rows = np.repeat(row[None], len(position), axis=0)
        rows[np.arange(len(rows)), 1 + position] = option
        spans = np.column_stack([self._sources[position], self._targets[position]])
        found = list(self._ways(row))
        others = np.array([changed for changed, _, _ in found], dtype=np.int64)
        ends = np.array([(low, high) for _, low, high in found], dtype=np.int64)
        rows = np.concatenate([rows, others.reshape(-1, len(row))])
        return rows, np.concatenate([spans, ends.reshape(-1, 2)])

    def mutated(self, row: Ints, rng: np.random.Generator) -> Ints:
        """The row with one choice drawn anew, whatever it costs; perhaps the same row."""
        at, context = self._choices, int(row[0])
        path = at.path(row)
        where = [n for n, (edge, _) in enumerate(path) if self._decides(context, edge)]
        what = int(rng.integers(len(where) + 1))
        if what == len(where):
            drawn_context = int(rng.choice(at.contexts))
            moved = self._moved(row, path, drawn_context, lambda n: int(rng.integers(n)))
            return row if moved is None else moved
        step = where[what]
        edge, _ = path[step]
        source = at.problem.automaton.edges[edge].source
        edges = [e for e in at.leaving[source] if at.open(context, e)]
        chosen = edges[int(rng.integers(len(edges)))]

        def drawn(e: int) -> int:
            options = at.open(context, e)
            return options[int(rng.integers(len(options)))]

        if chosen == edge:
            child = row.copy()
            child[1 + at.position[edge]] = drawn(edge)
            return child
        around = self._around(context, path, step, chosen)
        return row if around is None else self._replaced(row, path, step, chosen, around, drawn)

    def crossed(self, one: Ints, other: Ints, rng: np.random.Generator) -> Ints:
        """The beginning of one row and the end of the other, at a node that both pass.

        The context is the first's; whether it allows the other's options is not looked at.
        """
        edges = self._choices.problem.automaton.edges
        first, second = (
            {edges[e].source for e, _ in self._choices.path(row)} for row in (one, other)
        )
        nodes = sorted(first & second)
        node = nodes[int(rng.integers(len(nodes)))]
        child = one.copy()
        child[1:] = np.where(self._sources < node, one[1:], other[1:])
        return child

    def _decides(self, context: int, edge: int) -> bool:
        """Whether there is a choice at the node that an edge leaves."""
        known = self._choice.get((context, edge))
        if known is None:
            source = self._choices.problem.automaton.edges[edge].source
            ways = sum(len(self._choices.open(context, e)) for e in self._choices.leaving[source])
            known = self._choice[context, edge] = ways > 1
        return known

    def _ways(self, row: Ints) -> Iterator[tuple[Ints, int, int]]:
        """Other ways around and other contexts."""
        at, context = self._choices, int(row[0])
        path = at.path(row)
        for step, (edge, _) in enumerate(path):
            source = at.problem.automaton.edges[edge].source
            for other in at.leaving[source]:
                if other == edge:
                    continue
                around = self._around(context, path, step, other)
                if around is None:
                    continue
                node = at.targets[(around or [other])[-1]]

                def cheapest(e: int) -> int:
                    return int(self._cheapest[context, at.position[e]])

                first = self._replaced(row, path, step, other, around, cheapest)
                for option in at.open(context, other):
                    changed = first.copy()
                    if at.position[other] >= 0:
                        changed[1 + at.position[other]] = option
                    yield changed, source, node
        for c in at.contexts.tolist():
            moved = None if c == context else self._moved(row, path, c, lambda _: 0)
            if moved is not None:
                yield moved, 0, self._last

    def _moved(
        self, row: Ints, path: list[tuple[int, int]], context: int, draw: Callable[[int], int]
    ) -> Ints | None:
        """The row in another context, with other edges and options where that allows not these."""
        at = self._choices
        edges = at.problem.automaton.edges
        here = {edges[e].source: (e, o) for e, o in path}
        moved = np.full_like(row, -1)
        moved[0] = context
        node = 0
        while node != self._last:
            ways = [
                e
                for e in at.leaving[node]
                if at.open(context, e) and at.goes_on[at.targets[e], context]
            ]
            if not ways:
                return None
            edge, option = here.get(node, (-1, -1))
            if edge not in ways:
                edge, option = ways[draw(len(ways))], -1
            options = at.open(context, edge)
            if option not in options:
                option = options[draw(len(options))]
            if at.position[edge] >= 0:
                moved[1 + at.position[edge]] = option
            node = at.targets[edge]
        return moved

    def _around(
        self, context: int, path: list[tuple[int, int]], step: int, edge: int
    ) -> list[int] | None:
        """The edges after ``edge`` that lead back to the path in the fewest steps, if any do."""
        at = self._choices
        if not at.open(context, edge):
            return None
        back = {at.targets[e] for e, _ in path[step:]}
        queue: deque[tuple[int, list[int]]] = deque([(at.targets[edge], [])])
        seen = {at.targets[edge]}
        while queue:
            node, edges = queue.popleft()
            if node in back:
                return edges
            for e in at.leaving[node]:
                if at.targets[e] not in seen and at.open(context, e):
                    seen.add(at.targets[e])
                    queue.append((at.targets[e], [*edges, e]))
        return None

    def _replaced(
        self,
        row: Ints,
        path: list[tuple[int, int]],
        step: int,
        edge: int,
        around: list[int],
        option: Callable[[int], int],
    ) -> Ints:
        at, changed = self._choices, row.copy()
        node = at.targets[(around or [edge])[-1]]
        for e, _ in path[step:]:
            if at.position[e] >= 0:
                changed[1 + at.position[e]] = -1
            if at.targets[e] == node:
                break
        for e in [edge, *around]:
            if at.position[e] >= 0:
                changed[1 + at.position[e]] = option(e)
        return changed
