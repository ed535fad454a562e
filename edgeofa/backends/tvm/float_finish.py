"""Activations of float32 vectors."""

from __future__ import annotations

from edgeofa.backends.tvm.emit import Expr, larger, smaller, splat_float
from edgeofa.graph.ir import Activation


def activate(value: Expr, activation: Activation, lanes: int) -> Expr:
    """The activation of every lane."""
    if activation == "none":
        return value
    value = larger(value, splat_float(0.0, lanes))
    return smaller(value, splat_float(6.0, lanes)) if activation == "relu6" else value
