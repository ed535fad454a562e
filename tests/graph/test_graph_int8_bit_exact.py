"""int8 graphs against tflite-micro's reference kernels: every tensor, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
from graph_cases import graphs, images
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tflite_micro_oracle import tflite_micro_tensors

from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.ir import Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import quantization, quantize_array, trace
from edgeofa.spaces import load_space


def assert_bit_exact(graph: Graph, seed: int) -> None:
    # wider than the calibration data, so that saturation is met too
    x = quantize_array(images(graph, 1, seed) * 2, quantization(graph, graph.input))
    ours, theirs = trace(graph, x), tflite_micro_tensors(graph, x)
    for op in graph.ops:
        different = np.count_nonzero(ours[op.output] != theirs[op.output])
        assert different == 0, f"{op.kind} {op.name}: {different} values differ"


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1000), st.booleans())
def test_random_graphs(graph: Graph, seed: int, keep: bool) -> None:
    quantized = quantize_with(graph, images(graph, 4, seed), keep_hard_swish=keep)
    try:
        assert_bit_exact(quantized, seed)
    except UnsupportedOperator:
        assume(False)


@pytest.mark.parametrize(
    ("space", "resolution"), [("cifar_micro", 20), ("cifar_lite", 64), ("ofa_mbv3", 128)]
)
def test_whole_subnets(space: str, resolution: int) -> None:
    declared = load_space(space)
    subnets = [
        declared.smallest(resolution),
        declared.sample_by_choice(random.Random(7), resolution),
    ]
    if space != "ofa_mbv3":
        subnets.append(declared.largest(resolution))
    for seed, subnet in enumerate(subnets):
        graph = subnet_graph(declared, subnet, seed)
        assert_bit_exact(quantize_with(graph, images(graph, 2, seed)), seed)
    if any(op.kind == "hard_swish" for op in graph.ops):
        assert_bit_exact(quantize_with(graph, images(graph, 2), keep_hard_swish=True), 1)
