"""Rewrites that keep a graph's function and change its operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.ir import Array, Graph, Op, Tensor
from edgeofa.graph.ops import RULES, validate

#: operators through which a positive factor on the input passes to the output
_LINEAR = frozenset({"mean", "average_pool2d", "max_pool2d", "pad"})


class _Rewriter:
    """A graph under construction; ``gain[t]`` is how many times too large tensor ``t`` is."""

    def __init__(self, graph: Graph):
        self.tensors: list[Tensor] = [graph.input_tensor]
        self.ops: list[Op] = []
        self.number = {graph.input: 0}
        self.gain: dict[int, float] = {0: 1.0}
        self._normal: dict[int, int] = {}

    def emit(self, op: Op, shape: tuple[int, ...], gain: float) -> int:
        out = len(self.tensors)
        self.tensors.append(Tensor(op.name, shape))
        self.ops.append(replace(op, output=out))
        self.gain[out] = gain
        return out

    def scaled_depthwise(self, x: int, name: str, scale: float, offset: float, op: Op) -> int:
        """``activation(scale * x + offset)`` as a 1x1 depthwise convolution."""
        shape = self.tensors[x].shape
        weight: Array = np.full((1, 1, 1, shape[3]), scale, dtype=np.float32)
        bias: Array = np.full(shape[3], offset, dtype=np.float32)
        made = replace(
            op, kind="depthwise_conv2d", name=name, inputs=(x,), weight=weight, bias=bias
        )
        return self.emit(made, shape, 1.0)

    def normal(self, x: int) -> int:
        """``x`` itself, or a tensor that has its factor divided out."""
        if self.gain[x] == 1.0:
            return x
        if x not in self._normal:
            name = f"{self.tensors[x].name}.rescale"
            plain = Op("depthwise_conv2d", name, (x,), 0)
            self._normal[x] = self.scaled_depthwise(x, name, 1 / self.gain[x], 0.0, plain)
        return self._normal[x]


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
    r = _Rewriter(graph)
    for op in graph.ops:
        inputs = [r.number[i] for i in op.inputs]
        r.number[op.output] = _rewrite_op(r, op, inputs, graph.shape(op.output))
    output = r.normal(r.number[graph.output])
    return validate(
        replace(graph, tensors=tuple(r.tensors), ops=tuple(r.ops), input=0, output=output)
    )


def _rewrite_op(r: _Rewriter, op: Op, inputs: list[int], shape: tuple[int, ...]) -> int:
    gains = [r.gain[i] for i in inputs]
    if op.kind == "hard_swish" and len(shape) == 4:
        gate_op = Op("depthwise_conv2d", "", (), 0, activation="relu6")
        gate = r.scaled_depthwise(inputs[0], f"{op.name}.gate", 1 / gains[0], 3.0, gate_op)
        product = Op("mul", f"{op.name}.mul", (inputs[0], gate), 0)
        return r.emit(product, shape, 6.0 * gains[0])
    if RULES[op.kind].weighted:
        weight, _ = op.linear
        scaled = weight if gains[0] == 1.0 else (weight / gains[0]).astype(np.float32)
        return r.emit(replace(op, inputs=tuple(inputs), weight=scaled), shape, 1.0)
    passes = op.activation != "relu6" and (
        op.kind in _LINEAR or op.kind == "mul" or (op.kind == "add" and gains[0] == gains[1])
    )
    if not passes:
        inputs = [r.normal(i) for i in inputs]
        return r.emit(replace(op, inputs=tuple(inputs)), shape, 1.0)
    gain = gains[0] * gains[1] if op.kind == "mul" else gains[0]
    return r.emit(replace(op, inputs=tuple(inputs)), shape, gain)
