"""How many operators an artifact has: each is a point where several threads wait."""

from __future__ import annotations

import struct
from pathlib import Path

from edgeofa.errors import FileFormatError


def count_operators(path: Path, backend: str) -> int:
    """Operators of a .tflite or .onnx file; ``FileFormatError`` when it is neither."""
    content = path.read_bytes()
    if backend == "onnxruntime":
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            return len(onnx.load_from_string(content).graph.node)
        except DecodeError as error:
            raise FileFormatError(f"not an ONNX file: {error}", where=path) from error
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise FileFormatError("not a .tflite file", where=path)
    try:
        model = schema.Model.GetRootAs(content, 0)
        return int(model.Subgraphs(0).OperatorsLength())
    except (AttributeError, IndexError, ValueError, TypeError, struct.error) as error:
        raise FileFormatError(f"not a readable .tflite file: {error}", where=path) from error
