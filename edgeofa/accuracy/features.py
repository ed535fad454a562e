"""What the better accuracy model sees of a subnet, and the digest that ties a model to a space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import log2

import numpy as np
from numpy.typing import NDArray

from edgeofa.spaces.blocks import block_macs
from edgeofa.spaces.space import Space, Subnet

__all__ = ["space_digest", "subnet_macs", "summary"]


def space_digest(space: Space) -> str:
    """SHA-256 over everything that makes a subnet what it is, the first 16 hex digits."""
    text = space.model_dump_json(exclude={"description"})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def subnet_macs(space: Space, subnet: Subnet) -> int:
    """Multiply-accumulates of a whole subnet for one image."""
    return sum(block_macs(b) for b in space.blocks(subnet))


def summary(space: Space, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
    """Features ``[subnets, 2 + 3 * stages]``.

    log2 of resolution and of MACs, then for every stage: its depth, and the sums over its layers
    of log2(expansion) and of kernel size.
    """
    rows = []
    for subnet in subnets:
        row = [log2(subnet.resolution), log2(subnet_macs(space, subnet))]
        for layers in subnet.stages:
            row += [
                float(len(layers)),
                sum(log2(x.expand) for x in layers),
                float(sum(x.kernel for x in layers)),
            ]
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(len(rows), 2 + 3 * len(space.stages))
