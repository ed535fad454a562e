"""From a graph to the kernels that compute it: sums are fused into the operator before them."""

from __future__ import annotations

from dataclasses import replace

from edgeofa.backends.tvm.kernels import Kernel, Other
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call, template_for
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.ir import Graph, Op, Quantization
from edgeofa.graph.ops import Shape, window_size

_FUSES_SUM = frozenset({"conv2d", "depthwise_conv2d", "fully_connected"})


def fuse(graph: Graph, machine: Machine) -> tuple[Call, ...]:
    """The graph as calls of kernels, in order.

    A sum goes into the operator that makes its later operand, if nothing else reads that and a
    template takes the two together. ``UnsupportedOperator`` names an operator that none takes.
    """
    readers: dict[int, int] = {graph.output: 1}
    for op in graph.ops:
        for number in op.inputs:
            readers[number] = readers.get(number, 0) + 1
    made: dict[int, int] = {}  # tensor -> the call that writes it
    calls: list[Call] = []
    for op in graph.ops:
        call = _call(graph, op)
        joined = _joined(graph, op, calls, made, readers, machine)
        if joined is not None:
            place, call = joined
            # it runs where the sum was: its other operand may be made in between
            del calls[place]
            made = {tensor: n - (n > place) for tensor, n in made.items()}
        template_for(call.kernel, machine)
        made[call.output] = len(calls)
        calls.append(call)
    return tuple(calls)


def _joined(
    graph: Graph,
    op: Op,
    calls: list[Call],
    made: dict[int, int],
    readers: dict[int, int],
    machine: Machine,
) -> tuple[int, Call] | None:
    if op.kind != "add" or graph.shape(op.inputs[0]) != graph.shape(op.inputs[1]):
        return None
    # the later operand first: what it reads is still alive
    for number in sorted(op.inputs, key=lambda i: -made.get(i, -1)):
        place = made.get(number)
        if place is None or readers[number] != 1 or op.inputs[0] == op.inputs[1]:
            continue
        first = calls[place]
        if first.kernel.kind not in _FUSES_SUM or first.residual is not None:
            continue
        other = op.inputs[1] if number == op.inputs[0] else op.inputs[0]
        kernel = replace(first.kernel, residual=op.activation)
        try:
            template_for(kernel, machine)
        except UnsupportedOperator:
            continue
        return place, replace(
            first,
            kernel=kernel,
            residual=op,
            inputs=(*first.inputs, other),
            output=op.output,
            quantizations=(*first.quantizations, *_quantizations(graph, (other,))),
            result=graph.tensors[op.output].quantization,
        )
    return None


def _call(graph: Graph, op: Op) -> Call:
    inputs: tuple[int, ...] = op.inputs
    other: Other = "none"
    if len(inputs) == 2:
        inputs, other = _operands(graph, op)
    shape, out = (_image(graph.shape(number)) for number in (inputs[0], op.output))
    if op.kind == "fully_connected":
        shape = (1, 1, shape[0] * shape[1] * shape[2])
    quantization = graph.tensors[op.output].quantization
    kernel = Kernel(
        kind=op.kind,
        dtype=graph.precision,
        input=shape,
        output=out,
        window=(1, 1) if op.kind == "fully_connected" else _window(op),
        stride=op.stride,
        pads=op.pads,
        activation=op.activation,
        other=other,
    )
    return Call(
        kernel=kernel,
        op=op,
        residual=None,
        inputs=inputs,
        output=op.output,
        quantizations=_quantizations(graph, inputs),
        between=quantization,
        result=quantization,
    )


def _window(op: Op) -> tuple[int, int]:
    if op.weight is None and op.kind not in ("average_pool2d", "max_pool2d"):
        return 1, 1
    return window_size(op)


def _operands(graph: Graph, op: Op) -> tuple[tuple[int, int], Other]:
    """The larger operand first, and the form of the other one."""
    out = graph.shape(op.output)
    for first, second in (op.inputs, op.inputs[::-1]):
        if graph.shape(first) != out:
            continue
        shape = graph.shape(second)
        if shape == out:
            return (first, second), "same"
        if all(n == 1 for n in shape):
            return (first, second), "scalar"
        if all(n == 1 for n in shape[:-1]) and shape[-1] == out[-1]:
            return (first, second), "channel"
    shapes = " and ".join(str(graph.shape(n)) for n in op.inputs)
    raise UnsupportedOperator(
        f"no schedule for {op.kind} of {shapes}", where=op.name, hint="another back end may take it"
    )


def _image(shape: Shape) -> Shape:
    """Height, width and channels of one image; a vector is one pixel."""
    inner = shape[1:]
    return (*(1,) * (3 - len(inner)), *inner)


def _quantizations(graph: Graph, numbers: tuple[int, ...]) -> tuple[Quantization, ...]:
    found = (graph.tensors[number].quantization for number in numbers)
    return tuple(q for q in found if q is not None)
