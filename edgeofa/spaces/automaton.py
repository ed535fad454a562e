"""What a declared space compiles to: a small acyclic automaton whose paths are its networks.

The space language (``edgeofa/spaces``) is for people; this is for algorithms. Nodes are numbered
so that every edge leads to a higher number; node 0 is the start and the last node the end. An edge
offers options; an option adds blocks to the network. What several places of a space share (the
resolution, tied choices) is a ``Context``: in a context everything else is independent, so that
sums, counts and optima over paths are plain dynamic programs.

    context × path (edge, option), (edge, option), ...  =  one network

Every network is exactly one (context, path), so that counting paths counts networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeofa.spaces.blocks import Block
from edgeofa.spaces.subnet import Layer, Value


@dataclass(frozen=True)
class Context:
    """One assignment of everything that more than one place depends on."""

    resolution: int
    #: tied choices by name, sorted; empty for a space without any
    ties: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True)
class Option:
    """One thing that an edge can hold.

    ``blocks`` has one item a context: the blocks that the option adds there, input to output
    (none for "stop here" or "skip"), or None where the context does not allow the option.
    ``layer`` is set in staged MBConv spaces, whose supernets and accuracy models speak of layers.
    """

    label: str
    blocks: tuple[tuple[Block, ...] | None, ...]
    layer: Layer | None = None


@dataclass(frozen=True)
class Edge:
    """Options between two nodes. ``name`` says which choice of the space this is.

    ``place`` is (stage, position) in staged MBConv spaces.
    """

    source: int
    target: int
    name: str
    options: tuple[Option, ...]
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Automaton:
    """See the module's text. ``edges`` ascend by source, then by target."""

    contexts: tuple[Context, ...]
    nodes: int
    edges: tuple[Edge, ...]


def restricted(automaton: Automaton, resolutions: tuple[int, ...]) -> Automaton:
    """The contexts of some resolutions alone; nodes, edges and options keep their numbers."""
    kept = [n for n, c in enumerate(automaton.contexts) if c.resolution in resolutions]
    edges = tuple(
        replace(
            edge,
            options=tuple(
                replace(o, blocks=tuple(o.blocks[n] for n in kept)) for o in edge.options
            ),
        )
        for edge in automaton.edges
    )
    return Automaton(tuple(automaton.contexts[n] for n in kept), automaton.nodes, edges)
