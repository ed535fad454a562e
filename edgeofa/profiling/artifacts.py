"""The artifacts that profiling runs: blocks and whole subnets with random weights."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeofa.backends.base import Artifact, Backend
from edgeofa.graph.blocks import block_graph, subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import DType, Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.spaces.space import Block, Space, Subnet


def build_block(
    backend: Backend, block: Block, precision: DType, seed: int, folder: Path
) -> Artifact:
    """One block, compiled into ``folder``."""
    return _compile(backend, block_graph(block, seed), precision, seed, folder / block.key)


def build_trivial(
    backend: Backend, operators: int, precision: DType, seed: int, folder: Path
) -> Artifact:
    """``operators`` 1x1 convolutions of one pixel in a row: hardly any work, so that its time is
    that of an invoke and of starting operators."""
    b = GraphBuilder(f"trivial-{operators}", (1, 1, 1, 8))
    x = b.input
    for _ in range(operators):
        x = b.conv2d(x, np.eye(8, dtype=np.float32).reshape(8, 1, 1, 8), np.zeros(8, np.float32))
    return _compile(backend, b.build(x), precision, seed, folder / f"trivial-{operators}")


def build_subnet(
    backend: Backend, space: Space, subnet: Subnet, precision: DType, seed: int, folder: Path
) -> Artifact:
    """One whole subnet, compiled into ``folder``."""
    name = hashlib.sha256(str(subnet).encode()).hexdigest()[:16]
    graph = subnet_graph(space, subnet, seed)
    return _compile(backend, graph, precision, seed, folder / f"subnet-{name}")


def in_precision(graph: Graph, precision: DType, seed: int) -> Graph:
    """A float32 graph with random weights as one of ``precision``."""
    if precision == "float32":
        return graph
    # inside a network a block's input is the sum of projections, about normal; the values set
    # scales and zero points only, and no kernel's time depends on them
    shape = graph.input_tensor.shape
    image = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return quantize_with(graph, [image])


def _compile(backend: Backend, graph: Graph, precision: DType, seed: int, path: Path) -> Artifact:
    graph = in_precision(graph, precision, seed)
    return backend.compile(graph, path.with_name(path.name + backend.suffix))


def sample_subnets(
    space: Space,
    resolutions: Sequence[int],
    count: int,
    seed: int,
    *,
    exclude: Sequence[Subnet] = (),
) -> tuple[Subnet, ...]:
    """``count`` distinct random subnets, the resolutions in turn; fewer where the space is small.

    A longer sample of one seed starts with the shorter one.
    """
    rng = random.Random(f"{seed}:{space.name}:{','.join(map(str, resolutions))}")
    found: dict[Subnet, None] = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        subnet = space.sample_by_choice(rng, resolutions[len(found) % len(resolutions)])
        if subnet not in exclude:
            found[subnet] = None
    return tuple(found)
