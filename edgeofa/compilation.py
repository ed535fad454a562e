"""A network as C sources for a target, checked against the target's memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.base import CompiledLayer
from edgeofa.errors import TooLarge, UsageError
from edgeofa.graph.ir import Graph
from edgeofa.targets import Target

_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,40}")


@dataclass(frozen=True)
class CompileRequest:
    """What to compile; see ``docs/verbs/compile.md``. Exactly one of ``model`` and ``subnet``."""

    target: str
    out: Path
    model: Path | None = None
    subnet: str | None = None
    space: str | None = None
    data: Path | None = None
    random_weights: bool = False
    sram_bytes: int | None = None
    emit: str = "c"
    prefix: str = "edgeofa"
    seed: int = 0


@dataclass(frozen=True)
class Compiled:
    """What was written. ``arena_bytes`` is all the memory that the network works in."""

    network: str
    target: str
    folder: Path
    files: tuple[str, ...]
    macs: int
    weight_bytes: int
    arena_bytes: int
    layers: tuple[CompiledLayer, ...]

    @property
    def peak_layer(self) -> CompiledLayer:
        """The layer at which most is alive."""
        return max(self.layers, key=lambda layer: layer.live_bytes)


def compile_sources(request: CompileRequest) -> Compiled:
    """Write the C sources of a network: its translation unit, the kernels, a CMake recipe.

    Raises:
        TooLarge: a network that the target's memory, or ``sram_bytes``, does not hold; the
            message says by how much, and which layer needs it.
        UnsupportedOperator: an operator that no kernel computes, by its index.
    """
    from edgeofa.backends.firmware.backend import compiled_layers, write_sources
    from edgeofa.backends.firmware.network import lower
    from edgeofa.graph.ops import macs
    from edgeofa.targets import load_target

    if request.emit != "c":
        raise UsageError(f"unknown output {request.emit!r}", where="--emit", hint="--emit c")
    if not _PREFIX.fullmatch(request.prefix):
        raise UsageError(
            f"not a prefix of C names: {request.prefix[:60]!r}",
            where="--prefix",
            hint="lower-case letters, digits and _",
        )
    target = load_target(request.target)
    if "firmware" not in target.backends:
        raise UsageError(
            "no microcontroller: its back ends are " + ", ".join(target.backends),
            where=target.name,
            hint="edgeofa target list",
        )
    graph = _graph(request, target)
    network = lower(graph, request.sram_bytes)
    compiled = Compiled(
        network=graph.name,
        target=target.name,
        folder=request.out,
        files=(),
        macs=macs(network.graph),
        weight_bytes=network.weight_bytes,
        arena_bytes=network.plan.peak_bytes,
        layers=compiled_layers(network),
    )
    _check_fit(compiled, target, request.sram_bytes)
    written = write_sources(network, request.out, request.prefix)
    return Compiled(**{**vars(compiled), "files": written})


def _graph(request: CompileRequest, target: Target) -> Graph:
    """The int8 graph of the model or the subnet."""
    if (request.model is None) == (request.subnet is None):
        raise UsageError(
            "compile takes either a model or a subnet",
            hint="--model kws.tflite, or --subnet as edgeofa solve prints it",
        )
    if request.model is not None:
        from edgeofa.graph.importers.model_file import import_model

        return import_model(request.model)
    from edgeofa.elastic.bundles import load_bundle
    from edgeofa.networks import RandomWeights, TrainedWeights, WeightSource
    from edgeofa.spaces import load_space

    space = load_space(request.space or target.default_space)
    subnet = space.parse(str(request.subnet))
    source: WeightSource = (
        RandomWeights(space, request.seed)
        if request.random_weights
        else TrainedWeights(load_bundle(space), request.data, request.seed)
    )
    return source.network(subnet, "int8").graph


def _check_fit(compiled: Compiled, target: Target, sram_bytes: int | None) -> None:
    memory, peak = target.memory, compiled.peak_layer
    limits = [("--sram", sram_bytes)]
    if memory is not None:
        limits.append((f"the memory of {target.name}", memory.ram_bytes))
        if memory.flash_bytes is not None and compiled.weight_bytes > memory.flash_bytes:
            raise TooLarge(
                f"its constants take {compiled.weight_bytes} bytes of flash, "
                f"{compiled.weight_bytes - memory.flash_bytes} more than {target.name} has",
                where=compiled.network,
                hint="a smaller subnet: edgeofa solve --flash",
            )
    for what, limit in limits:
        if limit is not None and compiled.arena_bytes > limit:
            raise TooLarge(
                f"it works in {compiled.arena_bytes} bytes, {compiled.arena_bytes - limit} more "
                f"than {what} ({limit}); most at {peak.name} ({peak.kind}): {peak.live_bytes}",
                where=compiled.network,
                hint="a smaller subnet or resolution: edgeofa solve --sram",
            )
