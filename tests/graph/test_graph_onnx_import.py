""".onnx files: ours, onnxruntime's static quantiser's, and hostile ones.

About 20 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import sample_graphs
from graph_cases import graphs, images
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgeofa.backends.onnx import OnnxRuntimeBackend
from edgeofa.errors import FileFormatError, UnsupportedOperator, UsageError
from edgeofa.graph.importers.model_file import import_model
from edgeofa.graph.importers.onnx import import_onnx
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.ops import macs
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import quantization, quantize_array, run, run_real


def written(graph: Graph) -> bytes:
    return OnnxRuntimeBackend().serialize(graph)


def by_onnxruntime(content: bytes, x: Array) -> Array:
    """Outputs for a batch of inputs as the file takes them, one after the other."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return np.concatenate(
        [np.asarray(session.run(None, {source.name: x[i : i + 1]})[0]) for i in range(len(x))]
    )


def channels_first(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def largest_difference(back: Graph, content: bytes, x: Array) -> float:
    """Between the graph and onnxruntime: in steps of the output, float32 of the largest value."""
    expected = by_onnxruntime(content, channels_first(x))
    found = run_real(back, x)
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    difference = float(np.abs(expected.ravel() - found.ravel()).max())
    if back.precision == "int8":
        return difference / quantization(back, back.output).scale
    return difference / float(np.abs(expected).max())


class _Images(CalibrationDataReader):
    def __init__(self, name: str, x: Array):
        self._rest: Iterator[dict[str, Array]] = iter([{name: x[i : i + 1]} for i in range(len(x))])

    def get_next(self) -> dict[str, Array] | None:  # type: ignore[override]
        return next(self._rest, None)


def statically_quantised(content: bytes, x: Array, folder: Path, **options: Any) -> bytes:
    (folder / "float.onnx").write_bytes(content)
    name = onnx.load_from_string(content).graph.input[0].name
    quantize_static(
        str(folder / "float.onnx"),
        str(folder / "quantised.onnx"),
        _Images(name, channels_first(x)),
        quant_format=QuantFormat.QDQ,
        weight_type=QuantType.QInt8,
        **options,
    )
    return (folder / "quantised.onnx").read_bytes()


# ------------------------------------------------------------ what is written comes back


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1000), st.booleans())
def test_what_is_written_comes_back_bit_for_bit(graph: Graph, seed: int, keep: bool) -> None:
    quantized = quantize_with(graph, images(graph, 4, seed), keep_hard_swish=keep)
    x = images(graph, 2, seed) * 2
    try:
        content = written(quantized)
    except UnsupportedOperator:
        assume(False)
    back = import_onnx(content)
    assert macs(back) == macs(quantized)
    stored = quantize_array(x, quantization(quantized, quantized.input))
    np.testing.assert_array_equal(run(quantized, stored).ravel(), run(back, stored).ravel())
    plain = import_onnx(written(graph))
    np.testing.assert_allclose(
        run(graph, x).ravel(), run(plain, x).ravel(), rtol=1e-4, atol=1e-4 * np.abs(x).max()
    )


@pytest.mark.parametrize(
    "case", ["conv_same", "depthwise_same", "dense_flattens", "add", "mean", "max_pool_explicit"]
)
def test_each_operator_is_within_a_step_of_onnxruntime(case: str) -> None:
    graph = sample_graphs.int8_graph(case)
    content = written(graph)
    back = import_onnx(content)
    x = quantize_array(
        sample_graphs.images(graph.input_tensor.shape, 8, 3), quantization(back, back.input)
    )
    expected = by_onnxruntime(content, x)
    difference = np.abs(expected.ravel().astype(int) - run(back, x).ravel()).max()
    assert difference <= len(back.ops)


# ------------------------------------------------------------ onnxruntime's quantiser


@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_network_of_onnxruntimes_quantiser(
    activations: QuantType, per_channel: bool, symmetric: bool, tmp_path: Path
) -> None:
    graph = sample_graphs.float_graph("network")
    x = sample_graphs.images(graph.input_tensor.shape, 12, 7)
    content = statically_quantised(
        written(graph),
        x,
        tmp_path,
        activation_type=activations,
        per_channel=per_channel,
        extra_options={"ActivationSymmetric": symmetric},
    )
    back = import_onnx(content, "network")
    assert back.precision == "int8"
    assert len(back.ops) == len(graph.ops)
    # twenty layers, each within a step
    assert largest_difference(back, content, x) <= 2.5


