"""The largest subnet that a microcontroller's memory holds: what a refusal can offer instead.

The solver picks it as it picks any: the most accurate by the space's accuracy model, or the most
MACs where no accuracy is claimed, within weight and peak bytes. What a block takes is the
compiler's own memory plan, or a table's where the space is too large to plan every block of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeofa.errors import MissingMaterial, NoSubnetFits, TooLarge
from edgeofa.graph.ir import Graph
from edgeofa.spaces import Space, Subnet
from edgeofa.targets import Target

if TYPE_CHECKING:
    from edgeofa.accuracy.base import AccuracyModel
    from edgeofa.networks import WeightSource
    from edgeofa.solver.inputs import Inputs
    from edgeofa.spaces.blocks import Block
    from edgeofa.tables.table import Row, Table

#: planning a block takes about 20 ms; larger spaces are looked up in a table where there is one
_PLANNED_BLOCKS = 1000
#: of the best by the blocks' sizes, how many whole networks are compiled until one fits
_CANDIDATES = 64
_BACKEND = "firmware"
#: of a firmware image beside networks: protocol, board, C library; RAM about 4.7 kB, code 6 kB, and
#: the code of a network about 20 kB
_IMAGE_RAM_BYTES, _IMAGE_FLASH_BYTES = 5 << 10, 32 << 10


@dataclass(frozen=True)
class Room:
    """What a network may take, in bytes: working memory, and constants in flash."""

    ram_bytes: int | None = None
    flash_bytes: int | None = None


def room_on(target: Target, ram_bytes: int | None, flash_bytes: int | None) -> Room:
    """The budgets, and on a microcontroller what its memory leaves a network in a firmware image:
    stack, protocol and about 32 KiB of code go first."""
    if target.mcu is None:
        return Room(ram_bytes, flash_bytes)
    ram = target.mcu.ram.bytes - target.mcu.stack_bytes - _IMAGE_RAM_BYTES
    flash = target.mcu.flash.bytes - _IMAGE_FLASH_BYTES
    return Room(
        ram if ram_bytes is None else min(ram, ram_bytes),
        flash if flash_bytes is None else min(flash, flash_bytes),
    )


@dataclass(frozen=True)
class Fitting:
    """The largest subnet within a room, compiled whole; ``accuracy`` None: that of most MACs.

    ``proven``: no other one is better by the accuracy model; ``by``: where the sizes of blocks are
    from that it was picked by.
    """

    subnet: Subnet
    arena_bytes: int
    weight_bytes: int
    accuracy: float | None
    proven: bool
    by: Literal["compiler", "table"]


def largest_fitting(
    space: Space,
    target: Target,
    room: Room,
    build: Callable[[Subnet], Graph],
    accuracy: AccuracyModel,
) -> Fitting:
    """The best subnet of ``space`` within ``room``, as the back end ``firmware`` compiles it.

    A network needs at least what its most demanding block needs by itself, so candidates are taken
    in the order of the solver until one fits as a whole.

    Args:
        build: the int8 graph of a subnet.
        accuracy: what subnets are compared by; one that claims no accuracy compares MACs.

    Raises:
        NoSubnetFits: names the leanest subnet and what it needs.
    """
    from edgeofa.backends.firmware.network import lower
    from edgeofa.solver.budgets import Budgets
    from edgeofa.solver.inputs import choose
    from edgeofa.solver.question import Question

    inputs, by = _inputs(space, target, accuracy)
    budgets = Budgets(weight_bytes=room.flash_bytes, peak_bytes=room.ram_bytes)
    question = Question((budgets,), k=_CANDIDATES, prefer="accurate")
    _, selection = choose([inputs], question)
    for found in (selection.best, *selection.runners_up):
        network = lower(build(found.subnet), room.ram_bytes)
        arena, weights = network.plan.peak_bytes, network.weight_bytes
        if _within(arena, room.ram_bytes) and _within(weights, room.flash_bytes):
            return Fitting(found.subnet, arena, weights, found.accuracy, selection.proven, by)
    raise NoSubnetFits(
        f"none of the {_CANDIDATES} best subnets fits as a whole", where=f"space {space.name}"
    )


def with_largest(
    error: TooLarge,
    space: Space,
    target: Target,
    room: Room,
    weights: WeightSource,
    *,
    claimed: bool = True,
) -> TooLarge:
    """``error`` with the largest subnet of a space that would fit, for ``compile --subnet``.

    Args:
        claimed: compare subnets by the space's accuracy model, where it has one; else by MACs.
    """

    def build(subnet: Subnet) -> Graph:
        return weights.network(subnet, "int8").graph

    try:
        accuracy = _accuracy(space, claimed)
        fitting = largest_fitting(space, target, room, build, accuracy)
    except NoSubnetFits as none:
        hint = f"{none.what}; {none.hint}" if none.hint else none.what
        return TooLarge(error.what, where=error.where, hint=hint)
    by = "most MACs" if fitting.accuracy is None else "most accurate"
    largest = f"the largest ({by}) of {space.name} that {'' if fitting.proven else 'was found to '}"
    largest += "fits" if fitting.proven else "fit"
    claim = "" if fitting.accuracy is None else f", {100 * fitting.accuracy:.1f}% predicted"
    return TooLarge(
        error.what,
        where=error.where,
        hint=f'edgeofa compile --subnet "{fitting.subnet}", {largest}: '
        f"{fitting.arena_bytes} bytes to work in, {fitting.weight_bytes} of constants{claim}",
    )


def _accuracy(space: Space, claimed: bool) -> AccuracyModel:
    from edgeofa.accuracy.base import MacsProxy
    from edgeofa.elastic.bundles import load_bundle

    if not claimed:
        return MacsProxy(space)
    try:
        return load_bundle(space).accuracy
    except MissingMaterial:
        return MacsProxy(space)


def _within(value: int, limit: int | None) -> bool:
    return limit is None or value <= limit


def _inputs(
    space: Space, target: Target, accuracy: AccuracyModel
) -> tuple[Inputs, Literal["compiler", "table"]]:
    from edgeofa.solver.inputs import find_tables, pose_candidates

    blocks = space.all_blocks()
    if len(blocks) > _PLANNED_BLOCKS:
        try:
            tables = find_tables(target, space, _BACKEND, "int8", 1)
        except MissingMaterial:
            pass  # slower then, and no worse
        else:
            return pose_candidates([tables], space, accuracy)[0], "table"
    table = planned_table(space, target, blocks)
    return pose_candidates([[table]], space, accuracy)[0], "compiler"


def planned_table(space: Space, target: Target, blocks: Iterable[Block]) -> Table:
    """A table without times: for each block the least that it works in, and its constants."""
    from edgeofa import __version__
    from edgeofa.backends.firmware.backend import FirmwareBackend
    from edgeofa.tables.table import Header, Table

    version = FirmwareBackend().version()
    header = Header(
        target=target.name,
        target_digest=target.digest,
        space=space.name,
        backend=_BACKEND,
        precision="int8",
        threads=1,
        evidence="estimated",
        runtime=_BACKEND,
        runtime_version=version,
        runtime_digest=version,
        device={"name": "the compiler's memory plan"},
        protocol_version=0,
        seed=0,
        date="",
        edgeofa_version=__version__,
        resolutions=space.resolutions,
        additivity=None,
    )
    rows = {block.key: _planned(block) for block in blocks}
    return Table(header, {key: rows[key] for key in sorted(rows)})


def _planned(block: Block) -> Row:
    import numpy as np

    from edgeofa.backends.firmware.network import lower
    from edgeofa.graph.blocks import block_graph
    from edgeofa.graph.quantize import quantize_with
    from edgeofa.tables.table import Row

    graph = block_graph(block, 0)
    shape = graph.input_tensor.shape
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    network = lower(quantize_with(graph, [image]), 0)
    return Row(
        block=block.key,
        latency_ms=0.0,
        latency_low_ms=0.0,
        latency_high_ms=0.0,
        energy_mj=None,
        energy_low_mj=None,
        energy_high_mj=None,
        peak_bytes=network.plan.bound_bytes,
        weight_bytes=network.weight_bytes,
        samples=0,
        rounds=0,
        evidence="estimated",
        status="ok",
    )
