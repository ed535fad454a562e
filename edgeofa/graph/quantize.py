"""float32 graph to int8 graph, by the TFLite int8 quantisation specification.

Weights: symmetric, one scale per output channel. Biases: int32, scale input x weight. Activations:
asymmetric, one scale per tensor, from calibrated ranges (:mod:`edgeofa.graph.calibration`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.calibration import Method, Ranges, batches, calibrate
from edgeofa.graph.ir import Array, Graph, Op, Quantization
from edgeofa.graph.ops import RULES, SOFTMAX_SCALE, SOFTMAX_ZERO_POINT, channel_axis, validate
from edgeofa.graph.rewrites import rewrite_hard_swish
from edgeofa.graph.rounding import InputMoments, input_moments, round_weights

#: int32 biases stay below this, which leaves as much room again for the products
_LARGEST_BIAS = 1 << 30
_SMALLEST_SCALE = 1e-9


def activation_quantization(low: float, high: float) -> Quantization:
    """Scale and zero point for a range; zero is always exactly representable."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 255 * _SMALLEST_SCALE:
        # a tensor that is always zero: any scale will do
        low, high = 0.0, 1.0
    scale = float(np.float32((high - low) / 255))
    return Quantization(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def _activations(graph: Graph, ranges: Ranges) -> list[Quantization]:
    if len(ranges) != len(graph.tensors):
        raise UsageError(f"{len(ranges)} ranges for {len(graph.tensors)} tensors", where=graph.name)
    out = [activation_quantization(low, high) for low, high in ranges]
    for op in graph.ops:
        if RULES[op.kind].keeps_quantization:
            out[op.output] = out[op.inputs[0]]
        elif op.kind == "softmax":
            out[op.output] = Quantization(SOFTMAX_SCALE, SOFTMAX_ZERO_POINT)
    return out


def _quantize_weights(
    op: Op, input_scale: float, moments: InputMoments | None
) -> tuple[Array, Array, Array]:
    """Stored weight, stored bias, weight scales."""
    weight, bias = op.linear
    # outputs first
    by_output = np.moveaxis(weight, channel_axis(op), 0)
    rows = by_output.reshape(len(by_output), -1).astype(np.float64)
    scale = np.abs(rows).max(axis=1) / 127
    # a channel of near-zero weights with a real bias would overflow the bias's int32
    scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (input_scale * _LARGEST_BIAS))
    scale32 = np.maximum(scale, _SMALLEST_SCALE).astype(np.float32)
    scale = scale32.astype(np.float64)
    correction: Array = np.zeros(len(rows))
    if moments is None:
        stored = np.clip(np.rint(rows / scale[:, np.newaxis]), -127, 127)
    else:
        stored, correction = round_weights(rows, scale, moments)
    stored_bias = np.rint((bias + correction) / (input_scale * scale))
    limit = 2 * _LARGEST_BIAS - 1
    back = np.moveaxis(stored.reshape(by_output.shape), 0, channel_axis(op))
    return (
        np.ascontiguousarray(back, dtype=np.int8),
        np.clip(stored_bias, -limit, limit).astype(np.int32),
        scale32,
    )


def quantize(
    graph: Graph, ranges: Ranges, moments: Mapping[int, InputMoments] | None = None
) -> Graph:
    """The int8 form of a float32 graph.

    Args:
        ranges: (low, high) of every tensor, as :func:`calibrate` gives them for this same graph.
        moments: of the operators' inputs, as :func:`input_moments` gives them; weights are then
            rounded by :mod:`edgeofa.graph.rounding`, else each to its nearest step.
    """
    if graph.precision != "float32":
        raise UsageError("the graph is int8 already", where=graph.name)
    activations = _activations(graph, ranges)
    ops = []
    for op in graph.ops:
        if RULES[op.kind].weighted:
            seen = None if moments is None else moments.get(op.output)
            weight, bias, scale = _quantize_weights(op, activations[op.inputs[0]].scale, seen)
            op = replace(op, weight=weight, bias=bias, weight_scale=scale)
        ops.append(op)
    tensors = tuple(
        replace(t, quantization=q) for t, q in zip(graph.tensors, activations, strict=True)
    )
    return validate(replace(graph, tensors=tensors, ops=tuple(ops)))


def quantize_with(
    graph: Graph,
    images: Iterable[Array],
    method: Method = "minmax",
    *,
    keep_hard_swish: bool = False,
    compensate: bool = False,
) -> Graph:
    """Calibrate on images and quantise, hard-swish rewritten for int8 runtimes unless kept.

    Args:
        images: NHWC float32 batches, preprocessed as the network expects.
        compensate: round weights with regard to their inputs (:mod:`edgeofa.graph.rounding`):
            better outputs for some seconds of work, of no use to random weights.
    """
    source = graph if keep_hard_swish else rewrite_hard_swish(graph)
    material = list(batches(source, images))
    moments = input_moments(source, material) if compensate else None
    return quantize(source, calibrate(source, material, method), moments)


def sqnr_db(reference: Array, other: Array) -> float:
    """Signal to quantisation noise: ``10 log10(sum reference^2 / sum (reference - other)^2)``.

    Infinite where the two are equal.
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