@pytest.mark.parametrize(
    "case", ["conv_same", "conv_uneven_pads", "depthwise_same", "dense_after_mean", "add", "pad"]
)
def test_operators_of_onnxruntimes_quantiser(case: str, tmp_path: Path) -> None:
    graph = sample_graphs.float_graph(case)
    x = sample_graphs.images(graph.input_tensor.shape, 8, 7)
    content = statically_quantised(
        written(graph), x, tmp_path, activation_type=QuantType.QUInt8, per_channel=True
    )
    back = import_onnx(content)
    # one step for each of at most two operators
    assert largest_difference(back, content, x) <= 2.01


def _float_model(nodes: list[Any], constants: dict[str, Array], shape: tuple[int, ...]) -> bytes:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    body = helper.make_graph(
        nodes,
        "g",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


_RNG = np.random.default_rng(0)
_W = {
    "w": _RNG.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5,
    "b": _RNG.standard_normal(8).astype(np.float32),
    "w2": _RNG.standard_normal((8, 8, 1, 1)).astype(np.float32) / 3,
    "dense": _RNG.standard_normal((8 * 36, 5)).astype(np.float32) / 9,
    "offset": _RNG.standard_normal(5).astype(np.float32),
    "gamma": np.linspace(0.5, 2, 8, dtype=np.float32),
    "three": np.float32(3),
    "six": np.float32(6),
    "zero": np.float32(0),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "flat": np.array([0, -1], np.int64),
    "axes": np.array([2, 3], np.int64),
    "first": np.array(0, np.int64),
    "minus": np.array([-1], np.int64),
    "begin": np.array([0], np.int64),
}
_CONV = _node("Conv", "x w b", "c", pads=[1, 1, 1, 1])
#: nodes after a convolution of [1, 8, 6, 6], as other exporters write them
_TAILS = {
    "batch_norm": [_node("BatchNormalization", "c gamma b b gamma", "n"), _node("Relu", "n", "y")],
    "swish": [
        _node("HardSigmoid", "c", "h", alpha=1 / 6, beta=0.5),
        _node("Mul", "h c", "m"),
        _node("Conv", "m w2", "y"),
    ],
    "swish_by_hand": [
        _node("Add", "c three", "a"),
        _node("Clip", "a zero six", "k"),
        _node("Mul", "c k", "m"),
        _node("Div", "m six", "d"),
        _node("Conv", "d w2", "y"),
    ],
    "hard_swish": [_node("HardSwish", "c", "s"), _node("Conv", "s w2", "y")],
    "pools": [
        _node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[1, 1]),
        _node(
            "AveragePool",
            "p",
            "q",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            count_include_pad=1,
        ),
        _node("Conv", "q w2", "y"),
    ],
    "mean_and_dense": [
        _node("Relu", "c", "r"),
        _node("ReduceMean", "r", "m", axes=[2, 3], keepdims=1),
        _node("Conv", "m w2", "e"),
        _node("GlobalMaxPool", "c", "g"),
        _node("Add", "e g", "y"),
    ],
    "dense_flattens_channels_first": [
        _node("Relu", "c", "r"),
        _node("Reshape", "r flat", "f"),
        _node("MatMul", "f dense", "d"),
        _node("Add", "d offset", "s"),
        _node("Softmax", "s", "y", axis=-1),
    ],
    "shape_program": [
        _node("Shape", "c", "s"),
        _node("Gather", "s first", "n"),
        _node("Unsqueeze", "n begin", "u"),
        _node("Concat", "u minus", "t", axis=0),
        _node("Reshape", "c t", "f"),
        _node("Gemm", "f dense offset", "y"),
    ],
    "channels_last_tail": [
        _node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        _node("Reshape", "t flat", "f"),
        _node("Gemm", "f dense", "y"),
    ],
    "pad": [_node("Pad", "c pads", "p"), _node("Conv", "p w2", "y", strides=[2, 2])],
}


def _tail(name: str) -> bytes:
    nodes = [_CONV, *_TAILS[name]]
    read = {i for node in nodes for i in node.input}
    return _float_model(nodes, {k: v for k, v in _W.items() if k in read}, (1, 3, 6, 6))


