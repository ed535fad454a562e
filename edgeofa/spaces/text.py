"""Subnets of a declared space and their text, by walking the automaton.

Where a node leaves one way open there is nothing to say; where it leaves several, the label of the
one that is taken is said. So the labels in order are the network, and every prefix of them is a
place in the automaton.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from edgeofa.errors import UsageError
from edgeofa.spaces.automaton import Automaton, Context
from edgeofa.spaces.paths import Path, Paths
from edgeofa.spaces.subnet import Subnet, Value, tie_text

_MAX_TEXT = 4096
_TEXT = re.compile(r"([a-z][a-z0-9_]*)@(\d{1,5})((?:/[A-Za-z0-9_.,:=+-]+)*)")


def to_subnet(paths: Paths, space: str, context: int, path: Path) -> Subnet:
    """The subnet of a path."""
    groups: dict[str, list[str]] = {}
    node = 0
    for e, o in path:
        steps = paths.alternatives(node, context)
        edge = paths.automaton.edges[e]
        if len(steps) > 1:
            groups.setdefault(edge.name.split(".")[0], []).append(_labels(paths, steps)[e, o])
        node = edge.target
    where = paths.automaton.contexts[context]
    choices = tuple(tuple(labels) for labels in groups.values())
    return Subnet(space, where.resolution, ties=where.ties, choices=choices)


def parse_text(text: str, automaton: Automaton) -> Subnet | None:
    """What a text says, whether or not the space has it; None for no subnet's text."""
    match = _TEXT.fullmatch(text[: _MAX_TEXT + 1])
    if match is None or len(text) > _MAX_TEXT:
        return None
    groups = match[3].split("/")[1:] if match[3] else []
    ties: list[tuple[str, Value]] = []
    if groups and "=" in groups[0]:
        values = {
            (name, tie_text(value)): value for c in automaton.contexts for name, value in c.ties
        }
        for part in groups.pop(0).split(","):
            name, _, said = part.partition("=")
            ties.append((name, values.get((name, said), said)))
    choices = tuple(tuple(group.split(",")) for group in groups)
    return Subnet(match[1], int(match[2]), ties=tuple(ties), choices=choices)


def to_path(paths: Paths, subnet: Subnet) -> tuple[int, Path]:
    """Where the automaton has a subnet; ``UsageError`` with the first choice outside, and the
    nearest subnet that there is."""
    labels = [label for group in subnet.choices for label in group]
    context = paths.context(Context(subnet.resolution, subnet.ties))
    if context is None:
        raise _refusal(paths, subnet, _no_context(paths, subnet), labels)
    path: list[tuple[int, int]] = []
    rest = iter(labels)
    node = 0
    while node != paths.automaton.nodes - 1:
        steps = paths.alternatives(node, context)
        step = steps[0]
        if len(steps) > 1:
            said, named = next(rest, None), _labels(paths, steps)
            found = [s for s in steps if named[s] == said]
            if not found:
                place = paths.automaton.edges[step[0]].name
                what = "nothing is chosen" if said is None else f"no choice {said[:40]!r}"
                known = ", ".join(dict.fromkeys(named.values()))
                raise _refusal(paths, subnet, f"{what} at {place} (one of {known})", labels)
            step = found[0]
        path.append(step)
        node = paths.automaton.edges[step[0]].target
    if (extra := next(rest, None)) is not None:
        raise _refusal(paths, subnet, f"{extra[:40]!r} is one choice too many", labels)
    written = to_subnet(paths, subnet.space, context, tuple(path))
    if written != subnet:
        raise UsageError(
            "the choices are not grouped as the space is", where=str(subnet), hint=str(written)
        )
    return context, tuple(path)


