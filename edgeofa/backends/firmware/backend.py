"""The back end ``firmware``: an int8 graph as C for a microcontroller, with nothing in between."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from edgeofa.backends.base import Backend, CompiledLayer, TensorSpec
from edgeofa.backends.firmware.network import Network, lower
from edgeofa.backends.firmware.source import network_source
from edgeofa.graph.ir import DType, Graph, Tensor
from edgeofa.graph.ops import op_macs
from edgeofa.paths import data_dir, write_atomic

#: flags that the kernels are meant for; what a build used belongs into its record
COMPILER_FLAGS = (
    "-std=c11",
    "-O2",
    "-fomit-frame-pointer",
    "-ffunction-sections",
    "-fdata-sections",
)
#: zip knows no time before this
_EPOCH = (1980, 1, 1, 0, 0, 0)

_CMAKE = """\
# The network as a static library, for an application's own build:
#   add_subdirectory(THIS_FOLDER)
#   target_link_libraries(application PRIVATE {prefix}_network)
cmake_minimum_required(VERSION 3.20)
project({prefix}_network LANGUAGES C)
file(GLOB EDGEOFA_SOURCES CONFIGURE_DEPENDS ${{CMAKE_CURRENT_SOURCE_DIR}}/*.c)
add_library({prefix}_network STATIC ${{EDGEOFA_SOURCES}})
target_include_directories({prefix}_network PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options({prefix}_network PRIVATE {flags})
"""


def runtime_sources() -> dict[str, bytes]:
    """The kernels and the API's header, by file name."""
    runtime = data_dir() / "targets" / "runtime" / "mcu"
    files = [
        *(runtime / "include").glob("edgeofa_firmware.h"),
        *(runtime / "kernels").glob("*.[ch]"),
    ]
    return {file.name: file.read_bytes() for file in sorted(files)}


def sources(network: Network, prefix: str = "edgeofa") -> dict[str, bytes]:
    """Everything that an application compiles, by file name: network, kernels, CMake recipe."""
    own = {name: text.encode() for name, text in network_source(network, prefix).items()}
    recipe = _CMAKE.format(prefix=prefix, flags=" ".join(COMPILER_FLAGS))
    return {**runtime_sources(), **own, "CMakeLists.txt": recipe.encode()}


def write_sources(network: Network, folder: Path, prefix: str = "edgeofa") -> tuple[str, ...]:
    """Write :func:`sources` to a folder, each file whole or not at all; returns their names."""
    files = sources(network, prefix)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return tuple(sorted(files))


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    return buffer.getvalue()


def compiled_layers(network: Network) -> tuple[CompiledLayer, ...]:
    """What each layer of a lowered network costs."""
    return tuple(
        CompiledLayer(
            name=op.name,
            kind=op.kind,
            macs=op_macs(network.graph, op),
            live_bytes=live + layer.scratch_bytes,
            scratch_bytes=layer.scratch_bytes,
        )
        for op, layer, live in zip(
            network.graph.ops, network.layers, network.plan.live_bytes, strict=True
        )
    )


class FirmwareBackend(Backend):
    """Writes a .zip of C sources: one translation unit for the network, and the kernels.

    ``sram_bytes`` is the working memory to keep to, see :func:`lower`.
    """

    name = "firmware"
    suffix = ".zip"
    precisions: tuple[DType, ...] = ("int8",)
    exact = True

    def __init__(self, sram_bytes: int | None = None):
        self.sram_bytes = sram_bytes

    def limited(self, sram_bytes: int) -> FirmwareBackend:
        return FirmwareBackend(sram_bytes)

    def version(self) -> str:
        """Digest of the kernels and of what generates code for them: they are the runtime."""
        generator = {p.name: p.read_bytes() for p in Path(__file__).parent.glob("*.py")}
        # how an image is linked shows in its own digest
        generator.pop("link.py", None)
        digest = hashlib.sha256()
        for name, content in sorted({**runtime_sources(), **generator}.items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:12]

    def serialize(self, graph: Graph) -> bytes:
        return _zipped(sources(lower(graph, self.sram_bytes)))

    def specs(self, graph: Graph) -> tuple[TensorSpec, TensorSpec]:
        return _spec(graph.input_tensor), _spec(graph.output_tensor)

    def memory(self, graph: Graph) -> tuple[int, int]:
        network = lower(graph, self.sram_bytes)
        return network.weight_bytes, network.plan.peak_bytes

    def layers(self, graph: Graph) -> tuple[CompiledLayer, ...]:
        return compiled_layers(lower(graph, self.sram_bytes))


def _spec(tensor: Tensor) -> TensorSpec:
    layout = "NHWC" if len(tensor.shape) == 4 else "NC"
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, layout, tensor.quantization)
