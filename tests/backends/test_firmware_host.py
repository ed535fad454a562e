"""The firmware back end's C against the graph's reference, every layer, under ASan and UBSan.

About 35 s: each network is compiled.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import sample_graphs
from firmware_host import layer_outputs
from graph_cases import graphs, images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_layers import random_layer

from edgeofa.backends.firmware.network import Network, lower
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.memory import plan_memory
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import quantization, quantize_array, trace
from edgeofa.spaces import load_space


def assert_bit_exact(network: Network, x: Array) -> None:
    expected = trace(network.graph, x)
    with TemporaryDirectory() as folder:
        outputs = layer_outputs(network, x, Path(folder))
    for op, got in zip(network.graph.ops, outputs, strict=True):
        different = np.count_nonzero(expected[op.output].ravel() != got)
        assert different == 0, f"{op.kind} {op.name}: {different} of {got.size} values differ"


def stored_input(graph: Graph, seed: int) -> Array:
    # wider than the calibration data, so that saturation is met too
    return quantize_array(images(graph, 1, seed) * 2, quantization(graph, graph.input))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1000), st.booleans(), st.booleans())
def test_random_graphs(graph: Graph, seed: int, keep: bool, tight: bool) -> None:
    quantized = quantize_with(graph, images(graph, 4, seed), keep_hard_swish=keep)
    # without room every band is a single row
    network = lower(quantized, 0 if tight else None)
    assert_bit_exact(network, stored_input(quantized, seed))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_random_layers(seed: int, tight: bool) -> None:
    graph = random_layer(seed)
    assert_bit_exact(lower(graph, 0 if tight else None), stored_input(graph, seed))


@pytest.mark.parametrize("case", sample_graphs.CASES)
def test_every_operator(case: str) -> None:
    graph = sample_graphs.int8_graph(case)
    assert_bit_exact(lower(graph), stored_input(graph, 3))


def test_branches_run_in_the_order_that_takes_less_memory() -> None:
    rng = np.random.default_rng(0)
    b = GraphBuilder("branches", (1, 12, 12, 8))

    def convolved(x: int, channels: int) -> int:
        weights = sample_graphs.weights(rng, channels, 1, 1, b.shape(x)[3], outputs=channels)
        return b.conv2d(x, *weights)

    # both wide tensors are alive at once, unless each branch is run to its end
    wide = [convolved(b.input, 64), convolved(b.input, 64)]
    graph = b.build(b.add(*(convolved(x, 8) for x in wide)))
    graph = quantize_with(graph, [images(graph, 2)])
    network = lower(graph)
    assert [op.name for op in network.graph.ops] != [op.name for op in graph.ops]
    assert {op.output for op in network.graph.ops} == {op.output for op in graph.ops}
    assert network.plan.peak_bytes < 2 * 12 * 12 * 64
    assert_bit_exact(network, stored_input(graph, 2))


@pytest.mark.parametrize("case", sample_graphs.LINEAR)
def test_scales_that_need_the_slow_form(case: str) -> None:
    """Multipliers near or above one: sums are requantised in C, and come out the same."""
    graph = sample_graphs.finer_output(sample_graphs.int8_graph(case))
    network = lower(graph)
    assert network.layers[0].struct is not None
    assert network.layers[0].struct[1]["raw"] == 1
    assert_bit_exact(network, stored_input(graph, 1))


@pytest.mark.parametrize("space", ["cifar_micro", "cifar_lite"])
def test_a_subnet_in_less_memory(space: str) -> None:
    declared = load_space(space)
    graph = subnet_graph(declared, declared.smallest(), 1)
    quantized = quantize_with(graph, images(graph, 2, 1))
    network, smaller = lower(quantized), lower(quantized, 0)
    # hardly more than activations alone would take, scratch memory included
    assert network.plan.peak_bytes <= 1.1 * plan_memory(quantized).bound_bytes
    assert smaller.plan.peak_bytes <= network.plan.peak_bytes
    assert_bit_exact(smaller, stored_input(quantized, 1))


def test_float_graphs_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="int8"):
        lower(sample_graphs.float_graph("add"))