@pytest.mark.parametrize("name", list(_TAILS))
def test_other_exporters_forms_in_float32(name: str) -> None:
    content = _tail(name)
    back = import_onnx(content)
    x = _RNG.standard_normal((6, 6, 6, 3)).astype(np.float32)
    assert largest_difference(back, content, x) < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "swish",
        "hard_swish",
        "pools",
        "mean_and_dense",
        "dense_flattens_channels_first",
        "channels_last_tail",
        "pad",
    ],
)
def test_other_exporters_forms_quantised(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((16, 6, 6, 3)).astype(np.float32)
    content = statically_quantised(
        _tail(name), x, tmp_path, activation_type=QuantType.QUInt8, per_channel=True
    )
    back = import_onnx(content)
    assert back.precision == "int8"
    assert largest_difference(back, content, x) <= 3.01


def _quantised_conv(tail: list[Any]) -> bytes:
    """A 1x1 convolution of quantised numbers, results -3.2 to 3.2, and ``tail`` from ``c`` on."""
    rng = np.random.default_rng(2)
    constants: dict[str, Any] = {
        "w": rng.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8),
        "ws": np.float32(0.01),
        "zero": np.int8(0),
        "low": np.int8(-128),
        "xs": np.float32(1 / 64),
        "narrow": np.float32(1 / 128),
        "wide": np.float32(1 / 32),
        "minus": np.float32(-1),
        "one": np.float32(1),
        "two": np.float32(2),
        "k": np.array([1, 1, -1, -1], np.float32).reshape(1, 4, 1, 1),
    }
    nodes = [
        _node("QuantizeLinear", "x xs zero", "xq"),
        _node("DequantizeLinear", "xq xs zero", "xd"),
        _node("DequantizeLinear", "w ws zero", "wd"),
        _node("Conv", "xd wd", "c"),
        *tail,
    ]
    return _float_model(nodes, constants, (1, 3, 6, 6))


def _stored(source: str, parameters: str, sink: str) -> list[Any]:
    """``source`` quantised and made real again."""
    return [
        _node("QuantizeLinear", f"{source} {parameters}", f"{sink}q"),
        _node("DequantizeLinear", f"{sink}q {parameters}", sink),
    ]


_CLIP = _node("Clip", "c minus one", "k1")


def test_a_clip_that_a_quantisation_implies_stays() -> None:
    tail = [_CLIP, *_stored("k1", "narrow zero", "d"), _node("Relu", "d", "r")]
    content = _quantised_conv([*tail, *_stored("r", "wide zero", "y")])
    x = np.random.default_rng(1).uniform(-2, 2, (4, 6, 6, 3)).astype(np.float32)
    assert largest_difference(import_onnx(content), content, x) <= 1.01
    # what is not clipped is read too, and is not
    both = [*_stored("c", "wide zero", "u"), _node("Clip", "u minus one", "k1")]
    both += [*_stored("k1", "narrow zero", "d"), _node("Add", "u d", "a")]
    content = _quantised_conv([*both, *_stored("a", "wide zero", "y")])
    assert largest_difference(import_onnx(content), content, x) <= 1.01


@pytest.mark.parametrize(
    ("tail", "what"),
    [
        # a relu that a quantisation implies, and a summand that must not go before it
        ([*_stored("c", "narrow low", "d"), _node("Add", "d k", "a")], "node 6, Add"),
        ([_CLIP, *_stored("k1", "narrow zero", "d"), _node("Add", "d k", "a")], "node 7, Add"),
        ([_CLIP, _node("Add", "k1 k", "a")], "node 5, Add: it computes on stored or clipped"),
        ([_CLIP, _node("Clip", "k1 minus two", "a")], "node 5, Clip: it computes on stored"),
        ([_CLIP, *_stored("c", "wide zero", "d"), _node("Add", "k1 d", "a")], "node 4, Clip"),
    ],
)
def test_a_clip_is_not_moved(tail: list[Any], what: str) -> None:
    with pytest.raises(UnsupportedOperator, match=what):
        import_onnx(_quantised_conv([*tail, *_stored("a", "wide zero", "y")]))


def test_a_clip_at_the_end_is_refused() -> None:
    tail = [*_stored("c", "wide zero", "d"), _node("Clip", "d minus one", "y")]
    with pytest.raises(UnsupportedOperator, match="its output is clipped"):
        import_onnx(_quantised_conv(tail))


