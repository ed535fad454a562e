"""Graph construction with values that are stored a constant factor too large.

``relu6(x + 3) / 6`` is cheap as ``relu6(x + 3)`` and a remark that the result is 6 times too large.
A :class:`Value` carries that remark through means, pools, muls and adds until a linear operator
divides it out of its weights, where it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.ir import Activation, Array, Graph, Op, Quantization, Tensor
from edgeofa.graph.ops import RULES, channel_axis, output_shape, validate

#: operators through which a positive factor on the input passes to the output
_HOMOGENEOUS = frozenset({"mean", "average_pool2d", "max_pool2d", "pad"})


@dataclass(frozen=True)
class Value:
    """Tensor number and gain: the true value is ``stored / gain``; ``gain`` is positive."""

    tensor: int
    gain: float = 1.0


class GainBuilder:
    """A float32 graph under construction whose operators take and give :class:`Value`."""

    def __init__(self, name: str, input_tensor: Tensor):
        self.name = name
        self.input = Value(0)
        self._tensors = [input_tensor]
        self._ops: list[Op] = []
        self._producer: dict[int, int] = {}
        self._normal: dict[Value, Value] = {}

    def shape(self, value: Value) -> tuple[int, ...]:
        return self._tensors[value.tensor].shape

    def producer(self, value: Value) -> Op | None:
        """The operator that writes the value's tensor; None for the input."""
        index = self._producer.get(value.tensor)
        return None if index is None else self._ops[index]

    def amend(self, value: Value, op: Op) -> Value:
        """Put ``op`` in the place of the operator that wrote ``value``; same output shape."""
        self._ops[self._producer[value.tensor]] = op
        return value

    def build(
        self, output: Value, stored: Mapping[int, Quantization] = MappingProxyType({})
    ) -> Graph:
        """The finished graph, validated; ``stored`` quantises tensors of an int8 graph."""
        final = self.normal(output)
        tensors = tuple(replace(t, quantization=stored.get(n)) for n, t in enumerate(self._tensors))
        return validate(Graph(self.name, tensors, tuple(self._ops), 0, final.tensor))

    def scale_producer(self, value: Value, scale: Array | float, offset: Array | float) -> Value:
        """``scale * value + offset`` per channel inside the linear operator that wrote ``value``,
        which must be its only reader's."""
        op = self._ops[self._producer[value.tensor]]
        weight, bias = op.linear
        factor = np.broadcast_to(scale / np.float64(value.gain), bias.shape)
        shape = [1] * weight.ndim
        shape[channel_axis(op)] = -1
        amended = replace(
            op,
            weight=(weight * factor.reshape(shape)).astype(np.float32),
            bias=(bias * factor + offset).astype(np.float32),
        )
        return self.amend(Value(value.tensor), amended)

    def _emit(self, op: Op, inputs: list[Value], gain: float) -> Value:
        op = replace(op, inputs=tuple(v.tensor for v in inputs), output=len(self._tensors))
        shape = output_shape(op, tuple(self.shape(v) for v in inputs))
        self._tensors.append(Tensor(op.name, shape))
        self._producer[op.output] = len(self._ops)
        self._ops.append(op)
        return Value(op.output, gain)

    def affine(
        self,
        x: Value,
        name: str,
        scale: Array | float,
        offset: Array | float,
        activation: Activation = "none",
    ) -> Value:
        """``activation(scale * x + offset)``, per channel, as a 1x1 depthwise convolution."""
        shape = self.shape(x)
        if len(shape) != 4:
            raise UsageError(f"no per-channel scale of a flat tensor {shape}", where=name)
        channels = shape[3]
        weight = np.broadcast_to(np.asarray(scale, dtype=np.float64) / x.gain, (channels,))
        bias = np.broadcast_to(np.asarray(offset, dtype=np.float64), (channels,))
        op = Op(
            "depthwise_conv2d",
            name,
            (),
            0,
            activation=activation,
            weight=weight.astype(np.float32).reshape(1, 1, 1, channels),
            bias=bias.astype(np.float32),
        )
        return self._emit(op, [x], 1.0)

    def normal(self, x: Value) -> Value:
        """The same value with its factor divided out."""
        if x.gain == 1.0:
            return x
        if x not in self._normal:
            name = f"{self._tensors[x.tensor].name}.rescale"
            self._normal[x] = self.affine(x, name, 1.0, 0.0)
        return self._normal[x]

    def gate(self, x: Value, name: str) -> Value:
        """Hard sigmoid: ``relu6(x + 3)``, 6 times too large."""
        return replace(self.affine(x, name, 1.0, 3.0, "relu6"), gain=6.0)

    def add_op(self, op: Op, inputs: list[Value]) -> Value:
        """Append ``op`` (its tensor numbers are ignored), taking care of its inputs' gains."""
        gains = [v.gain for v in inputs]
        if RULES[op.kind].weighted:
            weight, _ = op.linear
            if gains[0] != 1.0:
                op = replace(op, weight=(weight / np.float64(gains[0])).astype(np.float32))
            return self._emit(op, inputs, 1.0)
        homogeneous = op.kind in _HOMOGENEOUS or op.kind == "mul"
        homogeneous = homogeneous or (op.kind == "add" and gains[0] == gains[1])
        if op.activation == "relu6" or not homogeneous:
            return self._emit(op, [self.normal(v) for v in inputs], 1.0)
        return self._emit(op, inputs, gains[0] * gains[1] if op.kind == "mul" else gains[0])
