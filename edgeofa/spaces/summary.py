"""What a space holds, in figures: what ``edgeofa space show`` prints."""

from __future__ import annotations

from dataclasses import dataclass

from edgeofa.spaces.blocks import block_macs
from edgeofa.spaces.space import Space
from edgeofa.spaces.subnet import Subnet, Value


@dataclass(frozen=True)
class AtResolution:
    """The networks of one resolution; ``blocks`` is how many rows their table has."""

    resolution: int
    subnets: int
    blocks: int


@dataclass(frozen=True)
class Corner:
    """A subnet at one end of the space, and its work for one image."""

    subnet: Subnet
    macs: int


@dataclass(frozen=True)
class SpaceSummary:
    """``shortest`` and ``longest`` are numbers of blocks of a network; nodes, edges and contexts
    are those of the automaton that solvers work on."""

    name: str
    description: str
    staged: bool
    subnets: int
    resolutions: tuple[AtResolution, ...]
    ties: dict[str, tuple[Value, ...]]
    blocks: int
    shortest: int
    longest: int
    smallest: Corner
    largest: Corner
    nodes: int
    edges: int
    contexts: int


def summarize(space: Space) -> SpaceSummary:
    """The figures of a space."""
    automaton = space.automaton()

    def corner(subnet: Subnet) -> Corner:
        return Corner(subnet, sum(map(block_macs, space.blocks(subnet))))

    shortest, longest = space.paths.lengths()
    present = dict.fromkeys(c.resolution for c in automaton.contexts)
    return SpaceSummary(
        name=space.name,
        description=space.description,
        staged=space.is_staged,
        subnets=space.count(),
        resolutions=tuple(
            AtResolution(r, space.count(r), len(space.all_blocks((r,)))) for r in present
        ),
        ties={t.name: t.values for t in space.declaration.ties},
        blocks=len(space.all_blocks()),
        shortest=shortest,
        longest=longest,
        smallest=corner(space.smallest()),
        largest=corner(space.largest()),
        nodes=automaton.nodes,
        edges=len(automaton.edges),
        contexts=len(automaton.contexts),
    )
