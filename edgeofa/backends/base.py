"""What a back end is: ``Graph -> Artifact``. Running an artifact is the devices' part."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeofa.graph.ir import DType, Graph, Quantization
from edgeofa.paths import write_atomic

if TYPE_CHECKING:
    from edgeofa.targets import Target


@dataclass(frozen=True)
class TensorSpec:
    """Input or output of an artifact as its runtime sees it."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    layout: str  # "NHWC", "NCHW", or "NC" after flattening
    quantization: Quantization | None = None


@dataclass(frozen=True)
class CompiledLayer:
    """One layer of an artifact: what is alive while it runs, scratch memory included."""

    name: str
    kind: str
    macs: int
    live_bytes: int
    scratch_bytes: int


@dataclass(frozen=True)
class Artifact:
    """What a back end wrote. ``peak_bytes`` is the planned activation arena; ``layers`` are those
    that it runs, in order, where the back end tells them apart."""

    path: Path
    backend: str
    precision: DType
    sha256: str
    input: TensorSpec
    output: TensorSpec
    weight_bytes: int
    peak_bytes: int
    file_bytes: int
    layers: tuple[CompiledLayer, ...] = ()

    @property
    def peak_layer(self) -> CompiledLayer | None:
        """The layer at which most is alive."""
        return max(self.layers, key=lambda layer: layer.live_bytes, default=None)


class Backend(ABC):
    """One compiler. Same graph, same version: same bytes."""

    #: key used by targets, tables and the command line, such as ``litert``
    name: str
    suffix: str
    precisions: tuple[DType, ...] = ("float32", "int8")
    #: its int8 kernels round as the graph's reference does: outputs are equal bit for bit
    exact: bool = False
    #: artifacts compute on as many threads as they are given
    is_parallel: bool = True

    @abstractmethod
    def version(self) -> str:
        """Version of the runtime or compiler that the artifact is for."""

    @abstractmethod
    def serialize(self, graph: Graph) -> bytes:
        """The artifact's file content; raises ``UnsupportedOperator`` with the operator's name."""

    @abstractmethod
    def specs(self, graph: Graph) -> tuple[TensorSpec, TensorSpec]:
        """Input and output as the runtime will see them."""

    def memory(self, graph: Graph) -> tuple[int, int]:
        """Bytes of weights as the artifact holds them, and of the planned activation arena."""
        from edgeofa.graph.memory import plan_memory, weight_bytes

        return weight_bytes(graph), plan_memory(graph).peak_bytes

    def layers(self, graph: Graph) -> tuple[CompiledLayer, ...]:  # noqa: ARG002 - the contract
        """The layers that the artifact runs, in order; none where a runtime decides about them."""
        return ()

    def limited(self, sram_bytes: int) -> Backend:  # noqa: ARG002 - the contract
        """The same compiler, asked to keep its working memory within ``sram_bytes`` where it can;
        itself where that is the runtime's affair."""
        return self

    def for_target(self, target: Target) -> Backend:  # noqa: ARG002 - the contract
        """The compiler as it makes artifacts for devices of ``target``; itself where an artifact is
        the same for every device. Whoever compiles for a device asks for it first."""
        return self

    def compile(self, graph: Graph, path: Path) -> Artifact:
        """Write ``graph`` to ``path`` (atomically) and describe it."""
        content = self.serialize(graph)
        write_atomic(path, content)
        source, sink = self.specs(graph)
        weight_bytes, peak_bytes = self.memory(graph)
        return Artifact(
            path=path,
            backend=self.name,
            precision=graph.precision,
            sha256=hashlib.sha256(content).hexdigest(),
            input=source,
            output=sink,
            weight_bytes=weight_bytes,
            peak_bytes=peak_bytes,
            file_bytes=len(content),
            layers=self.layers(graph),
        )
