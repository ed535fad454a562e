"""Rewrites that keep a graph's function and change its operators."""

from __future__ import annotations

from dataclasses import replace

from edgeofa.errors import UsageError
from edgeofa.graph.gains import GainBuilder
from edgeofa.graph.ir import Graph, Op
from edgeofa.graph.ops import validate


def rewrite_hard_swish(graph: Graph) -> Graph:
    """Replace hard-swish by operators that int8 runtimes accelerate.

    ``x * relu6(x + 3) / 6``: a 1x1 depthwise convolution with weight 1, bias 3 and fused relu6
    makes the gate, a mul applies it, and the 1/6 goes into the weights of the linear operators
    that read the result, through means, pools and muls; where something else reads it (an add of
    unequal factors, a relu6, the graph's output), a 1x1 depthwise convolution divides it out. Exact
    up to float rounding. Hard-swish of a flattened tensor stays: no depthwise convolution takes it.
    """
    if graph.precision != "float32":
        raise UsageError("rewrites come before quantisation", where=graph.name)
    if all(op.kind != "hard_swish" for op in graph.ops):
        return graph
    b = GainBuilder(graph.name, graph.input_tensor)
    values = {graph.input: b.input}
    for op in graph.ops:
        inputs = [values[i] for i in op.inputs]
        if op.kind == "hard_swish" and len(graph.shape(op.output)) == 4:
            gate = b.gate(inputs[0], f"{op.name}.gate")
            product = Op("mul", f"{op.name}.mul", (), 0)
            values[op.output] = b.add_op(product, [inputs[0], gate])
        else:
            values[op.output] = b.add_op(op, inputs)
    return b.build(values[graph.output])


def fold_pads(graph: Graph) -> Graph:
    """Put each padding into the convolutions that read it, where only convolutions do."""
    readers: dict[int, list[Op]] = {}
    for op in graph.ops:
        for number in op.inputs:
            readers.setdefault(number, []).append(op)
    folded = {
        op.output: op
        for op in graph.ops
        if op.kind == "pad"
        and op.output != graph.output
        and op.inputs[0] not in (p.output for p in graph.ops if p.kind == "pad")
        and all(r.kind in ("conv2d", "depthwise_conv2d") for r in readers[op.output])
    }
    if not folded:
        return graph
    kept = [n for n in range(len(graph.tensors)) if n not in folded]
    number_of = {old: new for new, old in enumerate(kept)}

    def renumbered(op: Op) -> Op:
        pad = folded.get(op.inputs[0])
        if pad is not None:
            top, bottom, left, right = (a + b for a, b in zip(op.pads, pad.pads, strict=True))
            op = replace(op, inputs=pad.inputs, pads=(top, bottom, left, right))
        inputs = tuple(number_of[i] for i in op.inputs)
        return replace(op, inputs=inputs, output=number_of[op.output])

    return validate(
        replace(
            graph,
            tensors=tuple(graph.tensors[n] for n in kept),
            ops=tuple(renumbered(op) for op in graph.ops if op.output not in folded),
            input=number_of[graph.input],
            output=number_of[graph.output],
        )
    )
