"""Parts of an artifact, cut from the very file that is deployed.

What a runtime does in the middle of a network cannot be seen from outside. So the network is cut:
a part keeps the file's own operators, constants and quantisation, begins at one activation and
ends at another, and is a model by itself. A fault that lies in the file or in the runtime's
kernels shows in the part that it is in.

Activations are named by the tensors of the deployment's graph. A tensor that a file does not have
(onnxruntime's convolutions absorb pads) has no part that ends at it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from edgeofa.backends.base import TensorSpec
from edgeofa.backends.layout import nchw
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.graph.ir import Graph, Tensor

#: back ends whose artifacts can be cut
CUTTABLE = ("litert", "onnxruntime")


class Cuts(ABC):
    """The parts of one artifact."""

    @abstractmethod
    def has(self, tensor: int) -> bool:
        """Whether the file has this activation of the graph."""

    @abstractmethod
    def part(self, source: int, sink: int) -> bytes:
        """The model from activation ``source`` to activation ``sink``.

        Raises ``FileFormatError`` when ``sink`` needs more than ``source`` and constants.
        """

    @abstractmethod
    def spec(self, tensor: int) -> TensorSpec:
        """How a part takes or gives this activation."""


def open_cuts(path: Path, backend: str, graph: Graph) -> Cuts:
    """``FileFormatError`` when the file is not one of ``backend`` or not of this graph."""
    if backend == "litert":
        return _TfliteCuts(path, graph)
    if backend == "onnxruntime":
        return _OnnxCuts(path, graph)
    raise UsageError(f"artifacts of {backend} cannot be cut", where=path)


class _TfliteCuts(Cuts):
    def __init__(self, path: Path, graph: Graph):
        self._path = path
        self._graph = graph
        self._model = read_tflite(path)
        if len(self._model.subgraphs) != 1:
            raise FileFormatError("it has several subgraphs", where=path)
        tensors = self._model.subgraphs[0].tensors
        names = {_text(t.name): i for i, t in enumerate(tensors)}
        by_name = len({t.name for t in graph.tensors}) == len(graph.tensors)
        self._numbers: dict[int, int] = {}
        for number, tensor in enumerate(graph.tensors):
            found = names.get(tensor.name) if by_name else number
            if found is not None and found < len(tensors):
                self._numbers[number] = found
        for end in (graph.input, graph.output):
            if end not in self._numbers:
                raise FileFormatError(
                    f"it has no tensor {graph.tensors[end].name}: not of this graph", where=path
                )

    def has(self, tensor: int) -> bool:
        return tensor in self._numbers

    def spec(self, tensor: int) -> TensorSpec:
        return _spec(self._graph.tensors[tensor], "NHWC")

    def part(self, source: int, sink: int) -> bytes:
        from edgeofa.backends.litert import pack_model

        model = copy.copy(self._model)
        body = copy.copy(model.subgraphs[0])
        begin, end = self._numbers[source], self._numbers[sink]
        writers = {int(o): op for op in body.operators for o in op.outputs}
        needed, open_ends, seen = [], [end], {begin}
        while open_ends:
            number = open_ends.pop()
            if number in seen:
                continue
            seen.add(number)
            writer = writers.get(number)
            if writer is None:
                if self._is_constant(body.tensors[number]):
                    continue
                raise FileFormatError(
                    f"{_text(body.tensors[end].name)} needs {_text(body.tensors[number].name)} too",
                    where=self._path,
                )
            needed.append(writer)
            open_ends += [int(i) for i in writer.inputs if i >= 0]
        body.operators = [op for op in body.operators if any(op is n for n in needed)]
        body.inputs, body.outputs = [begin], [end]
        used = {int(i) for op in body.operators for i in op.inputs}
        kept = {body.tensors[i].buffer for i in used if i >= 0}
        empty = type(model.buffers[0])()
        model.buffers = [b if i in kept else empty for i, b in enumerate(model.buffers)]
        model.subgraphs, model.signatureDefs = [body], None
        return pack_model(model)

    def _is_constant(self, tensor: Any) -> bool:
        data = self._model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0


class _OnnxCuts(Cuts):
    def __init__(self, path: Path, graph: Graph):
        self._path = path
        self._graph = graph
        self._model = read_onnx(path)
        body = self._model.graph
        self._written = {name: node for node in body.node for name in node.output}
        self._constants = {c.name: c for c in body.initializer}
        ends = {v.name for v in body.input} | set(self._written)
        self._values = {n: f"t{n}" for n in range(len(graph.tensors)) if f"t{n}" in ends}
        if body.input and body.output:
            # in int8 the ends of the file are NHWC, under names of their own
            self._values |= {graph.input: body.input[0].name, graph.output: body.output[0].name}

    def has(self, tensor: int) -> bool:
        return tensor in self._values

    def spec(self, tensor: int) -> TensorSpec:
        from edgeofa.backends.onnx import OnnxRuntimeBackend

        ends = OnnxRuntimeBackend().specs(self._graph)
        for end, spec in zip((self._graph.input, self._graph.output), ends, strict=True):
            if tensor == end:
                return spec
        return _spec(self._graph.tensors[tensor], "NCHW")

    def part(self, source: int, sink: int) -> bytes:
        from onnx import TensorProto, helper

        begin, end = self._values[source], self._values[sink]
        needed: dict[int, Any] = {}
        constants: dict[str, Any] = {}
        open_ends, seen = [end], {begin}
        while open_ends:
            name = open_ends.pop()
            if name in seen or not name:
                continue
            seen.add(name)
            if name in self._constants:
                constants[name] = self._constants[name]
            elif name in self._written:
                node = self._written[name]
                needed[id(node)] = node
                open_ends += node.input
            else:
                raise FileFormatError(f"{end} needs {name} too", where=self._path)
        nodes = [n for n in self._model.graph.node if id(n) in needed]
        kind = TensorProto.INT8 if self._graph.precision == "int8" else TensorProto.FLOAT
        ends = [
            helper.make_tensor_value_info(name, kind, self.spec(tensor).shape)
            for name, tensor in ((begin, source), (end, sink))
        ]
        body = helper.make_graph(nodes, "part", ends[:1], ends[1:], list(constants.values()))
        model = helper.make_model(body, opset_imports=self._model.opset_import)
        model.ir_version = self._model.ir_version
        return bytes(model.SerializeToString(deterministic=True))


def _spec(tensor: Tensor, layout: str) -> TensorSpec:
    image = len(tensor.shape) == 4
    shape = nchw(tensor.shape) if layout == "NCHW" else tensor.shape
    return TensorSpec(
        tensor.name, shape, tensor.dtype, layout if image else "NC", tensor.quantization
    )


def read_tflite(path: Path) -> Any:
    """A .tflite file in the schema's object form; ``FileFormatError`` when it is none."""
    import struct

    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise FileFormatError("not a .tflite file", where=path)
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise FileFormatError(f"not a whole .tflite file: {error}", where=path) from error


def read_onnx(path: Path) -> Any:
    """An .onnx file; ``FileFormatError`` when it is none."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise FileFormatError(f"not an .onnx file: {error}", where=path) from error


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
