"""int8 .tflite files: what the writer wrote comes back; foreign and damaged ones are refused.

About 10 s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sample_graphs
from graph_cases import graphs, images
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from material import material
from tflite_micro_oracle import tflite_micro_tensors

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.errors import FileFormatError, UnsupportedOperator, UsageError
from edgeofa.graph.importers.tflite import import_tflite
from edgeofa.graph.ir import Graph
from edgeofa.graph.ops import macs
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import quantization, quantize_array, run, trace


def written(graph: Graph) -> bytes:
    return LiteRtBackend().serialize(graph)


def assert_same_function(graph: Graph, other: Graph, seed: int) -> None:
    x = quantize_array(images(graph, 2, seed) * 2, quantization(graph, graph.input))
    np.testing.assert_array_equal(run(graph, x).ravel(), run(other, x).ravel())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1000), st.booleans())
def test_what_is_written_comes_back(graph: Graph, seed: int, keep: bool) -> None:
    quantized = quantize_with(graph, images(graph, 4, seed), keep_hard_swish=keep)
    try:
        content = written(quantized)
    except UnsupportedOperator:
        assume(False)
    back = import_tflite(content)
    assert macs(back) == macs(quantized)
    assert_same_function(quantized, back, seed)


@pytest.mark.parametrize("case", ["conv_uneven_pads", "max_pool_explicit", "softmax", "network"])
def test_pads_and_heads_come_back(case: str, tmp_path: Path) -> None:
    graph = sample_graphs.int8_graph(case)
    file = tmp_path / "model.tflite"
    file.write_bytes(written(graph))
    back = import_tflite(file)
    assert back.name == "model"
    assert_same_function(graph, back, 1)


@pytest.mark.parametrize(
    ("name", "count"), [("kws_ref_model", 2_656_768), ("pretrainedResnet_quant", 12_501_632)]
)
def test_foreign_models_compute_what_tflite_micro_does(name: str, count: int) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    path = material(f"mlperf_tiny/{name}.tflite")
    graph = import_tflite(path)
    assert macs(graph) == count
    rng = np.random.default_rng(0)
    interpreter = runtime.Interpreter.from_file(str(path))
    for _ in range(3):
        x = rng.integers(-128, 128, graph.input_tensor.shape).astype(np.int8)
        interpreter.set_input(x, 0)
        interpreter.invoke()
        np.testing.assert_array_equal(interpreter.get_output(0).ravel(), run(graph, x).ravel())
    ours, theirs = trace(graph, x), tflite_micro_tensors(graph, x)
    assert all((ours[n].ravel() == theirs[n].ravel()).all() for n in ours)


def test_a_float_model_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="int8"):
        import_tflite(written(sample_graphs.float_graph("conv_same")))


def test_an_unknown_operator_is_named_with_its_index() -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(written(sample_graphs.int8_graph("dense_after_mean")))
    model = schema.Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    (mean,) = [c for c in codes if c.BuiltinCode() == schema.BuiltinOperator.MEAN]
    # both fields that hold the code, old and new
    for slot, size in ((4, 1), (10, 4)):
        place = mean._tab.Pos + mean._tab.Offset(slot)
        content[place : place + size] = schema.BuiltinOperator.COS.to_bytes(size, "little")
    with pytest.raises(UnsupportedOperator, match="operator 0, COS") as caught:
        import_tflite(bytes(content))
    assert "0.cos" in str(caught.value.where)


def test_no_tflite_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"TFL3", b"\0" * 64):
        with pytest.raises(FileFormatError):
            import_tflite(content)
    with pytest.raises(FileFormatError):
        import_tflite(written(sample_graphs.int8_graph("add"))[:100])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read(data: st.DataObject) -> None:
    """Whatever the damage, there is a graph or an error of edgeofa's own."""
    content = bytearray(_DAMAGED)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(8, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        graph = import_tflite(bytes(content[:cut]))
    except UsageError:
        return
    assert graph.ops


_DAMAGED = written(sample_graphs.int8_graph("squeeze_excite"))
