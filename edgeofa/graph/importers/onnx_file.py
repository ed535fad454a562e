"""An .onnx file, read with bounds: what the importer may ask of it.

The file is a protocol buffer of one message. Counts, dimensions and sizes are checked before an
array is made; data outside the file is never opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from edgeofa.errors import FileFormatError, UnsupportedOperator
from edgeofa.graph.ir import Array

_LARGEST_FILE_BYTES = 256 << 20
_MOST_NODES = 1 << 14
_MOST_CONSTANTS = 1 << 15
_MOST_DIMENSIONS = 6
_MOST_ELEMENTS = 1 << 27
_MOST_OPERANDS = 64
_MOST_ATTRIBUTES = 64
#: of names, in messages
_SHOWN = 120
#: older ones read some operators otherwise (Gemm's broadcast, batch norm's modes)
_OLDEST_OPSET = 9
_DOMAINS = ("", "ai.onnx")
_DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}


@dataclass(frozen=True)
class Node:
    """One node: its index in the file, its kind as ONNX calls it, the names that it reads."""

    index: int
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.index}.{self.kind.lower()}"

    def optional(self, position: int) -> str | None:
        name = self.inputs[position] if position < len(self.inputs) else ""
        return name or None

    def input(self, position: int) -> str:
        name = self.optional(position)
        if name is None:
            raise FileFormatError(f"input {position} is missing", where=self.place)
        return name


@dataclass(frozen=True)
class End:
    """The network's input or output; ``open`` are the dimensions that the file leaves open, which
    are 1 in ``shape``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    open: tuple[int, ...]


class OnnxFile:
    """The graph of an .onnx file."""

    def __init__(self, source: Path | bytes):
        if isinstance(source, Path):
            if source.stat().st_size > _LARGEST_FILE_BYTES:
                raise FileFormatError(f"larger than {_LARGEST_FILE_BYTES >> 20} MiB", where=source)
            source = source.read_bytes()
        model = onnx.ModelProto()
        try:
            model.ParseFromString(source)
        except DecodeError as error:
            raise FileFormatError(f"no .onnx file: {error}", where="model") from error
        self._graph = graph = model.graph
        if not graph.node:
            raise FileFormatError("no .onnx file, or one without nodes", where="model")
        for what, count, most in (
            ("nodes", len(graph.node), _MOST_NODES),
            ("initialisers", len(graph.initializer), _MOST_CONSTANTS),
            ("inputs", len(graph.input), _MOST_CONSTANTS),
        ):
            if count > most:
                raise FileFormatError(f"{count} {what}; at most {most}", where="model")
        if model.functions or graph.sparse_initializer:
            raise UnsupportedOperator("functions or sparse initialisers", where="model")
        opsets = {o.domain: o.version for o in model.opset_import}
        self.opset = max((opsets.get(d, 0) for d in _DOMAINS), default=0)
        if self.opset < _OLDEST_OPSET:
            raise UnsupportedOperator(
                f"operator set {self.opset}",
                where="model",
                hint=f"export it again with operator set {_OLDEST_OPSET} or newer",
            )
        self.constants: dict[str, Array] = {}
        for tensor in graph.initializer:
            if not tensor.name or tensor.name in self.constants:
                raise FileFormatError(f"two initialisers {shown(tensor.name)}", where="model")
            self.constants[tensor.name] = _array(tensor)

    @cached_property
    def input(self) -> End:
        free = [v for v in self._graph.input if v.name not in self.constants]
        return _end(free, "input")

    @cached_property
    def output(self) -> End:
        return _end(list(self._graph.output), "output")

    def nodes(self) -> Iterator[Node]:
        """The nodes in the file's order, which must be one of execution."""
        for index, node in enumerate(self._graph.node):
            kind, where = shown(node.op_type), str(index)
            if node.domain not in _DOMAINS and kind not in ("QuantizeLinear", "DequantizeLinear"):
                raise UnsupportedOperator(
                    f"node {index}, {kind}: of the domain {shown(node.domain)}", where=where
                )
            if max(len(node.input), len(node.output)) > _MOST_OPERANDS:
                raise FileFormatError(f"node {index}, {kind}: too many operands", where=where)
            if len(node.attribute) > _MOST_ATTRIBUTES:
                raise FileFormatError(f"node {index}, {kind}: too many attributes", where=where)
            outputs = [name for name in node.output if name]
            # dropout and batch norm may name outputs that only a training reads
            if len(outputs) != 1 and kind not in ("Dropout", "BatchNormalization"):
                raise UnsupportedOperator(
                    f"node {index}, {kind}: {len(outputs)} outputs", where=where
                )
            if not outputs:
                raise FileFormatError(f"node {index}, {kind}: no output", where=where)
            attributes = {a.name: _attribute(a, index, kind) for a in node.attribute}
            yield Node(index, kind, tuple(node.input), outputs[0], attributes)


def shown(name: str) -> str:
    """A name as a message may hold it."""
    return repr(name[:_SHOWN])[1:-1]


def _end(found: list[Any], what: str) -> End:
    if len(found) != 1:
        raise UnsupportedOperator(f"{len(found)} {what}s; only one", where="model")
    (value,) = found
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type not in _DTYPES:
        raise UnsupportedOperator(f"the {what} is no tensor of a known type", where="model")
    given = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    # some exporters write 0 or -1 for what is open
    dims = [max(d, 1) for d in given]
    if len(dims) > _MOST_DIMENSIONS or max(dims, default=1) > _MOST_ELEMENTS:
        raise FileFormatError(f"the {what} has shape {dims[:8]}", where="model")
    if prod(dims) > _MOST_ELEMENTS:
        raise FileFormatError(f"the {what} has shape {dims}", where="model")
    unknown = tuple(axis for axis, d in enumerate(given) if d < 1)
    return End(value.name, tuple(dims), _DTYPES[tensor.elem_type], unknown)


def _array(tensor: Any) -> Array:
    """The content of a tensor that lies in the file, whole."""
    where = shown(tensor.name) or "a constant"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise FileFormatError(
            "its data lies outside the file",
            where=where,
            hint="save the model in one file: onnx.save(model, FILE, save_as_external_data=False)",
        )
    if tensor.data_type not in _DTYPES:
        raise UnsupportedOperator(f"a constant of type {tensor.data_type}", where=where)
    dims = list(tensor.dims)
    if len(dims) > _MOST_DIMENSIONS or any(not 0 <= d <= _MOST_ELEMENTS for d in dims):
        raise FileFormatError(f"shape {dims[:8]}", where=where)
    if prod(dims) > _MOST_ELEMENTS:
        raise FileFormatError(f"shape {dims}", where=where)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"its content is not that of its shape: {error}", where=where) from (
            error
        )
    if array.shape != tuple(dims):
        raise FileFormatError(f"{array.shape} instead of {tuple(dims)}", where=where)
    return np.asarray(array)


def _attribute(attribute: Any, index: int, kind: str) -> Any:
    """A number, a text, a list of numbers or a constant tensor."""
    where = f"{index}.{kind.lower()}"
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        raise UnsupportedOperator(f"node {index}, {kind}: it holds a graph", where=where)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _array(attribute.t)
    try:
        value = helper.get_attribute_value(attribute)
    except ValueError as error:
        raise FileFormatError(f"attribute {shown(attribute.name)}: {error}", where=where) from error
    return value.decode(errors="replace") if isinstance(value, bytes) else value
