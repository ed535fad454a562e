"""Are the artifact's weights and scales the graph's? Compared in the file, without running it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.backends.registry import get_backend
from edgeofa.graph.ir import Array, Graph
from edgeofa.regression.blocks import segment_of, segments
from edgeofa.regression.cuts import CUTTABLE, open_cuts, read_onnx, read_tflite
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.record import Check, Layer

_Constants = dict[str, Array]


@dataclass(frozen=True)
class _Difference:
    name: str
    differing: int
    elements: int


def check_constants(deployed: Deployed, graph: Graph) -> Check:
    """The artifact against what the back end would write of the graph today.

    A constant or scale that both files have by one name must be equal. Bytes need not be: another
    version of a back end may arrange a file differently, which is said.
    """
    backend = deployed.record.backend
    if backend not in CUTTABLE:
        return Check(name="artifact", status="skipped", summary=f"files of {backend} are not read")
    content = get_backend(backend).serialize(graph)
    if content == deployed.artifact.read_bytes():
        return Check(
            name="artifact", status="passed", summary="byte for byte what the graph compiles to"
        )
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "model"
        fresh.write_bytes(content)
        wanted, found = _constants(fresh, backend), _constants(deployed.artifact, backend)
    different = [d for name in wanted if (d := _compare(name, wanted, found)) is not None]
    if not different:
        return Check(
            name="artifact",
            status="passed",
            summary="the graph's constants, though arranged otherwise than this back end would",
        )
    cuts = open_cuts(deployed.artifact, backend, graph)
    blocks = segments(graph, cuts, [b.block for b in deployed.record.blocks])
    # the first in the order of execution
    places = {d.name: _place(graph, d.name) for d in different}
    first = min(different, key=lambda d: places[d.name])
    place = places[first.name]
    layer = None
    if place < len(graph.ops):
        op = graph.ops[place]
        layer = Layer(
            layer=op.name,
            kind=op.kind,
            block=segment_of(blocks, place),
            steps=None,
            relative=0.0,
            share=first.differing / first.elements,
            channels=(),
            image=None,
        )
    more = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
    return Check(
        name="artifact",
        status="failed",
        summary=f"{first.name} is not the graph's: {first.differing} of {first.elements} values"
        + (f", in block {layer.block}" if layer else "")
        + more,
        layer=layer,
    )


def _compare(
    name: str, wanted: Mapping[str, Array], found: Mapping[str, Array]
) -> _Difference | None:
    if name not in found:
        return None
    one, other = wanted[name], found[name]
    if one.shape != other.shape or one.dtype != other.dtype:
        return _Difference(name, one.size, max(one.size, 1))
    # by their bytes: a value that is no number equals itself
    differing = int((_bits(one) != _bits(other)).any(axis=-1).sum())
    return _Difference(name, differing, one.size) if differing else None


def _bits(value: Array) -> Array:
    return np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8)


def _place(graph: Graph, name: str) -> int:
    """The operator that a constant or an activation belongs to; past the end where unknown."""
    base = name.removesuffix("/scale").removesuffix("/zero_point").removesuffix("/stored")
    for place, op in enumerate(graph.ops):
        if base.split("/")[0] == op.name or base in (
            graph.tensors[op.output].name,
            f"t{op.output}",
        ):
            return place
    return len(graph.ops)


def _constants(path: Path, backend: str) -> _Constants:
    return _onnx_constants(path) if backend == "onnxruntime" else _tflite_constants(path)


def _tflite_constants(path: Path) -> _Constants:
    model = read_tflite(path)
    found: _Constants = {}
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode(errors="replace")
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            found[name] = np.asarray(data, np.uint8)
        q = tensor.quantization
        if q is not None and q.scale is not None:
            found[f"{name}/scale"] = np.asarray(q.scale, np.float32)
            found[f"{name}/zero_point"] = np.asarray(q.zeroPoint, np.int64)
    return found


def _onnx_constants(path: Path) -> _Constants:
    from onnx import numpy_helper

    return {c.name: np.asarray(numpy_helper.to_array(c)) for c in read_onnx(path).graph.initializer}
