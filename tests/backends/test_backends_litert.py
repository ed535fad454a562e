"""The .tflite writer against the graph's reference, in three runtimes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from sample_graphs import CASES, SHAPE, float_graph, images, int8_graph

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph import reference
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Array, Graph

BACKEND = LiteRtBackend()
# XNNPACK and TFLite's optimised kernels round requantised sums differently from the reference:
# one step for a single operator, which a following operator can spread
STEPS = {"network": 4, "softmax": 2, "squeeze_excite": 2, "hard_swish": 2}


def interpret(content: bytes, x: Array, *, delegate: bool) -> Array:
    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_REF
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=resolver
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def stored_input(graph: Graph) -> Array:
    x = images(graph.input_tensor.shape, 1, seed=7)
    if graph.precision == "float32":
        return x
    return reference.quantize_array(x, reference.quantization(graph, graph.input))


@pytest.mark.parametrize("delegate", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_float32_equals_the_reference(case: str, delegate: bool) -> None:
    graph = float_graph(case)
    x = stored_input(graph)
    expected = reference.run(graph, x)
    got = interpret(BACKEND.serialize(graph), x, delegate=delegate)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("delegate", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_int8_is_within_rounding_of_the_reference(case: str, delegate: bool) -> None:
    graph = int8_graph(case)
    x = stored_input(graph)
    expected = reference.run(graph, x)
    got = interpret(BACKEND.serialize(graph), x, delegate=delegate)
    assert got.dtype == np.int8
    assert got.shape == expected.shape
    assert len(np.unique(expected)) > 3, "a saturated output would prove nothing"
    assert np.abs(got.astype(int) - expected).max() <= STEPS.get(case, 1)


@pytest.mark.parametrize("case", CASES)
def test_int8_equals_tflite_micro_bit_for_bit(case: str) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    graph = int8_graph(case)
    x = stored_input(graph)
    interpreter = runtime.Interpreter.from_bytes(BACKEND.serialize(graph))
    interpreter.set_input(x, 0)
    interpreter.invoke()
    np.testing.assert_array_equal(interpreter.get_output(0), reference.run(graph, x))


@pytest.mark.parametrize("make", [float_graph, int8_graph])
def test_same_graph_same_bytes(make) -> None:
    assert BACKEND.serialize(make("network")) == BACKEND.serialize(make("network"))
    assert BACKEND.serialize(make("network")) != BACKEND.serialize(make("network", seed=1))


def test_constants_are_aligned_to_16_bytes() -> None:
    content = BACKEND.serialize(int8_graph("network"))
    model = schema.Model.GetRootAs(content, 0)
    offsets = [
        model.Buffers(i)._tab.Vector(model.Buffers(i)._tab.Offset(4))
        for i in range(1, model.BuffersLength())
    ]
    assert len(offsets) > 10
    assert all(offset % 16 == 0 for offset in offsets)


def _pads(case: str) -> list[int]:
    model = schema.Model.GetRootAs(BACKEND.serialize(float_graph(case)), 0)
    return [
        model.OperatorCodes(model.Subgraphs(0).Operators(i).OpcodeIndex()).BuiltinCode()
        for i in range(model.Subgraphs(0).OperatorsLength())
    ]


def test_pad_operators_appear_only_where_tensorflow_has_no_name_for_the_pads() -> None:
    code = schema.BuiltinOperator
    assert _pads("conv_same_stride2") == [code.CONV_2D]
    assert _pads("conv_valid") == [code.CONV_2D]
    assert _pads("conv_symmetric_stride2") == [code.PAD, code.CONV_2D]
    assert _pads("max_pool_explicit") == [code.PADV2, code.MAX_POOL_2D]


def test_average_pool_with_pads_that_tflite_cannot_express_is_refused_by_name() -> None:
    builder = GraphBuilder("odd", SHAPE)
    y = builder.average_pool2d(
        builder.input, 3, stride=2, padding=(1, 1, 1, 1), name="features.pool"
    )
    with pytest.raises(UnsupportedOperator, match=r"features\.pool"):
        BACKEND.serialize(builder.build(y))


def test_artifact_describes_what_was_written(tmp_path) -> None:
    graph = int8_graph("network")
    artifact = BACKEND.compile(graph, tmp_path / "network.tflite")
    assert artifact.path.read_bytes() == BACKEND.serialize(graph)
    assert artifact.file_bytes == artifact.path.stat().st_size > artifact.weight_bytes
    assert artifact.input.shape == (1, 24, 24, 3)
    assert artifact.input.layout == "NHWC"
    assert artifact.output.quantization == graph.output_tensor.quantization
    assert artifact.precision == "int8"


def test_an_int8_operator_without_scales_is_refused() -> None:
    graph = int8_graph("conv_same")
    broken = replace(graph, ops=(replace(graph.ops[0], weight_scale=None),))
    with pytest.raises(UnsupportedOperator, match="float operator"):
        BACKEND.serialize(broken)
