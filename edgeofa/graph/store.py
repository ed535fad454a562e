"""A graph in one file: weights as safetensors, the description as JSON in its header.

What is read is checked whole before it is used: sizes, names, types, and then everything that any
graph obeys (:func:`edgeofa.graph.ops.validate`).
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.errors import FileFormatError, UsageError
from edgeofa.graph.ir import (
    Activation,
    Array,
    DType,
    Graph,
    Op,
    OpKind,
    Pads,
    Pair,
    Quantization,
    Tensor,
)
from edgeofa.graph.ops import validate
from edgeofa.paths import atomic_path

#: larger than any network of a microcontroller or a board that edgeofa deploys to
MAX_GRAPH_BYTES = 1 << 30
_MAX_HEADER_BYTES = 1 << 24
_MAX_DESCRIPTION = 1 << 22
_MAX_OPS = 20_000
_PARAMETERS = ("weight", "bias", "weight_scale")
_KEY = "edgeofa.graph"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TensorRecord(_Record):
    name: str = Field(max_length=1000)
    shape: tuple[int, ...] = Field(min_length=1, max_length=8)
    scale: float | None = None
    zero_point: int | None = None


class _OpRecord(_Record):
    kind: OpKind
    name: str = Field(max_length=1000)
    inputs: tuple[int, ...] = Field(min_length=1, max_length=8)
    output: int
    activation: Activation = "none"
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    kernel: Pair = (0, 0)


class _GraphRecord(_Record):
    schema_version: Literal[1] = 1
    name: str = Field(max_length=4000)
    precision: DType
    tensors: tuple[_TensorRecord, ...] = Field(min_length=1, max_length=_MAX_OPS)
    ops: tuple[_OpRecord, ...] = Field(max_length=_MAX_OPS)
    input: int
    output: int


def save_graph(graph: Graph, path: Path) -> str:
    """Write the graph, whole or not at all; the SHA-256 of the file."""
    from safetensors.numpy import save_file

    arrays: dict[str, Array] = {}
    for number, op in enumerate(graph.ops):
        for name in _PARAMETERS:
            value = getattr(op, name)
            if value is not None:
                arrays[f"{number}.{name}"] = np.ascontiguousarray(value)
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={_KEY: _describe(graph).model_dump_json()})
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def load_graph(path: Path) -> Graph:
    """Read a graph back; ``FileFormatError`` for anything that :func:`save_graph` cannot write."""
    from safetensors import SafetensorError, safe_open

    check_header(path, MAX_GRAPH_BYTES)
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_KEY, "")
            if not text or len(text) > _MAX_DESCRIPTION:
                raise FileFormatError("it describes no graph", where=path)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _graph(_GraphRecord.model_validate_json(text), arrays, path)
    except (SafetensorError, ValidationError) as error:
        raise FileFormatError(f"not a stored graph: {error}", where=path) from error
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror or error}", where=path) from error
    except UsageError as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"not a valid graph: {error}", where=path) from error


def check_header(path: Path, max_bytes: int) -> None:
    """``FileFormatError`` unless ``path`` can be a safetensors file of at most ``max_bytes``."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror or error}", where=path) from error
    if not 8 < size <= max_bytes:
        raise FileFormatError(f"{size} bytes; 9 to {max_bytes} are possible", where=path)
    if length > min(size - 8, _MAX_HEADER_BYTES):
        raise FileFormatError("it is cut off, or not a safetensors file", where=path)


def _describe(graph: Graph) -> _GraphRecord:
    return _GraphRecord(
        name=graph.name,
        precision=graph.precision,
        tensors=tuple(
            _TensorRecord(name=t.name, shape=t.shape)
            if t.quantization is None
            else _TensorRecord(
                name=t.name,
                shape=t.shape,
                scale=t.quantization.scale,
                zero_point=t.quantization.zero_point,
            )
            for t in graph.tensors
        ),
        ops=tuple(
            _OpRecord(**{name: getattr(op, name) for name in _OpRecord.model_fields})
            for op in graph.ops
        ),
        input=graph.input,
        output=graph.output,
    )


def _graph(record: _GraphRecord, arrays: dict[str, Array], path: Path) -> Graph:
    known = {f"{i}.{name}" for i in range(len(record.ops)) for name in _PARAMETERS}
    if unknown := sorted(set(arrays) - known):
        raise FileFormatError(f"a tensor of no operator: {unknown[0][:80]!r}", where=path)
    for tensor in record.tensors:
        if not all(1 <= n <= 1 << 20 for n in tensor.shape) or math.prod(tensor.shape) > 1 << 28:
            raise FileFormatError(f"tensor {tensor.name} has shape {tensor.shape}", where=path)
    graph = Graph(
        name=record.name,
        tensors=tuple(Tensor(t.name, t.shape, _quantization(t)) for t in record.tensors),
        ops=tuple(
            Op(
                kind=op.kind,
                name=op.name,
                inputs=op.inputs,
                output=op.output,
                activation=op.activation,
                stride=op.stride,
                pads=op.pads,
                kernel=op.kernel,
                weight=arrays.get(f"{number}.weight"),
                bias=arrays.get(f"{number}.bias"),
                weight_scale=arrays.get(f"{number}.weight_scale"),
            )
            for number, op in enumerate(record.ops)
        ),
        input=record.input,
        output=record.output,
    )
    for op in record.ops:
        if not all(0 <= n < len(graph.tensors) for n in (*op.inputs, op.output)):
            raise FileFormatError(f"operator {op.name} names no tensor", where=path)
    validate(graph)
    if graph.precision != record.precision:
        raise FileFormatError(f"it is {graph.precision}, not {record.precision}", where=path)
    return graph


def _quantization(tensor: _TensorRecord) -> Quantization | None:
    if tensor.scale is None or tensor.zero_point is None:
        return None
    return Quantization(tensor.scale, tensor.zero_point)
