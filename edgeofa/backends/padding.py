"""How explicit pads are expressed by runtimes that know TensorFlow's ``SAME`` and ``VALID``."""

from __future__ import annotations

from typing import Literal

from edgeofa.graph.ir import Graph, Op, Pads

Padding = Literal["valid", "same", "explicit"]


def window(op: Op) -> int:
    """Edge of the square window that a convolution or a pool slides over its input."""
    return op.kernel if op.weight is None else int(op.weight.shape[1])


def same_pads(height: int, width: int, kernel: int, stride: int) -> Pads:
    """TensorFlow's ``SAME``: an odd pixel goes to the bottom and to the right."""
    total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (height, width)]
    return (
        total[0] // 2,
        total[0] - total[0] // 2,
        total[1] // 2,
        total[1] - total[1] // 2,
    )


def padding_of(graph: Graph, op: Op) -> Padding:
    """Which of the three ways gives exactly ``op.pads``."""
    if not any(op.pads):
        return "valid"
    _, height, width, _ = graph.shape(op.inputs[0])
    if op.pads == same_pads(height, width, window(op), op.stride):
        return "same"
    return "explicit"
