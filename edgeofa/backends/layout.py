"""Between the graph's NHWC and the layout in which a runtime takes and gives tensors."""

from __future__ import annotations

import numpy as np

from edgeofa.backends.base import TensorSpec
from edgeofa.graph.ir import Array


def nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """An NHWC shape as NCHW; other ranks are left alone."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def to_runtime(value: Array, spec: TensorSpec) -> Array:
    """A tensor as the graph has it, as the runtime wants it."""
    return np.ascontiguousarray(value.transpose(0, 3, 1, 2) if spec.layout == "NCHW" else value)


def from_runtime(value: Array, spec: TensorSpec) -> Array:
    """A tensor as the runtime gave it, as the graph has it."""
    return np.ascontiguousarray(value.transpose(0, 2, 3, 1) if spec.layout == "NCHW" else value)
