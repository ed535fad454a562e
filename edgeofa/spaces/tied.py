"""A repeat whose copies are alike, written as a choice among repeats without choices inside.

``repeat(body, n, tied)`` means: make the choices of the body once, then repeat the body that they
give. So it is ``choose(repeat(body 1, n), repeat(body 2, n), ...)`` over everything that the body
can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product

from edgeofa.spaces.choices import block_choices
from edgeofa.spaces.expressions import Scalar
from edgeofa.spaces.nodes import (
    BlockNode,
    Choice,
    ChooseNode,
    DeclarationError,
    Location,
    Node,
    Relative,
    RepeatNode,
    SequenceNode,
    Tied,
)

_MAX_BODIES = 4096
_NOTHING: Node = SequenceNode(())


def untied(node: RepeatNode) -> Node:
    """The same networks without a tied repeat."""

    bodies = _bodies(node.body, node)
    plain = replace(node, tied=False)
    if len(bodies) == 1:
        return replace(plain, body=bodies[0][1], first=bodies[0][1])
    branches: list[tuple[str, Node]] = []
    times = node.times
    if isinstance(times, Choice):
        if 0 in times.values:
            # no copy, no choice: one network, not one for each body
            branches.append(("n0", _NOTHING))
        times = Choice(tuple(t for t in times.values if t != 0))
        if not times.values:
            return _NOTHING
    branches += [
        (label, replace(plain, body=body, first=body, times=times))
        for label, body in _distinct(bodies)
    ]
    return ChooseNode(tuple(branches))


_Labelled = list[tuple[str, Node]]


def _bodies(node: Node, repeat: RepeatNode) -> _Labelled:
    """Everything that a node can be once its choices are made, each with a label."""
    found = _forms(node, repeat)
    if len(found) > _MAX_BODIES:
        raise _too_many(repeat.location)
    return found


def _too_many(location: Location) -> DeclarationError:
    return DeclarationError(
        location, f"the tied copies have more than {_MAX_BODIES} forms: tie fewer choices"
    )


def _forms(node: Node, repeat: RepeatNode) -> _Labelled:
    if isinstance(node, BlockNode):
        return [
            (figures.label, replace(node, fields=tuple((n, _fixed(v)) for n, v in figures.fields)))
            for figures in islice(block_choices(node), _MAX_BODIES + 1)
        ]
    if isinstance(node, SequenceNode):
        names = [name for name, _ in node.items]
        parts = [_bodies(item, repeat) for _, item in node.items]
        return _products(names, parts, repeat.location)
    if isinstance(node, ChooseNode):
        return [
            (f"{name}_{label}" if label else name, body)
            for name, branch in node.branches
            for label, body in _bodies(branch, repeat)
        ]
    if isinstance(node, RepeatNode):
        return _copies(node, repeat)
    # in each context one side is never taken, and its choices do not exist
    found: _Labelled = []
    for branch, then in ((node.then, True), (node.otherwise, False)):
        if branch is None:
            continue
        for label, body in _bodies(branch, repeat):
            part = replace(node, then=body if then else None, otherwise=None if then else body)
            found.append((f"{'then' if then else 'else'}_{label}" if label else "", part))
    return _distinct(found)


def _copies(node: RepeatNode, repeat: RepeatNode) -> _Labelled:
    if not isinstance(node.times, Choice):
        raise DeclarationError(
            node.location, "a repeat whose times are tied cannot be inside a repeat of tied copies"
        )
    found: _Labelled = []
    several = len(node.times.values) > 1
    for times in node.times.values:
        count = int(times)
        if node.tied:
            forms = _bodies(node.body, repeat) if count else [("", _NOTHING)]
            bodies: _Labelled = [
                (label, SequenceNode(tuple((str(n), body) for n in range(count))))
                for label, body in forms
            ]
        else:
            inner = [_bodies(node.first if n == 0 else node.body, repeat) for n in range(count)]
            bodies = _products([str(n) for n in range(count)], inner, repeat.location)
        found += [
            ("_".join(x for x in (f"n{count}" if several else "", label) if x), body)
            for label, body in bodies
        ]
    return found


def _products(names: Sequence[str], parts: Sequence[_Labelled], location: Location) -> _Labelled:
    """Every combination of the parts as a sequence."""
    count = 1
    for part in parts:
        count *= len(part)
        if count > _MAX_BODIES:
            raise _too_many(location)
    return [
        (
            "_".join(label for label, _ in chosen if label),
            SequenceNode(tuple((n, body) for n, (_, body) in zip(names, chosen, strict=True))),
        )
        for chosen in product(*parts)
    ]


def _fixed(value: Scalar | Tied | tuple[Relative, float]) -> Choice | Tied | Relative:
    if isinstance(value, tuple):
        return replace(value[0], factors=(value[1],))
    return value if isinstance(value, Tied) else Choice((value,))


def _distinct(found: _Labelled) -> _Labelled:
    """Labels that are empty or met twice get numbers."""
    seen: dict[str, int] = {}
    for label, _ in found:
        seen[label] = seen.get(label, 0) + 1
    return [
        (label if label and seen[label] == 1 else f"{label}v{n}", body)
        for n, (label, body) in enumerate(found)
    ]
