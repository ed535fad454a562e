"""Builds float32 graphs operator by operator; shapes follow from the operators' rules."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.ir import Activation, Array, Graph, Op, OpKind, Pads, Pair, Tensor
from edgeofa.graph.ops import output_shape, same_pads, symmetric_pads, validate

Padding = Literal["same", "symmetric", "valid"] | Pads


def as_pair(size: int | Pair) -> Pair:
    """One size for both directions, or (vertical, horizontal) as given."""
    return (size, size) if isinstance(size, int) else size


class GraphBuilder:
    """Adds operators and hands out tensor numbers.

    >>> b = GraphBuilder("tiny", (1, 8, 8, 3))
    >>> y = b.conv2d(b.input, weight, bias, stride=2, padding="same", activation="relu6")
    >>> graph = b.build(b.fully_connected(b.mean(y), dense, dense_bias))

    Args:
        name: the graph's name.
        input_shape: NHWC, batch first.
    """

    def __init__(self, name: str, input_shape: tuple[int, ...]):
        if len(input_shape) < 2 or min(input_shape) < 1:
            raise UsageError(f"not an input shape: {input_shape}", where=name)
        self.name = name
        self.input = 0
        self._tensors = [Tensor("input", tuple(input_shape))]
        self._ops: list[Op] = []

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor by its number."""
        return self._tensors[tensor].shape

    def build(self, output: int) -> Graph:
        """The finished graph, validated, ending at tensor ``output``."""
        return validate(
            Graph(self.name, tuple(self._tensors), tuple(self._ops), self.input, output)
        )

    def add_op(
        self,
        kind: OpKind,
        inputs: tuple[int, ...],
        *,
        name: str | None = None,
        activation: Activation = "none",
        stride: Pair = (1, 1),
        pads: Pads = (0, 0, 0, 0),
        kernel: Pair = (0, 0),
        weight: Array | None = None,
        bias: Array | None = None,
    ) -> int:
        """Append one operator; returns its output's number."""
        op = Op(
            kind=kind,
            name=name or f"{kind}_{len(self._ops)}",
            inputs=inputs,
            output=len(self._tensors),
            activation=activation,
            stride=stride,
            pads=pads,
            kernel=kernel,
            weight=None if weight is None else np.ascontiguousarray(weight, dtype=np.float32),
            bias=None if bias is None else np.ascontiguousarray(bias, dtype=np.float32),
        )
        shape = output_shape(op, tuple(self.shape(i) for i in inputs))
        self._tensors.append(Tensor(op.name, shape))
        self._ops.append(op)
        return op.output

    def _pads(self, x: int, kernel: Pair, stride: Pair, padding: Padding) -> Pads:
        if isinstance(padding, tuple):
            return padding
        if padding == "symmetric":
            return symmetric_pads(kernel)
        if padding == "same":
            _, height, width, _ = self.shape(x)
            return same_pads((height, width), kernel, stride)
        return (0, 0, 0, 0)

    def conv2d(
        self,
        x: int,
        weight: Array,
        bias: Array,
        *,
        stride: int | Pair = 1,
        padding: Padding = "same",
        activation: Activation = "none",
        name: str | None = None,
    ) -> int:
        """Convolution; ``weight`` is OHWI."""
        step = as_pair(stride)
        pads = self._pads(x, (weight.shape[1], weight.shape[2]), step, padding)
        return self.add_op(
            "conv2d",
            (x,),
            name=name,
            activation=activation,
            stride=step,
            pads=pads,
            weight=weight,
            bias=bias,
        )

    def depthwise_conv2d(
        self,
        x: int,
        weight: Array,
        bias: Array,
        *,
        stride: int | Pair = 1,
        padding: Padding = "same",
        activation: Activation = "none",
        name: str | None = None,
    ) -> int:
        """Depthwise convolution; ``weight`` is 1HWC."""
        step = as_pair(stride)
        pads = self._pads(x, (weight.shape[1], weight.shape[2]), step, padding)
        return self.add_op(
            "depthwise_conv2d",
            (x,),
            name=name,
            activation=activation,
            stride=step,
            pads=pads,
            weight=weight,
            bias=bias,
        )

    def fully_connected(
        self,
        x: int,
        weight: Array,
        bias: Array,
        *,
        activation: Activation = "none",
        name: str | None = None,
    ) -> int:
        """Dense layer over the flattened input; ``weight`` is (out, in)."""
        return self.add_op(
            "fully_connected", (x,), name=name, activation=activation, weight=weight, bias=bias
        )

    def add(
        self, a: int, b: int, *, activation: Activation = "none", name: str | None = None
    ) -> int:
        return self.add_op("add", (a, b), name=name, activation=activation)

    def mul(
        self, a: int, b: int, *, activation: Activation = "none", name: str | None = None
    ) -> int:
        return self.add_op("mul", (a, b), name=name, activation=activation)

    def mean(self, x: int, *, name: str | None = None) -> int:
        """Average over height and width, kept as 1."""
        return self.add_op("mean", (x,), name=name)

    def average_pool2d(
        self,
        x: int,
        kernel: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: Padding = "valid",
        name: str | None = None,
    ) -> int:
        """Average of the real pixels in each window: padding is not counted (TFLite's rule)."""
        size, step = as_pair(kernel), as_pair(stride or kernel)
        pads = self._pads(x, size, step, padding)
        return self.add_op("average_pool2d", (x,), name=name, stride=step, pads=pads, kernel=size)

    def max_pool2d(
        self,
        x: int,
        kernel: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: Padding = "valid",
        name: str | None = None,
    ) -> int:
        size, step = as_pair(kernel), as_pair(stride or kernel)
        pads = self._pads(x, size, step, padding)
        return self.add_op("max_pool2d", (x,), name=name, stride=step, pads=pads, kernel=size)

    def pad(self, x: int, pads: Pads, *, name: str | None = None) -> int:
        """Zeros around the image."""
        return self.add_op("pad", (x,), name=name, pads=pads)

    def hard_swish(self, x: int, *, name: str | None = None) -> int:
        return self.add_op("hard_swish", (x,), name=name)

    def softmax(self, x: int, *, name: str | None = None) -> int:
        return self.add_op("softmax", (x,), name=name)
