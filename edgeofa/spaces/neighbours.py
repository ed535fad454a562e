"""The networks that differ from one in a single choice.

A choice is known by its place in the space (``Edge.name``) and its label; resolution and each tie
are choices too. Two networks are neighbours when, of all choices that both make, they differ in
exactly one. What only one of them makes (the layers of a deeper stage, the inside of a branch) is
free, so that every value of it is a neighbour, and the relation is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeofa.spaces.automaton import Context
from edgeofa.spaces.paths import Path, Paths


def neighbours(paths: Paths, context: int, path: Path) -> Iterator[tuple[int, Path]]:
    """Every neighbour once: those of the same context first."""
    edges = paths.automaton.edges
    made = {edges[e].name: edges[e].options[o].label for e, o in path}
    yield from ((context, found) for found in _paths(paths, context, made, changes=1))
    here = paths.automaton.contexts[context]
    for number, other in enumerate(paths.automaton.contexts):
        if number != context and _differences(here, other) == 1:
            yield from ((number, found) for found in _paths(paths, number, made, changes=0))


def _differences(a: Context, b: Context) -> int:
    other = dict(b.ties)
    ties = sum(value != other[name] for name, value in a.ties if name in other)
    return ties + (a.resolution != b.resolution)


def _paths(paths: Paths, context: int, made: dict[str, str], changes: int) -> Iterator[Path]:
    """All paths with exactly this many changes (0 or 1) against the choices that were made."""
    edges = paths.automaton.edges

    def cost(step: tuple[int, int]) -> int:
        edge = edges[step[0]]
        label = edge.options[step[1]].label
        return int(made.get(edge.name, label) != label)

    # what can still be spent from each node, so that no walk is in vain
    reach: list[set[int]] = [set() for _ in range(paths.automaton.nodes)]
    reach[-1] = {0}
    for node in reversed(range(paths.automaton.nodes - 1)):
        for step in paths.alternatives(node, context):
            after = reach[edges[step[0]].target]
            reach[node] |= {cost(step) + n for n in after if cost(step) + n <= changes}

    stack: list[tuple[int, int, Path]] = [(0, changes, ())]
    while stack:
        node, left, done = stack.pop()
        if node == paths.automaton.nodes - 1:
            yield done
            continue
        for step in reversed(paths.alternatives(node, context)):
            rest = left - cost(step)
            target = edges[step[0]].target
            if rest in reach[target]:
                stack.append((target, rest, (*done, step)))
