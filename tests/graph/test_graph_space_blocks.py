"""Graphs of every block kind that a space can declare: shapes, work, and both precisions."""

from __future__ import annotations

import random
import tomllib
from typing import Literal

import numpy as np
import pytest
from tree_space import TREE

from edgeofa.graph.blocks import block_graph, subnet_graph
from edgeofa.graph.ops import macs
from edgeofa.graph.quantize import quantize_with, sqnr_db
from edgeofa.graph.reference import run_real
from edgeofa.spaces import Space
from edgeofa.spaces.blocks import Block, block_macs

GARDEN = Space.model_validate(tomllib.loads(TREE))


def _blocks() -> list[Block]:
    kinds: dict[tuple[object, ...], Block] = {}
    for b in GARDEN.all_blocks((24,)):
        kinds.setdefault((b.kind, b.kernel, b.stride, b.residual, b.activation), b)
    both: tuple[Literal["same", "symmetric"], ...] = ("same", "symmetric")
    extra = [
        Block(kind, size, 8, 8, 0, 3, stride, False, False, "none", padding)
        for kind in ("max_pool", "average_pool")
        for size in (7, 8)
        for stride in (1, 2)
        for padding in both
    ]
    extra += [Block("conv", 9, 8, 8, 0, 5, 1, True, False, "hard_swish", p) for p in both]
    return [*kinds.values(), *extra]


@pytest.mark.parametrize("block", _blocks(), ids=lambda b: b.key)
def test_a_block_is_what_it_says(block: Block) -> None:
    graph = block_graph(block)
    assert graph.input_tensor.shape == (1, block.size, block.size, block.cin)
    shape = graph.shape(graph.output)
    if block.kind == "head":
        assert shape == (1, block.cout)
    else:
        assert shape == (1, block.size_out, block.size_out, block.cout)
    assert macs(graph) == block_macs(block)
    names = {op.kind for op in graph.ops}
    assert ("add" in names) == block.residual


def test_whole_trees_run_in_both_precisions() -> None:
    rng = random.Random(4)
    for _ in range(4):
        subnet = GARDEN.sample(rng)
        graph = subnet_graph(GARDEN, subnet)
        assert macs(graph) == sum(map(block_macs, GARDEN.blocks(subnet)))
        shape = (8, subnet.resolution, subnet.resolution, 3)
        images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        whole = run_real(graph, images)
        assert whole.shape == (8, GARDEN.classes)
        assert sqnr_db(whole, run_real(quantize_with(graph, [images]), images)) > 15
