"""A network as C sources for a target, checked against the target's memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from edgeofa.backends.base import CompiledLayer
from edgeofa.errors import TooLarge, UsageError
from edgeofa.fitting import Room, with_largest
from edgeofa.graph.ir import Graph
from edgeofa.networks import WeightSource, load_weights
from edgeofa.spaces import Space, load_space
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
            message says by how much, which layer needs it, and the largest subnet that fits.
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
    source = _Source(request, target)
    graph = source.graph()
    network = lower(graph, _working_memory(request, target, graph))
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
    try:
        _check_fit(compiled, target, request.sram_bytes)
    except TooLarge as error:
        raise source.offering(error) from error
    written = write_sources(network, request.out, request.prefix)
    return replace(compiled, files=written)


class _Source:
    """What is compiled: the user's model, or a subnet with its weights."""

    def __init__(self, request: CompileRequest, target: Target):
        if (request.model is None) == (request.subnet is None):
            raise UsageError(
                "compile takes either a model or a subnet",
                hint="--model kws.tflite, or --subnet as edgeofa solve prints it",
            )
        self._request, self._target = request, target
        self._weights: WeightSource | None = None

    def graph(self) -> Graph:
        """The int8 graph."""
        request = self._request
        if request.model is not None:
            from edgeofa.deploy_model import ModelRequest, read_own_model
            from edgeofa.deployment import Budget

            own = ModelRequest(
                target=request.target,
                model=request.model,
                budget=Budget(),
                data=request.data,
                seed=request.seed,
            )
            return read_own_model(own, self._target).network.graph
        space = self._space()
        subnet = space.parse(str(request.subnet))
        self._weights = load_weights(
            space, request.data, request.seed, random=request.random_weights
        )
        return self._weights.network(subnet, "int8").graph

    def offering(self, error: TooLarge) -> TooLarge:
        """``error`` with the largest subnet of the space that fits, compiled from the same weights;
        beside a model of the user's own from random ones, which take the same memory."""
        request, memory = self._request, self._target.memory
        space = self._space()
        weights = self._weights or load_weights(space, None, request.seed, random=True)
        ram = [request.sram_bytes, None if memory is None else memory.ram_bytes]
        room = Room(
            ram_bytes=min((r for r in ram if r is not None), default=None),
            flash_bytes=None if memory is None else memory.flash_bytes,
        )
        return with_largest(
            error, space, self._target, room, weights, claimed=not request.random_weights
        )

    def _space(self) -> Space:
        return load_space(self._request.space or self._target.default_space)


def _working_memory(request: CompileRequest, target: Target, graph: Graph) -> int | None:
    """What is asked for; else, where a fast plan is larger than it, what the target has."""
    from edgeofa.backends.firmware.network import lower

    if request.sram_bytes is not None or target.memory is None:
        return request.sram_bytes
    room = target.memory.ram_bytes
    return room if lower(graph).plan.peak_bytes > room else None


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
