"""Nodes, options and contexts that no network uses are cut off, and the rest is put in order."""

from __future__ import annotations

from collections.abc import Mapping

from edgeofa.spaces.automaton import Automaton, Context, Edge, Option

#: by source: target, name, and the options with the contexts (bits) that allow them
_Leaving = dict[int, list[tuple[int, str, list[tuple[int, Option]]]]]


def trimmed(
    contexts: tuple[Context, ...],
    nodes: int,
    start: int,
    end: int,
    edges: Mapping[tuple[int, int, str], list[Option]],
) -> Automaton:
    """Only what lies on a path from start to end, in an order that every edge ascends."""
    leaving: _Leaving = {}
    for (source, target, name), held in edges.items():
        masked = [(_mask(o), o) for o in held]
        leaving.setdefault(source, []).append((target, name, masked))
    order = _ascending(nodes, start, leaving)
    everywhere = (1 << len(contexts)) - 1
    reached = dict.fromkeys(order, 0)
    reached[start] = everywhere
    for node in order:
        for target, _, options in leaving.get(node, ()):
            for mask, _o in options:
                reached[target] |= reached[node] & mask
    leads = dict.fromkeys(order, 0)
    leads[end] = everywhere
    for node in reversed(order):
        for target, _, options in leaving.get(node, ()):
            for mask, _o in options:
                leads[node] |= leads[target] & mask
    kept = [n for n, c in enumerate(contexts) if leads[start] >> n & 1]
    alive = [node for node in order if reached[node] & leads[node]]
    number = {node: n for n, node in enumerate(alive)}
    found: list[Edge] = []
    for node in alive:
        out: list[Edge] = []
        for target, name, options in leaving.get(node, ()):
            live = reached[node] & leads[target]
            chosen = tuple(
                Option(o.label, tuple(o.blocks[n] if live >> n & 1 else None for n in kept))
                for mask, o in options
                if mask & live
            )
            if chosen:
                out.append(Edge(number[node], number[target], name, chosen))
        found += sorted(out, key=lambda e: e.target)
    return Automaton(tuple(contexts[n] for n in kept), len(alive), tuple(found))


def _mask(option: Option) -> int:
    return sum(1 << n for n, blocks in enumerate(option.blocks) if blocks is not None)


def _ascending(
    nodes: int,
    start: int,
    leaving: _Leaving,
) -> list[int]:
    """The nodes that the start leads to, by their longest way from it, then by age."""
    waiting = dict.fromkeys(range(nodes), 0)
    seen, stack = {start}, [start]
    while stack:
        for target, _, _ in leaving.get(stack.pop(), ()):
            waiting[target] += 1
            if target not in seen:
                seen.add(target)
                stack.append(target)
    depth, ready = dict.fromkeys(seen, 0), [start]
    while ready:
        node = ready.pop()
        for target, _, _ in leaving.get(node, ()):
            depth[target] = max(depth[target], depth[node] + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    return sorted(seen, key=lambda n: (depth[n], n))
