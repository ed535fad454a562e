"""Runs a graph in numpy: the oracle that every back end is compared with.

float32 graphs are computed in float32. int8 graphs give, bit for bit, what TFLite's reference
kernels give in tflite-micro. Any batch size is accepted, whatever the graph's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph import float_kernels, int8_kernels
from edgeofa.graph.ir import Array, Graph, Quantization


def quantize_array(x: Array, q: Quantization) -> Array:
    """Stored int8 values of real numbers; ties to even, saturating."""
    stored = np.rint(x / np.float32(q.scale)) + q.zero_point
    return np.asarray(np.clip(stored, -128, 127), dtype=np.int8)


def dequantize_array(x: Array, q: Quantization) -> Array:
    """Real numbers, float32, of stored int8 values."""
    return (x.astype(np.float32) - np.float32(q.zero_point)) * np.float32(q.scale)


def quantization(graph: Graph, tensor: int) -> Quantization:
    """Quantisation of a tensor of an int8 graph."""
    q = graph.tensors[tensor].quantization
    if q is None:
        raise UsageError(f"tensor {tensor} is not quantised", where=graph.name)
    return q


def steps(graph: Graph, x: Array) -> Iterator[tuple[int, Array]]:
    """Execute, yielding (tensor number, stored value) for the input and after each operator.

    Values that no later operator reads are released, so that a caller who looks at each tensor
    once never holds the whole network.

    Args:
        x: input of the graph's shape but for the batch; float32, or stored int8. A float64 input
            computes a float32 graph in float64, a yardstick without rounding of its own.
    """
    spec = graph.input_tensor
    dtypes = ("float32", "float64") if spec.dtype == "float32" else ("int8",)
    if x.shape[1:] != spec.shape[1:] or x.dtype.name not in dtypes:
        raise UsageError(
            f"input {x.dtype}{list(x.shape)}, expected {spec.dtype}{list(spec.shape)}",
            where=graph.name,
        )
    last_use = {number: i for i, op in enumerate(graph.ops) for number in op.inputs}
    live = {graph.input: x}
    yield graph.input, x
    for i, op in enumerate(graph.ops):
        inputs = [live[number] for number in op.inputs]
        if graph.precision == "float32":
            value = float_kernels.apply(op, inputs)
        else:
            qs = [quantization(graph, number) for number in op.inputs]
            value = int8_kernels.apply(op, inputs, qs, quantization(graph, op.output))
        for number in set(op.inputs):
            if last_use[number] == i:
                del live[number]
        live[op.output] = value
        yield op.output, value


def run(graph: Graph, x: Array) -> Array:
    """The output for one batch, as stored: of the input's float type, or int8."""
    return next(value for number, value in steps(graph, x) if number == graph.output)


def trace(graph: Graph, x: Array) -> dict[int, Array]:
    """Every tensor of one execution, by number."""
    return dict(steps(graph, x))


def run_real(graph: Graph, x: Array) -> Array:
    """float32 in, float32 out, whatever the graph's precision."""
    if graph.precision == "float32":
        return run(graph, np.asarray(x, dtype=np.float32))
    stored = run(graph, quantize_array(x, quantization(graph, graph.input)))
    return dequantize_array(stored, quantization(graph, graph.output))