def test_an_input_with_channels_last_stays_so() -> None:
    nodes = [
        _node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        _node("Conv", "t w b", "y", pads=[1, 1, 1, 1]),
    ]
    content = _float_model(nodes, {k: _W[k] for k in "wb"}, (1, 6, 5, 3))
    back = import_onnx(content)
    assert back.input_tensor.shape == (1, 6, 5, 3)
    x = _RNG.standard_normal((2, 6, 5, 3)).astype(np.float32)
    expected = by_onnxruntime(content, x).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(run(back, x), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("nodes", "what", "hint"),
    [
        ([_node("Sigmoid", "x", "y")], "node 0, Sigmoid", "hard-sigmoid"),
        ([_node("Relu", "x", "r"), _node("LeakyRelu", "r", "y")], "node 1, LeakyRelu", "relu6"),
        ([_node("ConvTranspose", "x w", "y")], "node 0, ConvTranspose", "enlarges"),
        ([_node("Conv", "x w", "y", dilations=[2, 2])], "node 0, Conv: dilation", "supported are"),
        ([_node("Softmax", "x", "y", axis=2)], "node 0, Softmax: over axis 2", "channels"),
        ([_node("Clip", "x zero three", "y")], "bounds", "supported are"),
    ],
)
def test_what_is_not_supported_is_named(nodes: list[Any], what: str, hint: str) -> None:
    constants = {k: _W[k] for k in ("w", "zero", "three")}
    with pytest.raises(UnsupportedOperator, match=what) as caught:
        import_onnx(_float_model(nodes, constants, (1, 3, 6, 6)))
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [(("n", 3, "h", "w"), r"\[\?, 3, \?, \?\]"), ((1, 3, 0, -1), r"\[1, 3, \?, \?\]")],
)
def test_an_open_size_is_refused_and_an_open_batch_is_one(shape: Any, said: str) -> None:
    nodes = [_node("Conv", "x w", "y", pads=[1, 1, 1, 1])]
    with pytest.raises(UnsupportedOperator, match=f"open size, {said}"):
        import_onnx(_float_model(nodes, {"w": _W["w"]}, shape))
    back = import_onnx(_float_model(nodes, {"w": _W["w"]}, (shape[0], 3, 6, 5)))
    assert back.input_tensor.shape == (1, 6, 5, 3)


def test_what_computes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(_float_model([_node("Identity", "x", "y")], {}, (1, 3, 6, 6)))
    with pytest.raises(FileFormatError, match="computes nothing"):
        import_model(tmp_path / "m.onnx")
    none = {"w": np.zeros((0, 3, 1, 1), np.float32)}
    with pytest.raises(UnsupportedOperator, match="node 0, Conv: a weight without output"):
        import_onnx(_float_model([_node("Conv", "x w", "y")], none, (1, 3, 6, 6)))


def test_files_that_are_none() -> None:
    for content in (b"", b"\0" * 64, b"not a model at all", b"\xff" * 300):
        with pytest.raises(FileFormatError):
            import_onnx(content)
    with pytest.raises(FileFormatError):
        import_onnx(_tail("swish")[:700])


def test_cycles_and_missing_parts_are_refused() -> None:
    cycle = [_node("Relu", "b", "a"), _node("Relu", "a", "b"), _node("Add", "a b", "y")]
    with pytest.raises(FileFormatError, match="cycle"):
        import_onnx(_float_model(cycle, {}, (1, 3, 6, 6)))
    with pytest.raises(FileFormatError, match="a part is missing"):
        import_onnx(_float_model([_node("Conv", "x w", "y")], {}, (1, 3, 6, 6)))
    twice = [_node("Relu", "x", "y"), _node("Relu", "x", "y")]
    with pytest.raises(FileFormatError, match="again"):
        import_onnx(_float_model(twice, {}, (1, 3, 6, 6)))


def test_data_outside_the_file_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(_tail("hard_swish"))
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    with pytest.raises(FileFormatError, match="outside the file"):
        import_model(tmp_path / "m.onnx")


def test_sizes_are_bounded() -> None:
    model = onnx.load_from_string(_tail("hard_swish"))
    huge = model.graph.initializer[0]
    huge.dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(FileFormatError, match="shape"):
        import_onnx(model.SerializeToString())
    many = [_node("Identity", "x" if i == 0 else f"t{i}", f"t{i + 1}") for i in range(1 << 14)]
    with pytest.raises(FileFormatError, match="nodes; at most"):
        import_onnx(_float_model([*many, _node("Relu", f"t{1 << 14}", "y")], {}, (1, 3, 6, 6)))
    # numbers that double with every node
    grown = [
        _node("Concat", f"{a} {a}", b, axis=0)
        for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
    ]
    constants = {"a": np.ones(8, np.int64)}
    with pytest.raises(UnsupportedOperator, match="a constant of 512 elements"):
        import_onnx(_float_model([*grown, _node("Reshape", "x l", "y")], constants, (1, 3, 6, 6)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read(data: st.DataObject) -> None:
    """Whatever the damage, there is a graph or an error of edgeofa's own."""
    content = bytearray(_DAMAGED)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        graph = import_onnx(bytes(content[:cut]))
    except UsageError:
        return
    assert graph.tensors


_DAMAGED = written(sample_graphs.int8_graph("squeeze_excite"))
