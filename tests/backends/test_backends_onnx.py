"""The ONNX writer against the graph's reference, in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from sample_graphs import CASES, float_graph, images, int8_graph

from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.backends.onnx import OnnxRuntimeBackend
from edgeofa.graph import reference
from edgeofa.graph.ir import Array, Graph

BACKEND = OnnxRuntimeBackend()
# float islands and its own requantisation: one step for a single operator
STEPS = {"network": 4, "softmax": 2, "squeeze_excite": 2, "hard_swish": 2}


def run(graph: Graph, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        BACKEND.serialize(graph), options, providers=["CPUExecutionProvider"]
    )
    source, sink = BACKEND.specs(graph)
    (y,) = session.run(None, {session.get_inputs()[0].name: to_runtime(x, source)})
    assert session.get_inputs()[0].shape == list(source.shape)
    assert y.shape == sink.shape
    return from_runtime(y, sink)


@pytest.mark.parametrize("case", CASES)
def test_float32_equals_the_reference(case: str) -> None:
    graph = float_graph(case)
    x = images(graph.input_tensor.shape, 1, seed=7)
    expected = reference.run(graph, x)
    assert np.abs(run(graph, x) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_int8_is_within_rounding_of_the_reference(case: str) -> None:
    graph = int8_graph(case)
    x = reference.quantize_array(
        images(graph.input_tensor.shape, 1, seed=7), reference.quantization(graph, graph.input)
    )
    got = run(graph, x)
    assert got.dtype == np.int8
    assert np.abs(got.astype(int) - reference.run(graph, x)).max() <= STEPS.get(case, 1)


@pytest.mark.parametrize("make", [float_graph, int8_graph])
@pytest.mark.parametrize("case", ["network", "pad_then_conv", "pad", "hard_swish"])
def test_models_are_valid_and_reproducible(make, case: str) -> None:
    content = BACKEND.serialize(make(case))
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert content == BACKEND.serialize(make(case))


def test_pads_are_absorbed_by_convolutions_only() -> None:
    def kinds(case: str) -> list[str]:
        return [
            n.op_type
            for n in onnx.load_from_string(BACKEND.serialize(float_graph(case))).graph.node
        ]

    assert kinds("pad_then_conv") == ["Conv"]
    assert kinds("pad") == ["Pad"]


def test_no_clip_where_int8_saturates_by_itself() -> None:
    model = onnx.load_from_string(BACKEND.serialize(int8_graph("conv_same_stride2")))
    assert "Clip" not in [n.op_type for n in model.graph.node]


def test_int8_convolutions_become_integer_operators(tmp_path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    # the default on ARM; on x86 onnxruntime would rather see unsigned activations
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.log_severity_level = 4  # it warns that such a file is for this machine only
    onnxruntime.InferenceSession(
        BACKEND.serialize(int8_graph("conv_valid")), options, providers=["CPUExecutionProvider"]
    )
    kinds = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
    # NHWC input and output spare the transpositions around channels-last kernels
    assert kinds == ["QLinearConv"]
