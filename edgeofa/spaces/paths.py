"""Counting over an automaton: how many networks there are, which is the n-th, draw one fairly.

From a node, as many networks go on as the sum over its allowed options of the networks that go on
after them; in each context this is a plain sum in exact integers. The n-th network follows from the
counts, and a uniform number makes a uniform network.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property

from edgeofa.errors import UsageError
from edgeofa.spaces.automaton import Automaton, Context
from edgeofa.spaces.blocks import Block, block_macs

#: (edge, option), from start to end
Path = tuple[tuple[int, int], ...]


class Paths:
    """The networks of an automaton as (number of the context, path), with exact counts."""

    def __init__(self, automaton: Automaton):
        self.automaton = automaton
        self._counts: dict[int, list[int]] = {}

    @cached_property
    def leaving(self) -> list[list[int]]:
        """The edges that leave each node, ascending."""
        found: list[list[int]] = [[] for _ in range(self.automaton.nodes)]
        for e, edge in enumerate(self.automaton.edges):
            found[edge.source].append(e)
        return found

    @cached_property
    def _numbers(self) -> dict[Context, int]:
        return {c: n for n, c in enumerate(self.automaton.contexts)}

    def context(self, context: Context) -> int | None:
        """The number of a context, None where the space has no such one."""
        return self._numbers.get(context)

    def of_resolution(self, resolution: int | None) -> list[int]:
        """Numbers of the contexts of one resolution, or of all; ``UsageError`` where none is."""
        contexts = self.automaton.contexts
        found = [n for n, c in enumerate(contexts) if resolution in (None, c.resolution)]
        if not found:
            known = ", ".join(map(str, dict.fromkeys(c.resolution for c in contexts)))
            raise UsageError(f"no network has resolution {resolution}", hint=f"one of {known}")
        return found

    def alternatives(self, node: int, context: int) -> list[tuple[int, int]]:
        """What can follow a node: (edge, option)."""
        return [
            (e, o)
            for e in self.leaving[node]
            for o, option in enumerate(self.automaton.edges[e].options)
            if option.blocks[context] is not None
        ]

    # ------------------------------------------------------------------ counting

    def onward(self, context: int) -> list[int]:
        """For every node, how many networks go on from it."""
        known = self._counts.get(context)
        if known is None:
            known = [0] * self.automaton.nodes
            known[-1] = 1
            for edge in reversed(self.automaton.edges):
                allowed = sum(o.blocks[context] is not None for o in edge.options)
                known[edge.source] += allowed * known[edge.target]
            self._counts[context] = known
        return known

    def count(self, resolution: int | None = None) -> int:
        return sum(self.onward(c)[0] for c in self.of_resolution(resolution))

    def at(self, index: int, resolution: int | None = None) -> tuple[int, Path]:
        """The network of a number from 0; contexts in order, then paths by their options."""
        total = self.count(resolution)
        if not 0 <= index < total:
            raise UsageError(f"no network {index}", hint=f"0 to {total - 1}")
        for context in self.of_resolution(resolution):
            onward = self.onward(context)
            if index < onward[0]:
                break
            index -= onward[0]
        path: list[tuple[int, int]] = []
        node = 0
        while node != self.automaton.nodes - 1:
            for step in self.alternatives(node, context):
                below = onward[self.automaton.edges[step[0]].target]
                if index < below:
                    break
                index -= below
            path.append(step)
            node = self.automaton.edges[step[0]].target
        return context, tuple(path)

    def index(self, context: int, path: Path) -> int:
        """The number of a network, as :meth:`at` counts over all resolutions."""
        number = sum(self.onward(c)[0] for c in range(context))
        onward = self.onward(context)
        node = 0
        for step in path:
            for e, o in self.alternatives(node, context):
                if (e, o) == step:
                    break
                number += onward[self.automaton.edges[e].target]
            node = self.automaton.edges[step[0]].target
        return number

    # ------------------------------------------------------------------ drawing and corners

    def walk(self, rng: random.Random, context: int) -> Path:
        """A path that takes every alternative of a node with the same chance: not uniform over
        networks, but short and long ones both are met."""
        path: list[tuple[int, int]] = []
        node = 0
        while node != self.automaton.nodes - 1:
            path.append(rng.choice(self.alternatives(node, context)))
            node = self.automaton.edges[path[-1][0]].target
        return tuple(path)

    def corner(self, *, largest: bool, resolution: int | None = None) -> tuple[int, Path]:
        """The network of most (or fewest) multiply-accumulates; of equals the first."""
        sign = 1 if largest else -1
        found = [
            (c, self._best(c, lambda blocks: sign * sum(map(block_macs, blocks))))
            for c in self.of_resolution(resolution)
        ]
        return max(found, key=lambda f: sign * sum(map(block_macs, self.blocks(*f))))

    def _best(self, context: int, worth: Callable[[tuple[Block, ...]], int]) -> Path:
        best: list[tuple[int, tuple[int, int] | None] | None] = [None] * self.automaton.nodes
        best[-1] = (0, None)
        for node in reversed(range(self.automaton.nodes - 1)):
            for e, o in self.alternatives(node, context):
                after = best[self.automaton.edges[e].target]
                if after is None:
                    continue
                blocks = self.automaton.edges[e].options[o].blocks[context] or ()
                value = after[0] + worth(blocks)
                known = best[node]
                if known is None or value > known[0]:
                    best[node] = (value, (e, o))
        path: list[tuple[int, int]] = []
        node = 0
        while (found := best[node]) is not None and found[1] is not None:
            path.append(found[1])
            node = self.automaton.edges[found[1][0]].target
        return tuple(path)

    def lengths(self) -> tuple[int, int]:
        """The fewest and the most blocks that a network has."""
        contexts = range(len(self.automaton.contexts))
        fewest = (self._best(c, lambda blocks: -len(blocks)) for c in contexts)
        most = (self._best(c, len) for c in contexts)
        return (
            min(len(self.blocks(c, path)) for c, path in enumerate(fewest)),
            max(len(self.blocks(c, path)) for c, path in enumerate(most)),
        )

    def blocks(self, context: int, path: Path) -> tuple[Block, ...]:
        """The blocks of a network, input to output."""
        edges = self.automaton.edges
        return tuple(b for e, o in path for b in edges[e].options[o].blocks[context] or ())
