"""Operators without weights, lowered to the runtime's kernels; and those that become tables."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from edgeofa.backends.firmware.layer import Constant, Field, Layer
from edgeofa.backends.firmware.packing import fast_form
from edgeofa.backends.firmware.shapes import AddShape, Output
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.int8_kernels import (
    activation_range,
    add_multipliers,
    apply,
    hard_swish_table,
    mean_multiplier,
    mul_multiplier,
)
from edgeofa.graph.int8_softmax import exp_table
from edgeofa.graph.ir import Array, Graph, Op
from edgeofa.graph.memory import Lead
from edgeofa.graph.reference import quantization

_SOURCE, _SINK = "{a}", "{out}"
#: one half as a multiplier of TFLite
_LEAST_MULTIPLIER = 1 << 30


def _lookup(graph: Graph, op: Op, table: Array) -> Layer:
    count = graph.tensors[op.output].elements
    return Layer(
        op.name,
        "edgeofa_table",
        ("{table}", _SOURCE, _SINK, str(count)),
        None,
        (Constant("table", "int8_t", table),),
        overwrites={0: Lead(0)},
    )


def lower_hard_swish(graph: Graph, op: Op) -> Layer:
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    return _lookup(graph, op, hard_swish_table(qx, qy))


def uniform(op: Op) -> bool:
    """Whether a depthwise convolution does the same to every value, as the gate of a hard-swish
    does: a table does it too."""
    weight, bias = op.linear
    pointwise = weight.shape[:3] == (1, 1, 1) and op.stride == (1, 1) and not any(op.pads)
    parts = (weight, bias, op.weight_scale)
    return pointwise and all(a is not None and np.unique(a).size == 1 for a in parts)


def lower_uniform(graph: Graph, op: Op) -> Layer:
    """A depthwise convolution of which :func:`uniform` is true."""
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    channels = graph.shape(op.output)[3]
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256, 1, 1)
    values = np.broadcast_to(every, (1, 256, 1, channels))
    return _lookup(graph, op, apply(op, [values], [qx], qy)[0, :, 0, 0])


def _order(graph: Graph, op: Op) -> tuple[int, int]:
    """The two inputs, the larger first."""
    first, second = (graph.tensors[i].elements for i in op.inputs)
    return (0, 1) if first >= second else (1, 0)


def _binary(
    graph: Graph, op: Op, function: str, ctype: str, fields: tuple[Mapping[str, Field], ...]
) -> Layer:
    """A layer of two inputs, the larger first.

    Args:
        fields: of the description: those of the first input, those of the second, those of both.
    """
    shapes, order = [graph.shape(i) for i in op.inputs], _order(graph, op)
    large, small = shapes[order[0]], shapes[order[1]]
    equal = large == small
    if not equal and (large != graph.shape(op.output) or prod(small) != small[-1] != 1):
        raise UnsupportedOperator(
            f"{op.kind} of {large} and {small}: only equal shapes, or one value per channel",
            where=op.name,
        )
    # the small input is read again for every value of the other
    overwritten = order if equal else order[:1]
    repeats, count = (1, prod(large)) if equal else (prod(large) // prod(small), prod(small))
    names = tuple(("{a}", "{b}")[i] for i in order)
    struct = {f"{k}[{n}]": v for n, i in enumerate(order) for k, v in fields[i].items()}
    return Layer(
        op.name,
        function,
        (*names, _SINK, str(repeats), str(count), str(int(not equal))),
        (ctype, struct | dict(fields[2])),
        overwrites={i: Lead(0) for i in overwritten},
    )


def _clamp(graph: Graph, op: Op) -> dict[str, int]:
    qy = quantization(graph, op.output)
    low, high = activation_range(op.activation, qy)
    return {"out_zero_point": qy.zero_point, "low": low, "high": high}


def lower_add(graph: Graph, op: Op) -> Layer:
    qs, qy = [quantization(graph, i) for i in op.inputs], quantization(graph, op.output)
    multipliers = add_multipliers(qs, qy)
    output = fast_form(*multipliers.output)
    if output is None or any(m == 0 or s > 0 for m, s in multipliers.inputs):
        raise UnsupportedOperator(
            f"scales {qs[0].scale}, {qs[1].scale} and {qy.scale} are too far apart", where=op.name
        )
    fields: list[dict[str, Field]] = [
        {"zero_point": q.zero_point, "multiplier": 2 * m - (1 << 32), "shift": -s}
        for q, (m, s) in zip(qs, multipliers.inputs, strict=True)
    ]
    clamp = _clamp(graph, op)
    both: dict[str, Field] = {"out_multiplier": output[0], "out_power": output[1], **clamp}
    # the larger scale's factor is one half
    small, large = (0, 1) if qs[0].scale <= qs[1].scale else (1, 0)
    multiplier, shift = multipliers.inputs[small]
    if multipliers.inputs[large] != (_LEAST_MULTIPLIER, 0):
        raise UnsupportedOperator("scales that are no normal numbers", where=op.name)
    shape = AddShape(
        (qs[small].zero_point, qs[large].zero_point),
        multiplier,
        -shift,
        *output,
        Output(clamp["out_zero_point"], clamp["low"], clamp["high"]),
    )
    order = _order(graph, op)
    both |= {"kernel": (shape,), "swap": int(order[0] != small)}
    return _binary(graph, op, "edgeofa_addition", "edgeofa_add", (*fields, both))


def lower_mul(graph: Graph, op: Op) -> Layer:
    qs, qy = [quantization(graph, i) for i in op.inputs], quantization(graph, op.output)
    multiplier, shift = mul_multiplier(qs, qy)
    both = {"multiplier": multiplier, "shift": shift, **_clamp(graph, op)}
    fields = [{"zero_point": q.zero_point} for q in qs]
    return _binary(graph, op, "edgeofa_multiplication", "edgeofa_mul", (*fields, both))


def lower_pool(graph: Graph, op: Op) -> Layer:
    _, height, width, channels = graph.shape(op.inputs[0])
    _, out_height, out_width, _ = graph.shape(op.output)
    low, high = activation_range(op.activation, quantization(graph, op.output))
    struct = {
        "height": height,
        "width": width,
        "channels": channels,
        "out_height": out_height,
        "out_width": out_width,
        "top": op.pads[0],
        "left": op.pads[2],
        "stride_height": op.stride[0],
        "stride_width": op.stride[1],
        "kernel_height": op.kernel[0],
        "kernel_width": op.kernel[1],
        "low": low,
        "high": high,
    }
    function = "edgeofa_max_pool" if op.kind == "max_pool2d" else "edgeofa_average_pool"
    return Layer(op.name, function, (_SOURCE, _SINK), ("edgeofa_pool", struct))


def lower_mean(graph: Graph, op: Op) -> Layer:
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    _, height, width, channels = graph.shape(op.inputs[0])
    multiplier, shift = mean_multiplier(height * width, qx, qy)
    struct = {
        "pixels": height * width,
        "channels": channels,
        "zero_point": qx.zero_point,
        "multiplier": multiplier,
        "shift": shift,
        "out_zero_point": qy.zero_point,
    }
    return Layer(op.name, "edgeofa_global_mean", (_SOURCE, _SINK), ("edgeofa_mean", struct))


def lower_pad(graph: Graph, op: Op) -> Layer:
    _, height, width, channels = graph.shape(op.inputs[0])
    top, bottom, left, right = op.pads
    sizes = (height, width * channels, top, bottom, left * channels, right * channels)
    zero_point = quantization(graph, op.output).zero_point
    arguments = (_SOURCE, _SINK, *(str(n) for n in sizes), str(zero_point))
    return Layer(op.name, "edgeofa_pad", arguments, None)


def lower_softmax(graph: Graph, op: Op) -> Layer:
    exps, radius = exp_table(quantization(graph, op.inputs[0]).scale)
    shape = graph.shape(op.output)
    counts = (str(prod(shape[:-1])), str(shape[-1]))
    return Layer(
        op.name,
        "edgeofa_softmax",
        ("{exps}", str(radius), _SOURCE, _SINK, *counts),
        None,
        (Constant("exps", "int32_t", exps.astype(np.int32)),),
        overwrites={0: Lead(0)},
    )
