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

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeofa.spaces.space import Block, Layer, Space

#: a choice that several places share: its name and value
Value = int | float | str


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


def staged_automaton(space: Space, resolutions: tuple[int, ...] | None = None) -> Automaton:
    """The automaton of a staged MBConv space: after every layer it may stop where a depth allows.

    One chain of nodes a stage; from each allowed depth an edge without a block leads to the next
    stage.
    """
    chosen = resolutions or space.resolutions
    contexts = tuple(Context(r) for r in chosen)
    edges = [Edge(0, 1, "stem", (Option("", tuple((space.stem_block(r),) for r in chosen)),))]
    entry = 1
    for i, stage in enumerate(space.stages):
        following = entry + stage.depths[-1] + 1
        for j in range(stage.depths[-1] + 1):
            node = entry + j
            if j < stage.depths[-1]:
                options = tuple(
                    Option(
                        f"{layer.kernel}x{layer.expand}",
                        tuple((space.layer_block(r, i, j, layer),) for r in chosen),
                        layer,
                    )
                    for layer in stage.layers_at(j)
                )
                edges.append(Edge(node, node + 1, f"stages.{i}.{j}", options, (i, j)))
            if j in stage.depths:
                stop = Option("", ((),) * len(chosen))
                edges.append(Edge(node, following, f"stages.{i}.end", (stop,)))
        entry = following
    head = Option("", tuple((space.head_block(r),) for r in chosen))
    edges.append(Edge(entry, entry + 1, "head", (head,)))
    return Automaton(contexts, entry + 2, tuple(edges))
