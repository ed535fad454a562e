"""How many operators of an artifact a runtime starts one by one."""

from __future__ import annotations

import struct
from pathlib import Path

from edgeofa.backends.tvm.interface import read_interface
from edgeofa.errors import FileFormatError

#: what onnxruntime folds into its neighbours, cancels, or computes without touching data
_ONNX_FOLDED = frozenset(
    {
        "Clip",
        "Relu",
        "Pad",
        "Constant",
        "Flatten",
        "Reshape",
        "Transpose",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)


def count_operators(path: Path, backend: str) -> int:
    """Operators of an artifact that are work of their own (no padding, which the convolution after
    it absorbs); ``FileFormatError`` when it is not a file of that back end."""
    if backend == "tvm":
        return read_interface(path).operators
    content = path.read_bytes()
    return _onnx(content, path) if backend == "onnxruntime" else _tflite(content, path)


def _onnx(content: bytes, path: Path) -> int:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        nodes = onnx.load_from_string(content).graph.node
    except DecodeError as error:
        raise FileFormatError(f"not an ONNX file: {error}", where=path) from error
    return sum(node.op_type not in _ONNX_FOLDED for node in nodes)


def _tflite(content: bytes, path: Path) -> int:
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise FileFormatError("not a .tflite file", where=path)
    try:
        model = schema.Model.GetRootAs(content, 0)
        graph = model.Subgraphs(0)
        kinds = [
            model.OperatorCodes(graph.Operators(number).OpcodeIndex()).BuiltinCode()
            for number in range(graph.OperatorsLength())
        ]
    except (AttributeError, IndexError, ValueError, TypeError, struct.error) as error:
        raise FileFormatError(f"not a readable .tflite file: {error}", where=path) from error
    padding = (schema.BuiltinOperator.PAD, schema.BuiltinOperator.PADV2)
    return sum(kind not in padding for kind in kinds)
