"""How explicit pads are expressed by runtimes that know TensorFlow's ``SAME`` and ``VALID``."""

from __future__ import annotations

from typing import Literal

from edgeofa.graph.ir import Graph, Op
from edgeofa.graph.ops import same_pads, window_size

Padding = Literal["valid", "same", "explicit"]


def padding_of(graph: Graph, op: Op) -> Padding:
    """Which of the three ways gives exactly ``op.pads``."""
    if not any(op.pads):
        return "valid"
    _, height, width, _ = graph.shape(op.inputs[0])
    if op.pads == same_pads((height, width), window_size(op), op.stride):
        return "same"
    return "explicit"
