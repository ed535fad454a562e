"""Made-up automata of any shape, with tables and scores of their own; nothing was measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from solver_world import make_table, small_space

from edgeofa.solver.budgets import make_board
from edgeofa.solver.core import Problem
from edgeofa.solver.margins import margin_of
from edgeofa.solver.problem import pose
from edgeofa.spaces.automaton import Automaton, Context, Edge, Option
from edgeofa.spaces.space import Block
from edgeofa.tables.table import Row, Table

NAMED: Any = SimpleNamespace(name="made-up", source="made-up")
_HEADER = make_table(
    small_space([{"depths": [1], "kernels": [3], "expands": [3]}], (16,)), lambda _: (1, 1, 1, 1)
).header


@dataclass(frozen=True)
class Scores:
    """Scores of options and, where there are any, of pairs; by name and context."""

    options: dict[tuple[Context, str, str], float]
    pairs: dict[tuple[Context, str, str, str, str], float]
    claims_accuracy: bool = False
    error: float | None = None

    def context_score(self, context: Context) -> float:
        return self.options.get((context, "", ""), 0.0)

    def option_score(self, c: int, automaton: Automaton, edge: Edge, option: Option) -> float:
        return self.options.get((automaton.contexts[c], edge.name, option.label), 0.0)

    def pair_score(
        self, context: Context, before: tuple[Edge, Option], edge: Edge, option: Option
    ) -> float:
        key = (context, before[0].name, before[1].label, edge.name, option.label)
        return self.pairs.get(key, 0.0)


def random_automaton(rng: random.Random) -> Automaton:
    """A few nodes on a spine with branches around them, one to three contexts with ties."""
    contexts = tuple(
        Context(16 + 8 * (n // 2), (("width", n % 2),)) for n in range(rng.randint(1, 3))
    )
    nodes = rng.randint(3, 6)
    edges = []
    pairs = [(i, i + 1) for i in range(nodes - 1)]
    pairs += [(i, j) for i in range(nodes) for j in range(i + 1, nodes) if rng.random() < 0.35]
    for number, (source, target) in enumerate(sorted(pairs)):
        options = []
        for o in range(rng.randint(1, 3)):
            blocks: list[tuple[Block, ...] | None] = []
            empty = rng.random() < 0.2
            for c in range(len(contexts)):
                # the spine's first option always goes, so that every context has a network
                forbidden = o > 0 and rng.random() < 0.15
                chain = tuple(_block(number, o, c, n) for n in range(rng.randint(1, 2)))
                blocks.append(None if forbidden else () if empty else chain)
            options.append(Option(f"o{o}", tuple(blocks)))
        edges.append(Edge(source, target, f"e{number}", tuple(options)))
    return Automaton(contexts, nodes, tuple(edges))


def _block(edge: int, option: int, context: int, n: int) -> Block:
    number = ((edge * 4 + option) * 4 + context) * 4 + n
    return Block("mbconv", 8, 8, 8, 8 * (number + 1), 3, 1, True, False, "relu", "same")


def random_problem(
    rng: random.Random, *, boards: int = 1, paired: bool = False, steps: int = 9
) -> Problem:
    """A problem whose costs and scores know nothing of each other; small ``steps`` give ties."""
    automaton = random_automaton(rng)
    return pose(
        NAMED,
        automaton,
        tuple(make_board(t, margin_of(t.fit)) for t in _tables(rng, automaton, boards, steps)),
        random_scores(rng, automaton, paired=paired, steps=steps),
    )


def _tables(rng: random.Random, automaton: Automaton, boards: int, steps: int) -> Sequence[Table]:
    tables = []
    blocks = sorted(
        {b for e in automaton.edges for o in e.options for chain in o.blocks for b in chain or ()}
    )
    for _ in range(boards):
        rows = {}
        for block in blocks:
            ms, mj = rng.randint(1, steps) / 8, rng.randint(0, steps) / 4
            weight, peak = rng.randint(0, steps), rng.randint(1, 12)
            rows[block.key] = Row(
                block.key, ms, ms, ms, mj, mj, mj, peak, weight, 1, 1, "estimated", "ok"
            )
        tables.append(Table(_HEADER, rows))
    return tables


def random_scores(
    rng: random.Random, automaton: Automaton, *, paired: bool, steps: int = 9
) -> Scores:
    options = {
        (c, e.name, o.label): rng.randint(-steps, steps) / 3
        for c in automaton.contexts
        for e in automaton.edges
        for o in e.options
    }
    options |= {(c, "", ""): rng.randint(0, steps) / 3 for c in automaton.contexts}
    pairs = {}
    if paired:
        named = [(e.name, o.label) for e in automaton.edges for o in e.options]
        for before in named:
            for after in named:
                if rng.random() < 0.5:
                    worth = rng.randint(-steps, steps) / 3
                    pairs |= {(c, *before, *after): worth for c in automaton.contexts}
    return Scores(options, pairs)


def true_score(problem: Problem, context: int, path: Sequence[tuple[int, int]]) -> float:
    """The score of a network straight from the model's definition."""
    model: Any = problem.accuracy
    automaton = problem.automaton
    where = automaton.contexts[context]
    total, before = model.context_score(where), None
    for e, o in path:
        edge, option = automaton.edges[e], automaton.edges[e].options[o]
        total += model.option_score(context, automaton, edge, option)
        if any(option.blocks):
            if before is not None:
                total += model.pair_score(where, before, edge, option)
            before = edge, option
    return float(np.float64(total))
