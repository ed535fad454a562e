"""The one representation of a network: what importers produce and back ends consume.

A graph has one input and one output, batch 1, NHWC. Activations are ``Tensor``s, numbered by
their place in ``Graph.tensors``; weights live in the operators. A graph is float32 as a whole or
int8 as a whole (the TFLite int8 quantisation specification: per-channel symmetric weights, int32
bias with scale ``input scale * weight scale``, asymmetric per-tensor activations).

Weight layouts are TFLite's: convolution OHWI, depthwise 1HWC, fully connected (out, in).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import UsageError

Array = NDArray[Any]
DType = Literal["float32", "int8"]
Activation = Literal["none", "relu", "relu6"]
#: (vertical, horizontal), in pixels
Pair = tuple[int, int]
#: (top, bottom, left, right) zero padding, in pixels
Pads = tuple[int, int, int, int]

OpKind = Literal[
    "conv2d",
    "depthwise_conv2d",
    "fully_connected",
    "add",
    "mul",
    "mean",
    "average_pool2d",
    "max_pool2d",
    "pad",
    "hard_swish",
    "softmax",
]


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (stored - zero_point)`` for int8 activations."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Tensor:
    """An activation: name, shape (batch first, NHWC), and its quantisation when int8."""

    name: str
    shape: tuple[int, ...]
    quantization: Quantization | None = None

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))

    @property
    def dtype(self) -> DType:
        return "float32" if self.quantization is None else "int8"

    @property
    def nbytes(self) -> int:
        return self.elements * (4 if self.quantization is None else 1)


@dataclass(frozen=True, eq=False)
class Op:
    """One operator.

    ``inputs`` and ``output`` are tensor numbers. ``name`` is the operator's place in the module
    that it came from and appears in error messages. ``kernel`` serves the pools only: the size of
    a convolution's kernel is its weight's. ``weight_scale`` is present exactly when the graph is
    int8: one per output channel, or a single one for a whole dense layer, whose rounding differs.
    ``mean`` averages over height and width and keeps them as 1.
    ``fully_connected`` flattens its input.
    """

    kind: OpKind
    name: str
    inputs: tuple[int, ...]
    output: int
    activation: Activation = "none"
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    kernel: Pair = (0, 0)
    weight: Array | None = None
    bias: Array | None = None
    weight_scale: Array | None = None

    @property
    def linear(self) -> tuple[Array, Array]:
        """Weight and bias of an operator that has them; ``UsageError`` of one that has not."""
        if self.weight is None or self.bias is None:
            raise UsageError(f"{self.kind} has no weight and bias", where=self.name)
        return self.weight, self.bias


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: tensors, operators in execution order, one input and one output."""

    name: str
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    input: int
    output: int

    @property
    def precision(self) -> DType:
        return self.tensors[self.input].dtype

    @property
    def input_tensor(self) -> Tensor:
        return self.tensors[self.input]

    @property
    def output_tensor(self) -> Tensor:
        return self.tensors[self.output]

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.tensors[tensor].shape
