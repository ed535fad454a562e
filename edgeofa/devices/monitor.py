"""What the firmware on a serial port says of itself, and how its networks run there."""

from __future__ import annotations

from dataclasses import dataclass

from edgeofa.devices.serial_port import alone_on, open_port
from edgeofa.devices.serial_protocol import (
    BoardInfo,
    BoardLink,
    MemoryUse,
    NetworkInfo,
    clock_error,
)
from edgeofa.errors import DeviceError, UsageError
from edgeofa.targets import Target

_SEED = 1
_RUN_LIMIT_S = 120.0


@dataclass(frozen=True)
class Timing:
    """Inferences of one network, in cycles of the board's own timer."""

    network: int
    cycles: tuple[int, ...]
    layer_cycles: tuple[int, ...]
    memory: MemoryUse


@dataclass(frozen=True)
class Observation:
    """A board's answers. ``clock_error`` is relative to our own clock, None where not compared."""

    port: str
    board: BoardInfo
    networks: tuple[NetworkInfo, ...]
    clock_error: float | None
    timing: Timing | None


def observe(
    target: Target,
    port: str | None,
    *,
    network: int | None = None,
    runs: int = 1,
) -> Observation:
    """Ask the board of ``target`` on ``port`` (the target's own by default).

    Args:
        network: also run this one of its networks, ``runs`` times and once layer by layer, on a
            pseudo-random input.

    Raises ``DeviceError`` when nothing answers in time, or a board of another target does.
    """
    if target.mcu is None or target.core is None:
        raise UsageError("not a microcontroller: no section [mcu]", where=f"target {target.name}")
    name = port or target.mcu.serial.port
    if name is None:
        raise UsageError("no port is known", where=f"target {target.name}", hint="--port PORT")
    with alone_on(name), open_port(name, target.mcu.serial.baud) as line:
        link = BoardLink(line, name)
        board = link.identify()
        if board.target != target.name:
            raise DeviceError(
                f"the firmware there is for {board.target[:40]}, not for {target.name}",
                where=name,
                hint="is it the right port? then: edgeofa flash",
            )
        error = None
        if target.mcu.serial.check_clock:
            error = clock_error(link, board.clock_hz)
        networks = tuple(link.select(i) for i in range(board.networks))
        timing = None
        if network is not None:
            if not 0 <= network < board.networks:
                raise UsageError(
                    f"network {network}", hint=f"the image has 0 to {board.networks - 1}"
                )
            link.select(network)
            link.fill_input(_SEED)
            cycles = link.run(runs, limit_s=_RUN_LIMIT_S)
            link.run(1, layers=True, limit_s=_RUN_LIMIT_S)
            timing = Timing(network, cycles, link.layer_cycles(), link.memory())
    return Observation(name, board, networks, error, timing)
