"""The networks that are tuned and compared: references, and what the solver picks."""

from __future__ import annotations

import random

from edgeofa.errors import MissingMaterial
from edgeofa.pieces import Piece, whole_subnet
from edgeofa.profiling.artifacts import sample_subnets
from edgeofa.spaces import Space, Subnet
from edgeofa.spaces.blocks import block_macs
from edgeofa.targets import Target

#: random subnets that the middle one is taken from
_SAMPLES = 101
#: points of the frontier, evenly over it
_PICKS = 5


def reference_subnets(space: Space) -> dict[str, Subnet]:
    """A small, a middle and a large network of a space: of random ones at the lowest, the middle
    and the highest resolution, the one of the median number of multiply-accumulates."""
    resolutions = sorted(space.resolutions)
    chosen = {
        "small": resolutions[0],
        "middle": resolutions[len(resolutions) // 2],
        "large": resolutions[-1],
    }
    found = {}
    for name, resolution in chosen.items():
        rng = random.Random(f"reference {space.name} {resolution}")
        sample = [space.sample_by_choice(rng, resolution) for _ in range(_SAMPLES)]
        sample.sort(key=lambda s: (sum(block_macs(b) for b in space.blocks(s)), str(s)))
        found[name] = sample[_SAMPLES // 2]
    return found


def picks(target: Target, space: Space) -> tuple[Subnet, ...]:
    """What the solver picks at budgets all over the space; random subnets where the target has no
    table, or the space no trained supernet."""
    from edgeofa.solver.inputs import load_candidates
    from edgeofa.solver.record import frontier_record

    try:
        points = frontier_record(load_candidates(target, space)).points
    except MissingMaterial:
        return sample_subnets(space, space.resolutions, _PICKS, 0)
    last = len(points) - 1
    chosen = (points[round(i * last / (_PICKS - 1))].subnet for i in range(_PICKS))
    return tuple(dict.fromkeys(chosen))


def space_pieces(target: Target, space: Space) -> tuple[Piece, ...]:
    """The networks that a space is tuned for: references and picks."""
    wanted = [*reference_subnets(space).values(), *picks(target, space)]
    return tuple(whole_subnet(space, subnet) for subnet in dict.fromkeys(wanted))
