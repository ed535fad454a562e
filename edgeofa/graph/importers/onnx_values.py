"""What a name of an .onnx file stands for: a constant, or an activation on its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeofa.graph.gains import Value
from edgeofa.graph.ir import Array, Quantization

#: how the file sees a tensor: an image, or flat with its elements in the order of an image's
Order = Literal["NCHW", "NHWC", "flat", "flat NCHW"]


@dataclass(frozen=True, eq=False)
class Const:
    """A constant as stored; with ``scale`` (one, or one for each index of ``axis``) it stands for
    ``scale * (stored - zero_point)``."""

    stored: Array
    scale: Array | None = None
    zero_point: int = 0
    axis: int = 0

    @property
    def real(self) -> Array:
        if self.scale is None:
            return self.stored.astype(np.float64)
        shape = [1] * self.stored.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        scale = self.scale.astype(np.float64).reshape(shape if self.stored.ndim else ())
        return (self.stored.astype(np.float64) - self.zero_point) * scale


@dataclass(frozen=True, eq=False)
class Stream:
    """An activation on its way: the tensor that carries it, and how the file sees it.

    ``declared`` is its quantisation where the file means stored numbers, None where it means real
    ones; ``limits`` is a clip that its next quantisation has to imply; ``exclusive``: nobody else
    reads the tensor, so that an operator may be fused into its producer.
    """

    value: Value
    order: Order
    declared: Quantization | None = None
    limits: tuple[float, float] | None = None
    exclusive: bool = False


Operand = Stream | Const