def _labels(paths: Paths, steps: Sequence[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """The labels that tell the steps apart; where two are alike, with the name of their place.

    A step without a label is the one that goes on, where the others end a repeat.
    """
    edges = paths.automaton.edges
    plain = {s: edges[s[0]].options[s[1]].label or "more" for s in steps}
    seen: dict[str, int] = {}
    for label in plain.values():
        seen[label] = seen.get(label, 0) + 1
    return {
        s: label if seen[label] == 1 else f"{edges[s[0]].name}:{label}"
        for s, label in plain.items()
    }


def _no_context(paths: Paths, subnet: Subnet) -> str:
    contexts = paths.automaton.contexts
    resolutions = list(dict.fromkeys(c.resolution for c in contexts))
    if subnet.resolution not in resolutions:
        return f"resolution {subnet.resolution} (one of {', '.join(map(str, resolutions))})"
    known: dict[str, dict[Value, None]] = {}
    for name, value in (tie for c in contexts for tie in c.ties):
        known.setdefault(name, {})[value] = None
    for name, value in subnet.ties:
        if name not in known:
            return f"no tie {name!r} (the space has {', '.join(known) or 'none'})"
        if value not in known[name]:
            values = ", ".join(map(tie_text, known[name]))
            return f"{name} = {tie_text(value)} (one of {values})"
    said = ", ".join(f"{n} = {tie_text(v)}" for n, v in subnet.ties) or "no ties"
    return f"the space has no networks with {said} at resolution {subnet.resolution}"


# ------------------------------------------------------------------------------------ nearest


def _refusal(paths: Paths, subnet: Subnet, what: str, labels: Sequence[str]) -> UsageError:
    return UsageError(
        what, where=str(subnet)[:200], hint=f"the nearest is {_nearest(paths, subnet, labels)}"
    )


def _nearest(paths: Paths, subnet: Subnet, labels: Sequence[str]) -> Subnet:
    """The network of the least edit distance: context first, then the labels in order."""
    wanted = dict(subnet.ties)

    def apart(context: Context) -> tuple[int, int]:
        ties = sum(wanted.get(name) != value for name, value in context.ties)
        return ties, abs(context.resolution - subnet.resolution)

    contexts = paths.automaton.contexts
    context = min(range(len(contexts)), key=lambda n: apart(contexts[n]))
    return to_subnet(paths, subnet.space, context, _aligned(paths, context, labels[:_MAX_LABELS]))


#: labels that are compared; a network that says more is not looked at to its end
_MAX_LABELS = 64


def _aligned(paths: Paths, context: int, labels: Sequence[str]) -> Path:
    """The path whose labels are nearest to these (edit distance; a changed label costs by how
    little the two have in common)."""
    edges, count = paths.automaton.edges, len(labels)
    # cost of the best end from (node, label), and the step and the next label it goes on with
    best: list[list[tuple[float, tuple[int, int] | None, int]]] = [
        [] for _ in range(paths.automaton.nodes)
    ]
    best[-1] = [(float(count - n), None, n) for n in range(count + 1)]
    for node in reversed(range(paths.automaton.nodes - 1)):
        steps = paths.alternatives(node, context)
        if not steps:
            continue
        named = _labels(paths, steps)
        row: list[tuple[float, tuple[int, int] | None, int]] = []
        for n in reversed(range(count + 1)):
            found: tuple[float, tuple[int, int] | None, int] = min(
                (
                    (best[edges[s[0]].target][m][0] + cost, s, m)
                    for s in steps
                    if best[edges[s[0]].target]
                    for cost, m in _moves(named[s], labels, n, silent=len(steps) == 1)
                ),
                key=lambda x: x[0],
            )
            if row and n < count and row[-1][0] + 1 < found[0]:
                # this label is left out
                found = (row[-1][0] + 1, *row[-1][1:])
            row.append(found)
        best[node] = row[::-1]
    path: list[tuple[int, int]] = []
    node = n = 0
    while (step := best[node][n][1]) is not None:
        n = best[node][n][2]
        path.append(step)
        node = edges[step[0]].target
    return tuple(path)


def _moves(label: str, labels: Sequence[str], n: int, *, silent: bool) -> list[tuple[float, int]]:
    """(cost, next label) of saying ``label`` where ``labels[n]`` is next."""
    if silent:
        return [(0.0, n)]
    moves = [(1.0, n)]
    if n < len(labels):
        alike = SequenceMatcher(None, label, labels[n]).ratio()
        moves.append((0.0 if label == labels[n] else 1.5 - alike, n + 1))
    return moves
