"""A microcontroller board's answers, for people."""

from __future__ import annotations

from statistics import median

from edgeofa.devices.monitor import Observation


def observation_text(found: Observation) -> str:
    """Board, networks, and the timing of one of them where it was asked for."""
    board = found.board
    clock = f"{board.clock_hz / 1e6:g} MHz"
    if found.clock_error is not None:
        clock += f", {found.clock_error:+.2%} by this machine's clock"
    lines = [
        f"{'target':<10} {board.target} on {found.port}",
        f"{'firmware':<10} {board.digest[:16]}…",
        f"{'clock':<10} {clock}; timer {board.timer}",
    ]
    for number, network in enumerate(found.networks):
        lines.append(
            f"network {number:<2} {network.digest[:16]}…  {network.layers} layers, "
            f"arena {network.arena_bytes} B, constants {network.weight_bytes} B"
        )
    if (timing := found.timing) is not None:
        ms = 1e3 / board.clock_hz
        lines.append(
            f"{'run':<10} {median(timing.cycles):.0f} cycles, "
            f"{median(timing.cycles) * ms:.3f} ms on its timer"
        )
        lines += [
            f"  layer {number:<3} {cycles:>12} cycles"
            for number, cycles in enumerate(timing.layer_cycles)
        ]
        memory = timing.memory
        lines.append(
            f"{'memory':<10} arena {memory.arena_used} of {memory.arena_bytes} B, "
            f"stack {memory.stack_used} of {memory.stack_bytes} B"
        )
    return "\n".join(lines)
