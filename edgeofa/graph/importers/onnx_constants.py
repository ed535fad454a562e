"""Constants that an .onnx file computes: exporters write shapes as small programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import TensorProto

from edgeofa.graph.importers.onnx import Handler, Importer
from edgeofa.graph.importers.onnx_file import Node
from edgeofa.graph.importers.onnx_values import Const, Operand
from edgeofa.graph.ir import Array

#: what is computed of shapes is small; a weight may be rearranged, which does not enlarge it
_MOST_COMPUTED = 256
_MOST_DIMENSIONS = 6
_CASTS: Mapping[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
}


def constant(im: Importer, node: Node) -> Operand:
    for name, kind in (("value", None), ("value_float", np.float32), ("value_int", np.int64)):
        if name in node.attributes:
            return Const(np.asarray(node.attributes[name], dtype=kind))
    for name, kind in (("value_floats", np.float32), ("value_ints", np.int64)):
        if name in node.attributes:
            return Const(np.asarray(node.attributes[name], dtype=kind))
    raise im.unsupported(node, "a constant of another kind")


def shape(im: Importer, node: Node) -> Operand:
    source = im.values[node.input(0)]
    known = source.stored.shape if isinstance(source, Const) else im.logical_shape(source)
    if "start" in node.attributes or "end" in node.attributes:
        known = known[node.attributes.get("start", 0) : node.attributes.get("end")]
    return Const(np.array(known, np.int64))


def fold(im: Importer, node: Node) -> Operand:
    """The node computed, all of whose inputs must be constants."""
    inputs = [im.const(node, i) for i in range(len(node.inputs)) if node.optional(i)]
    values = [c.real if c.scale is not None else c.stored for c in inputs if c is not None]
    if len(values) != len(inputs) or not values:
        raise im.unsupported(node, "an input that is no constant")
    first = inputs[0]
    if node.kind == "Transpose" and first is not None and first.scale is not None:
        return _transposed(node, first)
    largest = max(value.size for value in values)
    if node.kind not in _REARRANGED and largest > _MOST_COMPUTED:
        raise im.unsupported(node, f"of a constant of {largest} elements")
    result = _FOLDED[node.kind](im, node, values)
    if result.ndim > _MOST_DIMENSIONS:
        raise im.unsupported(node, f"a constant of {result.ndim} dimensions")
    return Const(result)


def _transposed(node: Node, source: Const) -> Const:
    """A quantised weight, still as stored."""
    rank = source.stored.ndim
    perm = [int(p) for p in node.attributes.get("perm", range(rank - 1, -1, -1))]
    return Const(
        source.stored.transpose(perm), source.scale, source.zero_point, perm.index(source.axis)
    )


def _axes(node: Node, values: list[Array]) -> list[int]:
    given = values[1].reshape(-1).tolist() if len(values) > 1 else node.attributes.get("axes", [])
    return [int(a) for a in given]


def _cast(im: Importer, node: Node, values: list[Array]) -> Array:
    kind = _CASTS.get(int(node.attributes.get("to", 0)))
    if kind is None:
        raise im.unsupported(node, "to another type")
    return values[0].astype(kind)


def _gather(_im: Importer, node: Node, values: list[Array]) -> Array:
    axis = int(node.attributes.get("axis", 0))
    return np.take(values[0], values[1].astype(np.int64), axis=axis)


def _concat(_im: Importer, node: Node, values: list[Array]) -> Array:
    return np.concatenate(values, axis=int(node.attributes.get("axis", 0)))


def _unsqueeze(_im: Importer, node: Node, values: list[Array]) -> Array:
    return np.expand_dims(values[0], tuple(_axes(node, values)))


def _squeeze(_im: Importer, node: Node, values: list[Array]) -> Array:
    return np.squeeze(values[0], tuple(_axes(node, values)) or None)


def _reshape(_im: Importer, _node: Node, values: list[Array]) -> Array:
    return values[0].reshape([int(n) for n in values[1].reshape(-1)])


def _transpose(_im: Importer, node: Node, values: list[Array]) -> Array:
    return values[0].transpose(node.attributes.get("perm"))


def _arithmetic(_im: Importer, node: Node, values: list[Array]) -> Array:
    operation = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[node.kind]
    with np.errstate(all="ignore"):
        return np.asarray(operation(values[0], values[1]))


_FOLDED: Mapping[str, Callable[[Importer, Node, list[Array]], Array]] = {
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
}
_REARRANGED = ("Cast", "Unsqueeze", "Squeeze", "Reshape", "Transpose")

CONSTANT_HANDLERS: Mapping[str, Handler] = {
    "Constant": constant,
    "Shape": shape,
    "Gather": fold,
    "Concat": fold,
}
