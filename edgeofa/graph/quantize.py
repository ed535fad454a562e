"""float32 graph to int8 graph, by the TFLite int8 quantisation specification.

Weights: symmetric, one scale per output channel. Biases: int32, scale input x weight. Activations:
asymmetric, one scale per tensor, from calibrated ranges (:mod:`edgeofa.graph.calibration`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.calibration import Method, Ranges, calibrate
from edgeofa.graph.ir import Array, Graph, Op, Quantization
from edgeofa.graph.ops import RULES, SOFTMAX_SCALE, SOFTMAX_ZERO_POINT, channel_axis, validate
from edgeofa.graph.rewrites import rewrite_hard_swish

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


def _quantize_weights(op: Op, input_scale: float) -> tuple[Array, Array, Array]:
    """Stored weight, stored bias, weight scales."""
    weight, bias = op.linear
    axis = channel_axis(op)
    taps = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.abs(weight).max(axis=taps).astype(np.float64) / 127
    # a channel of near-zero weights with a real bias would overflow the bias's int32
    scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (input_scale * _LARGEST_BIAS))
    scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float32)
    along = scale.astype(np.float64).reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    stored = np.clip(np.rint(weight / along), -127, 127).astype(np.int8)
    stored_bias = np.rint(bias / (input_scale * scale.astype(np.float64)))
    limit = 2 * _LARGEST_BIAS - 1
    return stored, np.clip(stored_bias, -limit, limit).astype(np.int32), scale


def quantize(graph: Graph, ranges: Ranges) -> Graph:
    """The int8 form of a float32 graph.

    Args:
        ranges: (low, high) of every tensor, as :func:`calibrate` gives them for this same graph.
    """
    if graph.precision != "float32":
        raise UsageError("the graph is int8 already", where=graph.name)
    activations = _activations(graph, ranges)
    ops = []
    for op in graph.ops:
        if RULES[op.kind].weighted:
            weight, bias, scale = _quantize_weights(op, activations[op.inputs[0]].scale)
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
) -> Graph:
    """Calibrate on images and quantise, hard-swish rewritten for int8 runtimes unless kept.

    Args:
        images: NHWC float32 batches, preprocessed as the network expects.
    """
    source = graph if keep_hard_swish else rewrite_hard_swish(graph)
    return quantize(source, calibrate(source, images, method))


def sqnr_db(reference: Array, other: Array) -> float:
    """Signal to quantisation noise: ``10 log10(sum reference^2 / sum (reference - other)^2)``.

    Infinite where the two are equal.
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
