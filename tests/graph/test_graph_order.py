"""The order of operators: never worse than the given one, as good as the best of all. About 3 s."""

from __future__ import annotations

import random
from itertools import permutations

import numpy as np
import pytest
from graph_cases import graphs
from hypothesis import given, settings

from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph
from edgeofa.graph.memory import plan_memory
from edgeofa.graph.order import reordered
from edgeofa.graph.reference import run
from edgeofa.spaces import load_space


def branching(seed: int, ops: int = 6) -> Graph:
    """1x1 convolutions of random earlier tensors, all of whose ends are added up at last."""
    rng = random.Random(seed)
    b = GraphBuilder("branching", (1, 6, 6, 4))
    weights = np.random.default_rng(seed)

    def convolved(x: int, channels: int) -> int:
        shape = (channels, 1, 1, b.shape(x)[3])
        weight = weights.standard_normal(shape, dtype=np.float32)
        return b.conv2d(x, weight, np.zeros(channels, np.float32))

    made, read = [b.input], set()
    for _ in range(ops - 1):
        source = rng.choice(made[-3:])
        read.add(source)
        made.append(convolved(source, rng.choice((4, 8, 16, 32))))
    ends = [n for n in made if n not in read]
    total = convolved(ends[0], 4)
    for end in ends[1:]:
        total = b.add(total, convolved(end, 4))
    return b.build(total)


def best_bound(graph: Graph) -> int:
    """By trying every order."""
    best = None
    for order in permutations(range(len(graph.ops))):
        seen, valid = {graph.input}, True
        for step in order:
            valid = valid and set(graph.ops[step].inputs) <= seen
            seen.add(graph.ops[step].output)
        if valid:
            ops = tuple(graph.ops[step] for step in order)
            bound = plan_memory(Graph("x", graph.tensors, ops, graph.input, graph.output))
            best = bound.bound_bytes if best is None else min(best, bound.bound_bytes)
    assert best is not None
    return best


@pytest.mark.parametrize("seed", range(8))
def test_as_good_as_the_best_of_all_orders(seed: int) -> None:
    graph = branching(seed, ops=4)
    if len(graph.ops) > 7:
        pytest.skip("too many orders to try")
    found = plan_memory(reordered(graph)).bound_bytes
    assert found == best_bound(graph)
    assert found <= plan_memory(graph).bound_bytes


def test_some_graphs_gain() -> None:
    graphs_ = [branching(seed, ops=9) for seed in range(30)]
    gained = [
        plan_memory(graph).bound_bytes - plan_memory(reordered(graph)).bound_bytes
        for graph in graphs_
    ]
    assert min(gained) >= 0
    assert sum(g > 0 for g in gained) >= 5


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_never_worse_and_the_same_function(graph: Graph) -> None:
    found = reordered(graph)
    assert plan_memory(found).bound_bytes <= plan_memory(graph).bound_bytes
    x = np.random.default_rng(0).standard_normal(graph.input_tensor.shape).astype(np.float32)
    assert np.array_equal(run(found, x), run(graph, x))


def test_chains_stay() -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.largest(20))
    assert reordered(graph) is graph
