""".tflite files: what the writer wrote comes back; foreign and damaged ones are refused.

About 10 s.
"""

from __future__ import annotations

import copy
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
from edgeofa.graph.ir import Array, Graph
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


def by_litert(content: bytes, x: Array) -> Array:
    """Outputs in LiteRT's reference kernels, image by image."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in x:
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        found.append(interpreter.get_tensor(sink["index"]).ravel())
    return np.array(found)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1000))
def test_float_graphs_come_back(graph: Graph, seed: int) -> None:
    try:
        content = written(graph)
    except UnsupportedOperator:
        assume(False)
    back = import_tflite(content)
    assert back.precision == "float32"
    x = images(graph, 2, seed)
    np.testing.assert_array_equal(run(graph, x).ravel(), run(back, x).ravel())


@pytest.mark.parametrize(
    ("name", "count", "limit"),
    # the first has int8 weights and LiteRT quantises its activations too, on the way
    [("kws_ref_model_float32", 2_656_768, 0.1), ("pretrainedResnet", 12_501_632, 1e-4)],
)
def test_foreign_float_models(name: str, count: int, limit: float) -> None:
    path = material(f"mlperf_tiny/{name}.tflite")
    graph = import_tflite(path)
    assert (graph.precision, macs(graph)) == ("float32", count)
    scale = 255 if name == "pretrainedResnet" else 1
    x = np.random.default_rng(0).random((3, *graph.input_tensor.shape[1:])).astype(np.float32)
    expected = by_litert(path.read_bytes(), scale * x)
    np.testing.assert_allclose(
        run(graph, scale * x).reshape(3, -1), expected, atol=limit * np.abs(expected).max()
    )


def with_relu(content: bytes, scale: float) -> bytes:
    """The model with a RELU of its own at its end, whose output has ``scale`` times the scale."""
    from ai_edge_litert import schema_py_generated as schema

    from edgeofa.backends.litert import pack_model

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (body,) = model.subgraphs
    old = body.tensors[body.outputs[0]]
    new = copy.deepcopy(old)
    new.name = b"activated"
    if old.quantization is not None and old.quantization.scale is not None:
        new.quantization.scale = [np.float32(old.quantization.scale[0] * scale)]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 2 if old.type == schema.TensorType.INT8 else 1
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = [body.outputs[0]], [len(body.tensors)]
    model.operatorCodes.append(code)
    body.tensors.append(new)
    body.operators.append(operator)
    body.outputs = operator.outputs
    model.signatureDefs = None
    return pack_model(model)


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_a_relu_by_itself(scale: float) -> None:
    graph = sample_graphs.int8_graph("conv_valid")
    content = with_relu(written(graph), scale)
    back = import_tflite(content)
    # put into the convolution where both are quantised alike
    assert len(back.ops) == (1 if scale == 1 else 2)
    x = quantize_array(images(graph, 4, 3) * 2, quantization(graph, graph.input))
    np.testing.assert_array_equal(run(back, x).reshape(4, -1), by_litert(content, x))
    plain = with_relu(written(sample_graphs.float_graph("conv_valid")), scale)
    x = images(graph, 4, 3)
    np.testing.assert_allclose(
        run(import_tflite(plain), x).reshape(4, -1), by_litert(plain, x), atol=1e-5
    )


def with_uint8_ends(content: bytes) -> bytes:
    """The model with uint8 input and output, which QUANTIZE operators turn into int8 and back."""
    from ai_edge_litert import schema_py_generated as schema

    from edgeofa.backends.litert import pack_model

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (body,) = model.subgraphs
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 1
    model.operatorCodes.append(code)

    def unsigned(number: int, name: bytes) -> int:
        tensor = copy.deepcopy(body.tensors[number])
        tensor.name, tensor.type = name, schema.TensorType.UINT8
        tensor.quantization.zeroPoint = [tensor.quantization.zeroPoint[0] + 128]
        body.tensors.append(tensor)
        return len(body.tensors) - 1

    def quantize(source: int, sink: int) -> object:
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [source], [sink]
        return operator

    source, sink = int(body.inputs[0]), int(body.outputs[0])
    body.inputs, body.outputs = [unsigned(source, b"in")], [unsigned(sink, b"out")]
    body.operators.insert(0, quantize(body.inputs[0], source))
    body.operators.append(quantize(sink, body.outputs[0]))
    model.signatureDefs = None
    return pack_model(model)


def test_a_program_about_shapes_is_passed_over() -> None:
    """What a converter writes of ``Flatten`` where the batch is open."""
    from ai_edge_litert import schema_py_generated as schema

    from edgeofa.backends.litert import pack_model

    graph = sample_graphs.int8_graph("dense_after_mean")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(written(graph), 0))
    (body,) = model.subgraphs
    for kind, name in ((schema.BuiltinOperator.SHAPE, b"s"), (schema.BuiltinOperator.PACK, b"p")):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name, schema.TensorType.INT32, [2]
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes)
        operator.inputs = [body.inputs[0]] if name == b"s" else [len(body.tensors) - 1]
        operator.outputs = [len(body.tensors)]
        model.operatorCodes.append(code)
        body.tensors.append(tensor)
        body.operators.insert(len(body.operators) - 1, operator)
    model.signatureDefs = None
    back = import_tflite(pack_model(model))
    assert_same_function(graph, back, 3)


@pytest.mark.parametrize(("signature", "taken"), [([-1, 9, 9, 5], True), ([1, -1, -1, 5], False)])
def test_only_the_batch_may_be_open(signature: list[int], taken: bool) -> None:
    from ai_edge_litert import schema_py_generated as schema

    from edgeofa.backends.litert import pack_model

    graph = sample_graphs.int8_graph("conv_same")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(written(graph), 0))
    (body,) = model.subgraphs
    body.tensors[body.inputs[0]].shapeSignature = signature
    model.signatureDefs = None
    if taken:
        assert_same_function(graph, import_tflite(pack_model(model)), 3)
        return
    with pytest.raises(UnsupportedOperator, match="an input of open size"):
        import_tflite(pack_model(model))


def test_uint8_ends() -> None:
    graph = sample_graphs.int8_graph("conv_same")
    content = with_uint8_ends(written(graph))
    back = import_tflite(content)
    assert len(back.ops) == 1
    x = quantize_array(images(graph, 4, 3) * 2, quantization(graph, graph.input))
    expected = by_litert(content, (x.astype(np.int16) + 128).astype(np.uint8))
    np.testing.assert_array_equal(run(back, x).reshape(4, -1).astype(int) + 128, expected)


def test_int8_and_float32_do_not_mix() -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(written(sample_graphs.int8_graph("dense_after_mean")))
    subgraph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    middle = subgraph.Tensors(subgraph.Operators(0).Outputs(0))
    place = middle._tab.Pos + middle._tab.Offset(6)
    content[place] = schema.TensorType.FLOAT32
    with pytest.raises(UnsupportedOperator, match="int8 and float32"):
        import_tflite(bytes(content))


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
    assert "supported are" in str(caught.value.hint)


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
