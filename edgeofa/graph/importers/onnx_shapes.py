"""Operators that only say how a tensor is seen: they become remarks, not operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgeofa.graph.importers.onnx import TO_NCHW, TO_NHWC, Handler, Importer
from edgeofa.graph.importers.onnx_constants import fold
from edgeofa.graph.importers.onnx_file import Node
from edgeofa.graph.importers.onnx_values import Const, Operand, Stream


def _flatten(im: Importer, node: Node) -> Operand:
    source = im.stream(node)
    logical = im.logical_shape(source)
    if int(node.attributes.get("axis", 1)) % (len(logical) + 1) != 1:
        raise im.unsupported(node, "only from axis 1")
    return _reshaped(im, node, source, (1, int(np.prod(logical[1:]))))


def _reshape(im: Importer, node: Node) -> Operand:
    if isinstance(im.values[node.input(0)], Const):
        return fold(im, node)
    source, wanted = im.stream(node), im.numbers(node, 1, "shape")
    logical = im.logical_shape(source)
    if wanted is None or len(wanted) > 6:
        raise im.unsupported(node, "a shape that is no constant")
    new = [int(w) for w in wanted]
    new = [logical[i] if w == 0 and i < len(logical) else w for i, w in enumerate(new)]
    known = int(np.prod([w for w in new if w != -1]))
    total = int(np.prod(logical))
    if new.count(-1) == 1 and known > 0 and total % known == 0:
        new[new.index(-1)] = total // known
    if min(new) < 1 or int(np.prod(new)) != total:
        raise im.unsupported(node, f"{logical} to {new}")
    return _reshaped(im, node, source, tuple(new))


def _reshaped(im: Importer, node: Node, source: Stream, new: tuple[int, ...]) -> Stream:
    """What changes no stored byte, or only the order that a dense layer reads in."""
    logical, shape = im.logical_shape(source), im.shape(source)
    if new == logical:
        return source
    if new == (1, int(np.prod(logical))):
        pixels = int(np.prod(shape[1:-1]))
        return replace(
            source, order="flat NCHW" if source.order == "NCHW" and pixels > 1 else "flat"
        )
    if source.order == "flat" and len(shape) == 4 and shape[1:3] == (1, 1):
        if new == (1, shape[3], 1, 1):
            return replace(source, order="NCHW")
        if new == shape:
            return replace(source, order="NHWC")
    raise im.unsupported(node, f"{logical} to {new}, more than flattening")


def _squeeze(im: Importer, node: Node) -> Operand:
    if isinstance(im.values[node.input(0)], Const):
        return fold(im, node)
    source, axes = im.stream(node), im.numbers(node, 1, "axes")
    logical = im.logical_shape(source)
    gone = {int(a) % len(logical) for a in axes} if axes else set(range(1, len(logical)))
    new = tuple(n for i, n in enumerate(logical) if i not in gone or n != 1)
    return _reshaped(im, node, source, new)


def _unsqueeze(im: Importer, node: Node) -> Operand:
    if isinstance(im.values[node.input(0)], Const):
        return fold(im, node)
    source, axes = im.stream(node), im.numbers(node, 1, "axes") or []
    logical = list(im.logical_shape(source))
    for axis in sorted(int(a) % (len(logical) + len(axes)) for a in axes):
        logical.insert(axis, 1)
    return _reshaped(im, node, source, tuple(logical))


def _transpose(im: Importer, node: Node) -> Operand:
    if isinstance(im.values[node.input(0)], Const):
        return fold(im, node)
    source = im.stream(node)
    rank = len(im.logical_shape(source))
    perm = tuple(int(p) for p in node.attributes.get("perm", range(rank - 1, -1, -1)))
    if perm == tuple(range(rank)):
        return source
    if source.order == "NHWC" and perm == TO_NCHW:
        return replace(source, order="NCHW")
    if source.order == "NCHW" and perm == TO_NHWC:
        return replace(source, order="NHWC")
    raise im.unsupported(node, f"perm {perm} of {im.logical_shape(source)}")


def _same(im: Importer, node: Node) -> Operand:
    return im.values[node.input(0)]


def _cast(im: Importer, node: Node) -> Operand:
    if isinstance(im.values[node.input(0)], Const):
        return fold(im, node)
    raise im.unsupported(node, "of an activation")


SHAPE_HANDLERS: Mapping[str, Handler] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
}
