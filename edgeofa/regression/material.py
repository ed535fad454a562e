"""What a deployment carries so that it can be tested anywhere, later, without its supernet.

``graph.safetensors`` is the network (the oracle of every output), ``reference.safetensors`` a few
inputs with the outputs that the oracle gives for them, both as stored: float32, or int8.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.deployment import FileRecord, TestMaterial
from edgeofa.errors import FileFormatError
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.reference import quantization, quantize_array, run
from edgeofa.graph.store import check_header, load_graph, save_graph
from edgeofa.paths import atomic_path

GRAPH_FILE, REFERENCE_FILE = "graph.safetensors", "reference.safetensors"
#: enough that every channel of a layer is awake in one of them, few enough for an emulator
STORED_INPUTS = 4
_MAX_REFERENCE_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class Material:
    """The oracle, ``inputs`` (images, NHWC) and its ``outputs``, as stored in the graph's type."""

    graph: Graph
    inputs: Array
    outputs: Array


def make_material(graph: Graph, images: Array) -> Material:
    """Material from preprocessed float32 images; the first few of them are kept."""
    kept = np.asarray(images[:STORED_INPUTS], np.float32)
    if graph.precision == "int8":
        kept = quantize_array(kept, quantization(graph, graph.input))
    return Material(graph, kept, reference_outputs(graph, kept))


def reference_outputs(graph: Graph, inputs: Array) -> Array:
    """The oracle's outputs. float32 is computed in float64: the error left is the runtime's."""
    if graph.precision == "int8":
        return run(graph, inputs)
    return run(graph, inputs.astype(np.float64)).astype(np.float32)


def save_material(material: Material, folder: Path) -> TestMaterial:
    """Write both files into ``folder``; what the record says of them."""
    from safetensors.numpy import save_file

    digest = save_graph(material.graph, folder / GRAPH_FILE)
    reference = folder / REFERENCE_FILE
    arrays = {
        "inputs": np.ascontiguousarray(material.inputs),
        "outputs": np.ascontiguousarray(material.outputs),
    }
    with atomic_path(reference) as temporary:
        save_file(arrays, temporary)
        content = temporary.read_bytes()
    return TestMaterial(
        graph=FileRecord(
            path=GRAPH_FILE, sha256=digest, bytes=(folder / GRAPH_FILE).stat().st_size
        ),
        reference=FileRecord(
            path=REFERENCE_FILE, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)
        ),
    )


def load_material(record: TestMaterial, folder: Path) -> Material:
    """Read both files back; ``FileFormatError`` where one is missing, damaged or foreign."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    graph_path, reference = folder / GRAPH_FILE, folder / REFERENCE_FILE
    check_digest(graph_path, record.graph)
    check_digest(reference, record.reference)
    graph = load_graph(graph_path)
    check_header(reference, _MAX_REFERENCE_BYTES)
    try:
        arrays = load(reference.read_bytes())
    except (SafetensorError, ValueError, TypeError) as error:
        raise FileFormatError(f"not stored inputs: {error}", where=reference) from error
    if set(arrays) != {"inputs", "outputs"}:
        raise FileFormatError("it must hold inputs and outputs alone", where=reference)
    inputs, outputs = arrays["inputs"], arrays["outputs"]
    for value, tensor in ((inputs, graph.input_tensor), (outputs, graph.output_tensor)):
        if value.dtype.name != tensor.dtype or value.shape[1:] != tensor.shape[1:]:
            raise FileFormatError(
                f"{value.dtype}{list(value.shape)} for {tensor.dtype}{list(tensor.shape)}",
                where=reference,
            )
    if not 1 <= len(inputs) == len(outputs):
        raise FileFormatError(f"{len(inputs)} inputs, {len(outputs)} outputs", where=reference)
    if not (np.isfinite(inputs).all() and np.isfinite(outputs).all()):
        raise FileFormatError("a stored value is not finite", where=reference)
    return Material(graph, inputs, outputs)


def check_digest(path: Path, expected: FileRecord) -> None:
    """``FileFormatError`` unless the file is the one that the record was written with."""
    try:
        size = path.stat().st_size
        if size == expected.bytes:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == expected.sha256:
                return
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror or error}", where=path) from error
    how = f"{size} bytes, then {expected.bytes}" if size != expected.bytes else "another digest"
    raise FileFormatError(
        f"it is not the file that the deployment was recorded with ({how})",
        where=path,
        hint="restore it from where the deployment was kept, or deploy again",
    )
