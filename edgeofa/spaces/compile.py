"""From a declared tree to its automaton.

A node of the automaton is a place of the tree together with what the network looks like there: size
and channels in every context. Places that are reached with different channels become different
nodes, so that the block of an edge depends on nothing but the edge and the context. Where two ways
into a place agree in every context that both exist in, they share a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from edgeofa.spaces.automaton import Automaton, Option
from edgeofa.spaces.blocks import (
    Block,
    BlockActivation,
    BlockKind,
    SpaceActivation,
    head_block,
    mbconv_block,
)
from edgeofa.spaces.choices import Figures, block_choices
from edgeofa.spaces.contexts import contexts_of, holds, known_here
from edgeofa.spaces.declaration import Constraint, Declaration
from edgeofa.spaces.expressions import Scalar
from edgeofa.spaces.nodes import (
    MAX_CHANNELS,
    BlockNode,
    Choice,
    ChooseNode,
    DeclarationError,
    Location,
    Node,
    RepeatNode,
    SequenceNode,
    Tied,
    WhenNode,
)
from edgeofa.spaces.paths import Paths
from edgeofa.spaces.tied import untied
from edgeofa.spaces.trim import trimmed

#: bounds of one compiled space; what is larger is refused, not truncated
MAX_NODES = 5000
MAX_CELLS = 200_000

#: (size, channels) after what precedes; None in contexts that do not come here
State = tuple[int, int] | None
_DONE: State = (0, 0)


def compile_declaration(declaration: Declaration, resolutions: Sequence[int]) -> Automaton:
    """The automaton of every network; contexts without any are left out.

    Raises:
        DeclarationError: a mistake that only shows when shapes are known, or a space too large.
    """
    return _Compiler(declaration, resolutions).automaton()


def nothing_left(declaration: Declaration, resolutions: Sequence[int]) -> DeclarationError:
    """Why a space has no network: which condition, or which of them together, leave none."""

    def networks(kept: Sequence[Constraint]) -> int:
        automaton = compile_declaration(replace(declaration, constraints=tuple(kept)), resolutions)
        return Paths(automaton).count() if automaton.contexts else 0

    limits = declaration.constraints
    for n, limit in enumerate(limits):
        without = networks([*limits[:n], *limits[n + 1 :]])
        if without:
            return DeclarationError(
                limit.location,
                f"no network is left: without {limit.text!r} there would be {without}",
            )
    if limits and (without := networks(())):
        texts = " and ".join(repr(c.text) for c in limits)
        return DeclarationError(
            ("constraints",),
            f"no network is left: {texts} together forbid all {without}",
        )
    return DeclarationError(
        ("body",), "no network is left: the conditions in the tree (where, when) forbid every one"
    )


@dataclass
class _Place:
    """The nodes of one place of the tree, one for each of the ways a network can look there."""

    nodes: list[int] = field(default_factory=list)
    #: nodes by what they were entered with; they may have grown since, and still agree with it
    known: dict[tuple[State, ...], int] = field(default_factory=dict)


class _Compiler:
    def __init__(self, declaration: Declaration, resolutions: Sequence[int]):
        self._declared = declaration
        self._contexts = contexts_of(declaration, resolutions)
        self._values: list[dict[str, Scalar]] = [
            {"resolution": c.resolution, **dict(c.ties)} for c in self._contexts
        ]
        self._states: list[list[State]] = []
        self._edges: dict[tuple[int, int, str], list[Option]] = {}
        self._cells = 0
        self._blocks: dict[Block, Block] = {}

    def automaton(self) -> Automaton:
        start, end = _Place(), _Place()
        self._enter(start, [(c.resolution, 3) for c in self._contexts], ())
        self._visit(self._declared.root, start.nodes, end, "")
        for node in end.nodes:
            if any(s not in (None, _DONE) for s in self._states[node]):
                raise DeclarationError(("body",), "a network can end without a head")
        if len(end.nodes) != 1:
            return Automaton((), 0, ())
        return trimmed(self._contexts, len(self._states), start.nodes[0], end.nodes[0], self._edges)

    # ------------------------------------------------------------------ nodes and edges

    def _enter(self, place: _Place, states: list[State], at: Location) -> int:
        """The node of ``place`` for a network that looks like ``states`` there."""
        key = tuple(states)
        if (node := place.known.get(key)) is not None:
            return node
        for node in place.nodes:
            known = self._states[node]
            if all(a is None or b is None or a == b for a, b in zip(known, states, strict=True)):
                self._states[node] = [
                    b if a is None else a for a, b in zip(known, states, strict=True)
                ]
                place.known[key] = node
                return node
        if len(self._states) >= MAX_NODES:
            raise DeclarationError(
                at,
                f"the space needs more than {MAX_NODES} nodes: too many widths differ at one "
                "place; use fewer choices of out, or ties",
            )
        self._states.append(list(states))
        place.nodes.append(len(self._states) - 1)
        place.known[key] = place.nodes[-1]
        return place.nodes[-1]

    def _link(
        self,
        source: int,
        place: _Place,
        name: str,
        label: str,
        states: list[State],
        blocks: Sequence[Block | None] | None,
        at: Location,
    ) -> None:
        """An option from ``source`` into ``place``; ``blocks`` None is an option without any."""
        self._cells += len(states)
        if self._cells > MAX_CELLS:
            raise DeclarationError(
                at, f"the space has more than {MAX_CELLS} combinations of options and contexts"
            )
        if all(s is None for s in states):
            return
        target = self._enter(place, states, at)
        held = tuple(
            None if state is None else (() if blocks is None else (cast(Block, blocks[n]),))
            for n, state in enumerate(states)
        )
        self._edges.setdefault((source, target, name), []).append(Option(label, held))

    # ------------------------------------------------------------------ the tree

    def _visit(self, node: Node, entries: Sequence[int], out: _Place, name: str) -> None:
        """All edges of ``node`` from the entries to nodes of ``out``."""
        if not entries:
            return
        if isinstance(node, BlockNode):
            self._block(node, entries, out, name)
        elif isinstance(node, SequenceNode):
            self._sequence(node, entries, out, name)
        elif isinstance(node, RepeatNode):
            if node.tied:
                self._visit(untied(node), entries, out, name)
            else:
                self._repeat(node, entries, out, name)
        elif isinstance(node, ChooseNode):
            self._choose(node, entries, out, name)
        else:
            self._when(node, entries, out, name)

    def _sequence(self, node: SequenceNode, entries: Sequence[int], out: _Place, name: str) -> None:
        if not node.items:
            self._pass(entries, out, name)
        for n, (own, item) in enumerate(node.items):
            place = out if n == len(node.items) - 1 else _Place()
            self._visit(item, entries, place, _join(name, own))
            entries = place.nodes

    def _pass(self, entries: Sequence[int], out: _Place, name: str) -> None:
        for entry in entries:
            self._link(entry, out, name, "", self._states[entry], None, ())

    def _choose(self, node: ChooseNode, entries: Sequence[int], out: _Place, name: str) -> None:
        for label, branch in node.branches:
            empty = isinstance(branch, SequenceNode) and not branch.items
            place = out if empty else _Place()
            for entry in entries:
                self._link(entry, place, name, label, self._states[entry], None, ())
            if not empty:
                self._visit(branch, place.nodes, out, _join(name, label))

    def _when(self, node: WhenNode, entries: Sequence[int], out: _Place, name: str) -> None:
        # not a choice: in each context one side alone is there, so neither has a label
        for wanted, branch, part in ((True, node.then, "then"), (False, node.otherwise, "else")):
            if branch is None:
                continue
            empty = isinstance(branch, SequenceNode) and not branch.items
            place = out if empty else _Place()
            for entry in entries:
                states = [
                    s
                    if s is not None and holds(node.condition, v, node.location) is wanted
                    else None
                    for s, v in zip(self._states[entry], self._values, strict=True)
                ]
                self._link(entry, place, name, "", states, None, node.location)
            if not empty:
                self._visit(branch, place.nodes, out, _join(name, part))

    def _repeat(self, node: RepeatNode, entries: Sequence[int], out: _Place, name: str) -> None:
        times = [self._times(node, v) for v in self._values]
        last = max((max(t) for t in times if t), default=0)
        fixed = isinstance(node.times, Choice) and len(node.times.values) == 1
        if fixed and last == 0:
            self._pass(entries, out, name)
        for copy in range(last + 1):
            if not fixed:
                self._stop(node, entries, out, name, [copy in t for t in times], copy)
            if copy == last:
                break
            going = [any(n > copy for n in t) for t in times]
            if not all(going):
                entries = self._go_on(node, entries, name, going)
            place = out if fixed and copy == last - 1 else _Place()
            body = node.first if copy == 0 else node.body
            self._visit(body, entries, place, _join(name, str(copy)))
            entries = place.nodes

    def _stop(
        self,
        node: RepeatNode,
        entries: Sequence[int],
        out: _Place,
        name: str,
        here: list[bool],
        copy: int,
    ) -> None:
        # a tied number is no choice of this place
        label = f"n{copy}" if isinstance(node.times, Choice) else ""
        for entry in entries:
            states = [s if h else None for s, h in zip(self._states[entry], here, strict=True)]
            self._link(entry, out, _join(name, "end"), label, states, None, node.location)

    def _go_on(
        self, node: RepeatNode, entries: Sequence[int], name: str, going: list[bool]
    ) -> Sequence[int]:
        """Entries of a further copy, without the contexts whose tied number is reached."""
        place = _Place()
        for entry in entries:
            states = [s if g else None for s, g in zip(self._states[entry], going, strict=True)]
            self._link(entry, place, name, "", states, None, node.location)
        return place.nodes

    def _times(self, node: RepeatNode, values: Mapping[str, Scalar]) -> frozenset[int]:
        if isinstance(node.times, Choice):
            return frozenset(cast(tuple[int, ...], node.times.values))
        if node.times.tie not in values:
            # whether a network comes here at all is known when its states are
            return frozenset()
        return frozenset((int(node.times.value(values[node.times.tie])),))

    # ------------------------------------------------------------------ blocks

    def _block(self, node: BlockNode, entries: Sequence[int], out: _Place, name: str) -> None:
        for figures in block_choices(node):
            for entry in entries:
                before = self._states[entry]
                if node.kind == "skip":
                    self._link(entry, out, name, figures.label, before, None, node.location)
                    continue
                blocks: list[Block | None] = []
                states: list[State] = []
                for state, values in zip(before, self._values, strict=True):
                    block = None if state is None else self._place(node, figures, state, values)
                    blocks.append(block)
                    states.append(_after(block))
                self._link(entry, out, name, figures.label, states, blocks, node.location)

    def _place(
        self, node: BlockNode, figures: Figures, state: tuple[int, int], values: dict[str, Scalar]
    ) -> Block | None:
        """The block in one context, or None where a condition forbids it."""
        if state == _DONE:
            raise DeclarationError(node.location, "a block after the head")
        size, cin = state
        found: dict[str, Scalar] = {}
        for name, value in figures.fields:
            if isinstance(value, Tied):
                if value.tie not in values:
                    reason = known_here(f"tie {value.tie!r} does not exist here", values)
                    raise DeclarationError((*node.location, name), reason)
                found[name] = value.value(values[value.tie])
            elif isinstance(value, tuple):
                found[name] = value[0].value(cin, value[1])
            else:
                found[name] = value
        if int(found.get("out", cin)) > MAX_CHANNELS:
            raise DeclarationError((*node.location, "out"), f"more than {MAX_CHANNELS} channels")
        block = _build(node, found, size, cin, self._declared)
        block = self._blocks.setdefault(block, block)
        conditions = [(node.where, node.location)] if node.where else []
        conditions += [
            (c.condition, c.location)
            for c in self._declared.constraints
            if c.blocks and c.kind in (None, node.kind)
        ]
        if conditions:
            figures_of = {**values, **_figures_of(block, found)}
            if not all(holds(c, figures_of, at) for c, at in conditions):
                return None
        return block


def _build(
    node: BlockNode, found: Mapping[str, Scalar], size: int, cin: int, declared: Declaration
) -> Block:
    kind, padding = cast(BlockKind, node.kind), declared.padding
    kernel, stride = int(found.get("kernel", 1)), int(found.get("stride", 1))
    activation = cast(BlockActivation, found.get("activation", "none"))
    out = int(found.get("out", cin))
    if kind == "head":
        width, mix = int(found["expand"]), int(found["mix"])
        gate = cast(SpaceActivation, activation)
        return head_block(size, cin, declared.classes, width, mix, gate, padding)
    if kind == "mbconv":
        return mbconv_block(
            size,
            cin,
            out,
            kernel=kernel,
            expand=int(found["expand"]),
            stride=stride,
            se=bool(found["se"]),
            activation=cast(SpaceActivation, activation),
            padding=padding,
        )
    if padding == "symmetric" and kernel % 2 == 0:
        raise DeclarationError((*node.location, "kernel"), "must be odd where padding is symmetric")
    residual = bool(found.get("residual", False)) and stride == 1 and out == cin
    return Block(kind, size, cin, out, 0, kernel, stride, residual, False, activation, padding)


def _after(block: Block | None) -> State:
    if block is None:
        return None
    return _DONE if block.kind == "head" else (block.size_out, block.cout)


def _figures_of(block: Block, found: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What conditions can name of a block; ``expand`` of a block without any is 0."""
    expand = found.get("expand", 0)
    return {
        "size": block.size,
        "size_out": block.size_out,
        "cin": block.cin,
        "cout": block.cout,
        "mid": block.mid,
        "kernel": block.kernel,
        "stride": block.stride,
        "expand": expand,
        "residual": block.residual,
        "se": block.se,
        "activation": block.activation,
        "kind": block.kind,
    }


def _join(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own
