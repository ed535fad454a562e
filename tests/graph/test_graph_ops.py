"""Shape and cost rules, padding, and what validation refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from graph_cases import graphs, images
from hypothesis import given, settings
from hypothesis import strategies as st
from material import material

from edgeofa.errors import UsageError
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph, Quantization
from edgeofa.graph.ops import macs, parameters, same_pads, validate
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import run
from edgeofa.spaces import Layer, Subnet, load_space


def small() -> Graph:
    b = GraphBuilder("small", (1, 9, 7, 3))
    y = b.conv2d(
        b.input,
        np.ones((8, 3, 3, 3), np.float32),
        np.zeros(8, np.float32),
        stride=2,
        activation="relu6",
        name="stem",
    )
    y = b.depthwise_conv2d(y, np.ones((1, 5, 5, 8), np.float32), np.zeros(8, np.float32), name="dw")
    y = b.mean(y, name="pool")
    y = b.fully_connected(y, np.ones((10, 8), np.float32), np.zeros(10, np.float32), name="fc")
    return b.build(y)


def test_shapes_and_costs() -> None:
    graph = small()
    assert [t.shape for t in graph.tensors] == [
        (1, 9, 7, 3),
        (1, 5, 4, 8),
        (1, 5, 4, 8),
        (1, 1, 1, 8),
        (1, 10),
    ]
    assert macs(graph) == 20 * 8 * 27 + 20 * 8 * 25 + 80
    assert parameters(graph) == (216 + 8) + (200 + 8) + (80 + 10)


def test_macs_of_mobilenet_v3_large() -> None:
    # the MobileNetV3 of once-for-all at its largest has 7.7 M parameters in the literature's count
    space = load_space("ofa_mbv3")
    graph = subnet_graph(space, space.largest(224))
    assert 560e6 < macs(graph) < 580e6
    assert 7.5e6 < parameters(graph) < 7.8e6


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 5, 7]), st.integers(1, 3))
def test_same_pads_give_the_ceiling(height: int, width: int, kernel: int, stride: int) -> None:
    top, bottom, left, right = same_pads((height, width), (kernel, kernel), (stride, stride))
    assert (height + top + bottom - kernel) // stride + 1 == -(-height // stride)
    assert (width + left + right - kernel) // stride + 1 == -(-width // stride)
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_declared_shapes_are_the_computed_ones(graph: Graph) -> None:
    assert run(graph, images(graph, 2)).shape == (2, *graph.output_tensor.shape[1:])


def broken(graph: Graph, index: int, **changes: object) -> Graph:
    ops = list(graph.ops)
    ops[index] = replace(ops[index], **changes)  # type: ignore[arg-type]
    return replace(graph, ops=tuple(ops))


@pytest.mark.parametrize(
    ("index", "changes", "place", "what"),
    [
        (0, {"stride": (1, 1)}, "stem", "shape"),
        (0, {"bias": np.zeros(3, np.float32)}, "stem", "bias"),
        (0, {"bias": None}, "stem", "bias"),
        (0, {"pads": (0, -1, 0, 0)}, "stem", "negative"),
        (0, {"weight": np.full((8, 3, 3, 3), np.nan, np.float32)}, "stem", "finite"),
        (1, {"inputs": (3,)}, "dw", "before it is written"),
        (1, {"output": 1}, "dw", "written twice"),
        (1, {"weight": np.ones((1, 5, 5, 7), np.float32)}, "dw", "1HWC"),
        (2, {"activation": "relu"}, "pool", "no fused"),
        (2, {"weight": np.ones(3, np.float32)}, "pool", "no weight"),
        (3, {"weight": np.ones((10, 9), np.float32)}, "fc", "out, in"),
        (3, {"weight_scale": np.ones(10, np.float32)}, "fc", "scales"),
        (3, {"inputs": (3, 3)}, "fc", "inputs"),
    ],
)
def test_validation_names_the_operator(
    index: int, changes: dict[str, object], place: str, what: str
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        validate(broken(small(), index, **changes))
    assert caught.value.where == place


def test_validation_of_quantisation() -> None:
    graph = quantize_with(small(), [images(small(), 2)])
    for q, what in [
        (Quantization(0.1, 0), "float32"),
        (Quantization(0.5, 128), "zero point"),
        (Quantization(float("nan"), 0), "scale"),
        (None, "float32 and int8"),
    ]:
        tensors = (*graph.tensors[:-1], replace(graph.tensors[-1], quantization=q))
        with pytest.raises(UsageError, match=what):
            validate(replace(graph, tensors=tensors))
    with pytest.raises(UsageError, match="where the graph is int8"):
        validate(broken(graph, 0, weight=np.ones((8, 3, 3, 3), np.float32)))


def test_a_tensor_that_nobody_reads() -> None:
    b = GraphBuilder("waste", (1, 4, 4, 2))
    b.mean(b.input)
    with pytest.raises(UsageError, match="no use"):
        b.build(b.hard_swish(b.input))


def test_a_window_that_does_not_fit() -> None:
    b = GraphBuilder("tight", (1, 4, 4, 2))
    with pytest.raises(UsageError, match="does not fit") as caught:
        b.max_pool2d(b.input, 5, name="pool")
    assert caught.value.where == "pool"


def test_macs_are_those_of_the_once_for_all_reference() -> None:
    space = load_space("ofa_mbv3")
    published = json.loads((material("ofa/parity") / "mbv3_w1.0.json").read_text())
    compared = 0
    for name, entry in published.items():
        if "flops_ref" not in entry:
            continue
        kernel, expand, depth = (
            [v] * n if isinstance(v, int) else list(v)
            for v, n in zip(
                (entry["config"][k] for k in ("ks", "e", "d")), (20, 20, 5), strict=True
            )
        )
        # every stage has room for four layers in the reference's lists
        stages = tuple(
            tuple(Layer(kernel[4 * i + j], expand[4 * i + j]) for j in range(depth[i]))
            for i in range(5)
        )
        subnet = Subnet(space.name, entry["res"], ((Layer(3, 1),), *stages))
        assert macs(subnet_graph(space, subnet)) == round(entry["flops_ref"] * 1e6), name
        compared += 1
    assert compared == 9
