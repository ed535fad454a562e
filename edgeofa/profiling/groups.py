"""What is measured together, and therefore saved together.

A group is the unit of the journal: about ten seconds of work, so that little is lost when a run
is interrupted. The partition depends on the space alone, so that an interrupted run and an
undisturbed one form the same groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from edgeofa.spaces.blocks import block_macs
from edgeofa.spaces.space import Block, Space, Subnet

#: as many as the protocol measures between two sentinels
MAX_ITEMS = 20
#: an emulated board spends about 5 s on a group of this size, several times as long in float32
MAX_MACS = 600_000_000

_T = TypeVar("_T")


def block_groups(space: Space, resolutions: Sequence[int]) -> list[tuple[Block, ...]]:
    """Every block of the space at these resolutions, once; a group never mixes resolutions."""
    seen: set[Block] = set()
    groups: list[tuple[Block, ...]] = []
    for resolution in resolutions:
        blocks = [b for b in space.all_blocks((resolution,)) if b not in seen]
        seen.update(blocks)
        groups += _cut(sorted(blocks, key=lambda b: b.key), block_macs)
    return groups


def subnet_groups(space: Space, subnets: Sequence[Subnet]) -> list[tuple[Subnet, ...]]:
    """The subnets in their order, cut by work."""
    return list(_cut(subnets, lambda s: sum(block_macs(b) for b in space.blocks(s))))


def _cut(items: Sequence[_T], macs: Callable[[_T], int]) -> Iterator[tuple[_T, ...]]:
    group: list[_T] = []
    work = 0
    for item in items:
        cost = macs(item)
        if group and (len(group) == MAX_ITEMS or work + cost > MAX_MACS):
            yield tuple(group)
            group, work = [], 0
        group.append(item)
        work += cost
    if group:
        yield tuple(group)
