"""What a probe of a device found, for people."""

from __future__ import annotations

from edgeofa.devices.draft import Probed


def probed_text(probed: Probed) -> str:
    """A line for each fact that the device told."""
    facts, state = probed.facts, probed.facts.state
    clock = f" at {facts.clock_hz / 1e9:g} GHz" if facts.clock_hz else ""
    throttled = {None: "not told", False: "no", True: "yes"}[state.throttled]
    rows = {
        "address": probed.address,
        "model": facts.model,
        "core": f"{facts.processors or '?'} x {facts.microarchitecture}{clock} ({facts.machine})",
        "clocks": facts.clocks_note,
        "governor": ", ".join(sorted({c.governor for c in facts.clocks if c.governor})),
        "temperature": None if state.temperature_c is None else f"{state.temperature_c:.1f} °C",
        "throttled": throttled,
        "load": None if state.load is None else f"{state.load:.2f}",
        "memory": None if facts.ram_bytes is None else f"{facts.ram_bytes / 2**20:.0f} MiB",
        "free disk": None if facts.free_bytes is None else f"{facts.free_bytes / 2**20:.0f} MiB",
        "C library": facts.libc,
        "kernel": facts.kernel,
        "emulated": f"{facts.emulator}: its times are not latencies" if facts.emulator else None,
        "targets": ", ".join(probed.targets)
        or f"none that ships: edgeofa target new --from-device {probed.name}",
    }
    return "\n".join(f"{name:<12} {value}" for name, value in rows.items() if value)
