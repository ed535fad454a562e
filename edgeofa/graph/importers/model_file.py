"""A user's own model file to graph, by what it holds: .tflite or .onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgeofa.errors import FileFormatError, UsageError
from edgeofa.graph.ir import Graph

Format = Literal["tflite", "onnx"]
_TFLITE_IDENTIFIER = b"TFL3"


def model_format(path: Path) -> Format:
    """What kind of model ``path`` is. A .tflite file says so itself; an .onnx file is known by its
    name, because any bytes could begin a protocol buffer."""
    if not path.is_file():
        raise UsageError("no such file", where=path, hint="--model FILE.tflite or FILE.onnx")
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:8] == _TFLITE_IDENTIFIER:
        return "tflite"
    if path.suffix.lower() == ".onnx":
        return "onnx"
    raise FileFormatError(
        "neither a .tflite file (no TFL3 in its head) nor called .onnx",
        where=path,
        hint="--model FILE.tflite or FILE.onnx",
    )


def import_model(path: Path) -> Graph:
    """The graph of a model file, named after it.

    Raises:
        FileFormatError: no model, or a damaged one.
        UnsupportedOperator: an operator, or a use of it, that the graph does not know; named with
            its index in the file.
    """
    if model_format(path) == "tflite":
        from edgeofa.graph.importers.tflite import import_tflite

        graph = import_tflite(path)
    else:
        from edgeofa.graph.importers.onnx import import_onnx

        graph = import_onnx(path)
    if not graph.ops:
        raise FileFormatError("a model that computes nothing: its output is its input", where=path)
    return graph
