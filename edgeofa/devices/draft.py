"""From a board to a target: which shipped one it is, or the file of a new one.

A new file is complete: it validates, profiles and deploys as it is. What the board does not tell
stays out; power is never guessed, so such a target has no energy figures.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgeofa.backends.tvm.machine import MACHINES
from edgeofa.datafile import parse_data
from edgeofa.devices.board import BoardFacts, CacheFacts, check_belongs, check_libc, parse_facts
from edgeofa.devices.configure import configure
from edgeofa.devices.libraries import library_for
from edgeofa.devices.native import board_path, own_arch
from edgeofa.devices.ssh import SshDevice
from edgeofa.devices.store import find_device, require_device
from edgeofa.errors import DeviceError, SetupError, UsageError
from edgeofa.paths import write_atomic
from edgeofa.targets import Target, load_target, target_names

_BACKENDS = ("litert", "onnxruntime", "tvm")
#: two boards of one kind differ by less (a Raspberry Pi 4 runs at 1.5 or, newer, 1.8 GHz)
_CLOCK_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Probed:
    """What a device said, and the shipped targets that it may be one of."""

    name: str
    address: str
    facts: BoardFacts
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """A new target file and the device that it was made from."""

    target: Target
    file: Path
    device: str
    similar: tuple[str, ...]


def probe(name: str) -> Probed:
    """Ask a device (a configured one, or an address) what it is.

    Raises ``DeviceError`` when it cannot be reached, ``UsageError`` for a kind of device that has
    nothing to ask.
    """
    stored = find_device(name)
    address = stored.address if stored is not None else name
    if ":" not in address and address != "local":
        address = require_device(name).address
    kind = address.partition(":")[0]
    if kind == "ssh":
        device = SshDevice(None, address)
        facts = device.facts
        device.close()
    elif kind == "local":
        facts = local_facts()
    else:
        raise UsageError(f"a {kind} device has nothing to probe", where=address[:80])
    return Probed(name, address, facts, matching_targets(facts))


def local_facts() -> BoardFacts:
    """What this machine says of itself."""
    command = [str(board_path(own_arch())), "probe", "/"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"cannot be probed: {error}", where="this machine") from error
    return parse_facts(done.stdout, "this machine")


def matching_targets(facts: BoardFacts) -> tuple[str, ...]:
    """Shipped targets with the same cores, their number and clock; none for an emulated board."""
    if facts.emulator:
        return ()
    return tuple(name for name in target_names() if _matches(facts, load_target(name)))


def _matches(facts: BoardFacts, target: Target) -> bool:
    core = target.core
    if core is None or core.isa != facts.machine or core.cores != facts.processors:
        return False
    try:
        check_belongs(facts, target, "probe")
    except DeviceError:
        return False
    clock = facts.clock_hz
    return clock is None or abs(clock / core.clock_hz - 1) <= _CLOCK_DIFFERENCE


def new_target(device: str, out: Path | None = None) -> Draft:
    """Write a target file from what a configured device says, and make the device one of it.

    Args:
        out: the file, ``<device>.toml`` here by default; its stem becomes the target's name.
            An existing file is not overwritten.
    """
    stored = require_device(device)
    file = out or Path(f"{device.replace('.', '-').replace('_', '-')}.toml")
    if file.suffix != ".toml":
        raise UsageError("a target file ends in .toml", where=file)
    if file.stem in target_names():
        raise UsageError(f"{file.stem} is a shipped target", hint="another name with --out")
    if file.exists():
        raise UsageError(
            "the file is there already", where=file, hint="remove it, or choose another with --out"
        )
    probed = probe(device)
    text = target_text(file.stem, probed.facts, probed.address)
    target = parse_data(text.encode(), Target, file)
    write_atomic(file, text)
    configure(device, stored.address, str(file), replace=True)
    return Draft(target, file, device, probed.targets)


def target_text(name: str, facts: BoardFacts, address: str) -> str:
    """The target file of a board; it is a valid one."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    source = _string(f"told by the board, {date}")
    what = facts.model or facts.processor_name or f"{facts.machine} board"
    description = what if not facts.emulator else f"{what}, emulated: its times are not latencies"
    kind = "local" if address.startswith("local") else "ssh"
    lines = [
        f"# Probed on {date}. Power is unknown, so there are no energy figures; to have them, add",
        "# a section [power] (see docs/targets.md).",
        "schema_version = 1",
        f"name = {_string(name)}",
        f"description = {_string(description)}",
        f"device = {_string(kind)}",
        'default_space = "cifar_lite"',
        f"backends = {json.dumps(usable_backends(facts))}",
        'precisions = ["int8", "float32"]',
    ]
    if facts.clock_hz and facts.processors:
        lines += [
            "",
            "[core]",
            f"isa = {_string(facts.machine)}",
            f"microarchitecture = {_string(facts.microarchitecture)}",
            f"clock_hz = {facts.clock_hz:g}",
            f"cores = {facts.processors}",
            *_cache_lines(facts.caches),
            f"source = {source}",
        ]
    if facts.ram_bytes:
        lines += ["", "[memory]", f"ram_bytes = {facts.ram_bytes}", f"source = {source}"]
    return "\n".join(lines) + "\n"


def usable_backends(facts: BoardFacts) -> list[str]:
    """Those whose library the board's C library can load, and that have code for its core;
    ``DeviceError`` where none is."""
    usable: list[str] = []
    reason: DeviceError | None = None
    for backend in _BACKENDS:
        if backend == "tvm" and facts.microarchitecture not in MACHINES:
            continue
        try:
            library = library_for(backend, facts.machine, "probe", "rpi4")
            for path in library.files:
                check_libc(facts, path.read_bytes(), f"the {backend} library", "probe")
        except SetupError:
            pass  # not here yet; edgeofa setup brings it
        except DeviceError as error:
            reason = error
            continue
        usable.append(backend)
    if not usable and reason is not None:
        raise reason
    return usable


def _cache_lines(caches: Sequence[CacheFacts]) -> list[str]:
    lines = []
    for key, level in (("l1d", 1), ("l2", 2)):
        found = next(
            (c for c in caches if c.level == level and c.kind in ("Data", "Unified")), None
        )
        if found is not None and found.bytes and found.ways and found.line_bytes:
            lines.append(
                f"{key} = {{ bytes = {found.bytes}, ways = {found.ways}, "
                f"line_bytes = {found.line_bytes} }}"
            )
    return lines


def _string(text: str) -> str:
    """A TOML string of printable ASCII: what a board says of itself is not trusted."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text[:120])
    return json.dumps(plain)
