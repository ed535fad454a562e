"""Fixed-point arithmetic, calibration, quantisation, and the hard-swish rewrite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_cases import graphs, images
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeofa.errors import UsageError
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.calibration import Method, calibrate
from edgeofa.graph.fixed_point import divide_by_power, high_multiply, quantize_multiplier, rescale
from edgeofa.graph.ir import Graph
from edgeofa.graph.quantize import activation_quantization, quantize, quantize_with, sqnr_db
from edgeofa.graph.reference import dequantize_array, quantize_array, run, run_real
from edgeofa.graph.rewrites import rewrite_hard_swish
from edgeofa.spaces import load_space

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.floats(1e-9, 1e6))
def test_multiplier_is_the_real_number(real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    assert 1 << 30 <= multiplier < 1 << 31
    assert multiplier * 2.0 ** (shift - 31) == pytest.approx(real, rel=2**-30)


@given(INT32, INT32)
def test_high_multiply_is_gemmlowps(a: int, b: int) -> None:
    product = a * b
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    truncated = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)
    expected = min(truncated, 2**31 - 1)
    assert int(high_multiply(np.array([a]), np.array([b]))[0]) == expected


@given(INT32, st.integers(0, 31))
def test_division_rounds_half_away_from_zero(x: int, exponent: int) -> None:
    magnitude = (abs(x) + (1 << exponent >> 1)) >> exponent
    expected = magnitude if x >= 0 else -magnitude
    assert int(divide_by_power(np.array([x]), exponent)[0]) == expected


@given(st.integers(-(2**24), 2**24), st.floats(1e-6, 0.99))
def test_rescale_is_within_a_step(x: int, real: float) -> None:
    got = int(rescale(np.array([x]), *quantize_multiplier(real))[0])
    assert abs(got - x * real) <= 1.0


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_zero_is_exact_and_the_range_is_covered(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    q = activation_quantization(low, high)
    assert dequantize_array(np.array([q.zero_point]), q)[0] == 0.0
    ends = np.array([low, high])
    back = dequantize_array(quantize_array(ends, q), q)
    assert np.abs(back - ends).max() <= 1.01 * q.scale


def test_weights_are_symmetric_per_channel() -> None:
    b = GraphBuilder("g", (1, 4, 4, 2))
    weight = np.zeros((3, 1, 1, 2), np.float32)
    weight[0], weight[1] = [[[1.0, -2.0]]], [[[1e-12, 0.0]]]
    bias = np.array([0.5, 3.0, 0.0], np.float32)
    graph = b.build(b.conv2d(b.input, weight, bias))
    x = images(graph, 4)
    op = quantize(graph, calibrate(graph, [x])).ops[0]
    stored, stored_bias = op.linear
    assert op.weight_scale is not None
    assert stored[0].ravel().tolist() == [64, -127]
    # the all but dead channel keeps its bias instead of overflowing it
    scale = activation_quantization(float(x.min()), float(x.max())).scale
    assert stored_bias * op.weight_scale * scale == pytest.approx([0.5, 3.0, 0.0], abs=0.01)
    assert np.abs(stored_bias.astype(np.int64)).max() <= 1.001 * (1 << 30)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_int8_follows_float32(method: Method) -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.smallest(32))
    x = images(graph, 24)
    quantized = quantize_with(graph, x[:16], method)
    assert sqnr_db(run(graph, x[16:]), run_real(quantized, x[16:])) > 20


def test_outliers_are_what_mse_and_percentile_are_for() -> None:
    b = GraphBuilder("g", (1, 32, 32, 3))
    graph = b.build(b.pad(b.input, (0, 0, 0, 0)))
    x = images(graph, 8)
    x[0, 0, 0, 0] = 30.0
    methods: tuple[Method, ...] = ("minmax", "percentile", "mse")
    inner, overall = {}, {}
    for method in methods:
        y = run_real(quantize(graph, calibrate(graph, [x], method)), x)
        overall[method] = sqnr_db(x, y)
        inner[method] = sqnr_db(x[1:], y[1:])
    assert inner["percentile"] > inner["minmax"] + 10
    assert overall["mse"] >= max(overall["minmax"], overall["percentile"])


def test_calibration_does_not_depend_on_batches() -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.smallest(20))
    x = images(graph, 10)
    singles = np.array(calibrate(graph, list(x)))
    assert np.allclose(singles, np.array(calibrate(graph, [x])), rtol=1e-5, atol=1e-6)


def test_calibration_refuses() -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.smallest(20))
    x = images(graph, 1)
    with pytest.raises(UsageError, match="no calibration images"):
        calibrate(graph, [])
    with pytest.raises(UsageError, match="not finite"):
        calibrate(graph, [x * np.nan])
    with pytest.raises(UsageError, match="unknown method"):
        calibrate(graph, [x], "average")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected float32"):
        calibrate(graph, [x[:, :10]])
    with pytest.raises(UsageError, match="int8 already"):
        quantize(quantize_with(graph, [x]), calibrate(graph, [x]))
    with pytest.raises(UsageError, match="ranges"):
        quantize(graph, calibrate(graph, [x])[:-1])


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_the_rewrite_keeps_the_function(graph: Graph) -> None:
    rewritten = rewrite_hard_swish(graph)
    assert all(op.kind != "hard_swish" for op in rewritten.ops)
    x = images(graph, 2)
    expected = run(graph, x.astype(np.float64))
    assert np.abs(run(rewritten, x) - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1.0)


def test_the_rewrite_of_mobilenet_v3_adds_no_rescaling() -> None:
    space = load_space("ofa_mbv3")
    graph = subnet_graph(space, space.smallest())
    rewritten = rewrite_hard_swish(graph)
    swishes = sum(op.kind == "hard_swish" for op in graph.ops)
    # one gate and one mul for each; one rescaling, where the stem's output meets the first add
    assert len(rewritten.ops) == len(graph.ops) + swishes + 1
    x = images(graph, 1)
    expected = run(graph, x)
    assert np.abs(run(rewritten, x) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("depthwise", [False, True])
def test_compensated_rounding_follows_the_inputs(depthwise: bool) -> None:
    # smooth images, on which rounding errors of neighbouring taps add up
    b = GraphBuilder("g", (1, 16, 16, 6))
    rng = np.random.default_rng(0)
    if depthwise:
        weight = rng.standard_normal((1, 5, 5, 6), dtype=np.float32)
        weight -= weight.mean(axis=(1, 2), keepdims=True)
        y = b.depthwise_conv2d(b.input, weight, np.ones(6, np.float32))
    else:
        weight = rng.standard_normal((12, 3, 3, 6), dtype=np.float32)
        weight -= weight.mean(axis=(1, 2), keepdims=True)
        y = b.conv2d(b.input, weight, np.ones(12, np.float32), padding="valid")
    graph = b.build(y)
    ramp = np.linspace(-1, 1, 16, dtype=np.float32)
    slopes = rng.standard_normal((2, 40, 1, 1, 6), dtype=np.float32)
    x = 1 + slopes[0] * ramp[:, None, None] + slopes[1] * ramp[:, None]
    x += 0.01 * rng.standard_normal(x.shape, dtype=np.float32)
    nearest, compensated = (quantize_with(graph, x[:32], compensate=c) for c in (False, True))

    def weights_alone(quantized: Graph) -> float:
        """SQNR of the float graph with the int8 graph's weights and biases."""
        op, source = quantized.ops[0], quantized.input_tensor.quantization
        stored, bias = op.linear
        assert op.weight_scale is not None
        assert source is not None
        along = op.weight_scale if depthwise else op.weight_scale.reshape(-1, 1, 1, 1)
        real = replace(
            graph.ops[0],
            weight=(stored * along).astype(np.float32),
            bias=(bias * op.weight_scale * source.scale).astype(np.float32),
        )
        return sqnr_db(run(graph, x[32:]), run(replace(graph, ops=(real,)), x[32:]))

    assert weights_alone(compensated) > weights_alone(nearest) + 3


def test_compensated_rounding_of_a_whole_network_is_valid_and_no_worse() -> None:
    space = load_space("cifar_micro")
    graph = subnet_graph(space, space.smallest(20))
    x = images(graph, 40)
    expected = run(graph, x[32:])
    nearest, compensated = (quantize_with(graph, x[:32], compensate=c) for c in (False, True))
    gain = sqnr_db(expected, run_real(compensated, x[32:])) - sqnr_db(
        expected, run_real(nearest, x[32:])
    )
    assert gain > -1


def test_sqnr() -> None:
    signal = np.ones(100, np.float32)
    assert sqnr_db(signal, signal * 1.1) == pytest.approx(20.0, abs=0.01)
    assert sqnr_db(signal, signal) == float("inf")
