"""The largest subnet that fits, against compiling every subnet of a small space. About 8 s."""

from __future__ import annotations

import pytest
from tiny_space import tiny_space

from edgeofa.accuracy.base import MacsProxy
from edgeofa.backends.firmware.network import lower
from edgeofa.errors import NoSubnetFits, TooLarge
from edgeofa.fitting import Fitting, Room, largest_fitting, room_on, with_largest
from edgeofa.graph.ir import Graph
from edgeofa.networks import RandomWeights
from edgeofa.spaces import Space, Subnet
from edgeofa.targets import load_target

TARGET = load_target("nucleo-l4r5zi")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return tiny_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def subnets(space: Space) -> dict[Subnet, Graph]:
    """A few dozen of the space's subnets: every seventh."""
    weights = RandomWeights(space, 0)
    found = [space.subnet_at_index(i) for i in range(0, space.count(), 7)]
    return {subnet: weights.network(subnet, "int8").graph for subnet in found}


def _found(space: Space, room: Room) -> Fitting:
    weights = RandomWeights(space, 0)
    return largest_fitting(
        space, TARGET, room, lambda s: weights.network(s, "int8").graph, MacsProxy(space)
    )


@pytest.mark.parametrize(
    "room", [Room(1300, None), Room(1800, 5000), Room(None, 4000), Room(None, None)]
)
def test_no_subnet_that_fits_is_larger(
    space: Space, subnets: dict[Subnet, Graph], room: Room
) -> None:
    found = _found(space, room)
    assert found.by == "compiler"
    assert found.proven
    assert room.ram_bytes is None or found.arena_bytes <= room.ram_bytes
    assert room.flash_bytes is None or found.weight_bytes <= room.flash_bytes
    # it is what the compiler makes of it
    graph = RandomWeights(space, 0).network(space.parse(str(found.subnet)), "int8").graph
    network = lower(graph, room.ram_bytes)
    assert (network.plan.peak_bytes, network.weight_bytes) == (
        found.arena_bytes,
        found.weight_bytes,
    )
    proxy = MacsProxy(space)
    for subnet, graph in subnets.items():
        if proxy.score(subnet) <= proxy.score(found.subnet):
            continue
        network = lower(graph, room.ram_bytes)
        assert (room.ram_bytes is not None and network.plan.peak_bytes > room.ram_bytes) or (
            room.flash_bytes is not None and network.weight_bytes > room.flash_bytes
        ), f"{subnet} fits and is larger than {found.subnet}"


def test_where_nothing_fits_the_smallest_is_named(space: Space) -> None:
    with pytest.raises(NoSubnetFits, match=r"100 bytes of peak memory; the leanest, tiny@8/"):
        _found(space, Room(100, None))
    error = TooLarge("too large", where="a network")
    refusal = with_largest(error, space, TARGET, Room(100), RandomWeights(space, 0), claimed=False)
    assert str(refusal).startswith("a network: too large\n  try: no subnet is within 100 bytes")
    assert "for its weights" in str(refusal)


def test_a_refusal_can_be_pasted(space: Space) -> None:
    error = TooLarge("too large", where="a network")
    refusal = with_largest(error, space, TARGET, Room(1300), RandomWeights(space, 0), claimed=False)
    assert refusal.hint is not None
    named = refusal.hint.split('"')[1]
    assert space.parse(named) == _found(space, Room(1300)).subnet
    assert "the largest (most MACs) of tiny that fits" in refusal.hint


def test_a_board_keeps_room_for_its_firmware() -> None:
    assert TARGET.mcu is not None
    room = room_on(TARGET, None, 100_000)
    assert room.flash_bytes == 100_000
    assert room.ram_bytes is not None
    assert room.ram_bytes < TARGET.mcu.ram.bytes - TARGET.mcu.stack_bytes
    assert room_on(load_target("rpi4"), 5, None) == Room(5, None)
