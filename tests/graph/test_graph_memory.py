"""Arena plans: nothing alive overlaps, and the peak is honest."""

from __future__ import annotations

from itertools import pairwise

import pytest
from graph_cases import graphs, images
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.ir import Graph
from edgeofa.graph.memory import lifetimes, plan_memory, weight_bytes
from edgeofa.graph.ops import parameters
from edgeofa.graph.quantize import quantize_with
from edgeofa.spaces import load_space


@settings(max_examples=150, deadline=None)
@given(graphs(), st.booleans(), st.booleans())
def test_live_tensors_do_not_overlap(graph: Graph, int8: bool, in_place: bool) -> None:
    if int8:
        graph = quantize_with(graph, [images(graph, 1)])
    plan = plan_memory(graph, in_place=in_place)
    numbers = range(len(graph.tensors))
    for step, op in enumerate(graph.ops):
        alive = [i for i in numbers if plan.lifetimes[i][0] <= step <= plan.lifetimes[i][1]]
        assert set(op.inputs) <= set(alive)
        assert op.output in alive
        spans = sorted(
            (plan.offsets[i], plan.offsets[i] + graph.tensors[i].nbytes, i) for i in alive
        )
        for (_, end, a), (start, _, b) in pairwise(spans):
            # in place, and only there, an elementwise output may lie over an input that dies
            shared = in_place and op.output in (a, b) and (a in op.inputs or b in op.inputs)
            assert start >= end or shared
        assert max(end for _, end, _ in spans) <= plan.peak_bytes
    assert all(offset % 16 == 0 for offset in plan.offsets)
    assert plan.peak_bytes >= plan.bound_bytes
    if not in_place:
        assert plan.bound_bytes >= max(t.nbytes for t in graph.tensors)


def test_lifetimes_of_a_residual() -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.largest(20))
    lives = lifetimes(graph)
    add = next(i for i, op in enumerate(graph.ops) if op.kind == "add")
    assert lives[graph.ops[add].inputs[1]][1] == add
    assert lives[graph.input] == (0, 0)
    assert lives[graph.output][1] == len(graph.ops) - 1


@pytest.mark.parametrize("name", ["cifar_micro", "cifar_lite", "ofa_mbv3"])
def test_plans_of_whole_subnets_are_close_to_the_bound(name: str) -> None:
    space = load_space(name)
    for subnet in (space.smallest(), space.largest()):
        plan = plan_memory(subnet_graph(space, subnet))
        assert plan.bound_bytes <= plan.peak_bytes <= 1.05 * plan.bound_bytes


def test_in_place_never_costs() -> None:
    space = load_space("ofa_mbv3")
    graph = subnet_graph(space, space.smallest())
    assert plan_memory(graph, in_place=True).peak_bytes <= plan_memory(graph).peak_bytes


def test_weight_bytes() -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.smallest())
    quantized = quantize_with(graph, [images(graph, 1)])
    biases = sum(op.bias.size for op in graph.ops if op.bias is not None)
    assert weight_bytes(graph) == 4 * parameters(graph)
    assert weight_bytes(quantized) == parameters(graph) + 3 * biases
    # the promise of the space: its smallest network has under 100 kB of int8 weights
    assert weight_bytes(quantized) < 100_000
