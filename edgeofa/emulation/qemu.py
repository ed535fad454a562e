"""QEMU: where it is, and the command line under which qemu-aarch64's counts do not move."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeofa.errors import SetupError
from edgeofa.targets import Cache, Core

#: the user-mode emulator (the dynamic one: the static one takes no plugin) and the boards' one
USER = "qemu-aarch64"
SYSTEM = "qemu-system-arm"
#: Debian's packages
PACKAGES = {USER: "qemu-user", SYSTEM: "qemu-system-arm"}
#: the plugin interface that the plugin speaks (version 1) ended with QEMU 8.1
_VERSIONS = ((4, 2), (8, 1))
#: a fixed window for all guest memory: without it the cache counts move by 0.1 to 0.5%
_RESERVED = "0x400000000"


@dataclass(frozen=True)
class Qemu:
    """The emulator and its version."""

    path: Path
    version: str

    @property
    def is_supported(self) -> bool:
        low, high = _VERSIONS
        numbers = tuple(int(part) for part in self.version.split(".")[:2])
        return low <= numbers <= high


@cache
def find_qemu(program: str = USER) -> Qemu | None:
    """The emulator called ``program``; None when it is absent."""
    path = shutil.which(program)
    if path is None:
        return None
    text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60).stdout
    match = re.search(r"version ([0-9]+\.[0-9]+(?:\.[0-9]+)?)", text)
    return Qemu(Path(path), match[1]) if match else None


def require_qemu(program: str = USER) -> Qemu:
    """:func:`find_qemu`, or a ``SetupError`` that names the package."""
    qemu = find_qemu(program)
    if qemu is None:
        raise SetupError(
            f"{program} is missing",
            hint=f"apt-get install -y --no-install-recommends {PACKAGES[program]}",
        )
    if not qemu.is_supported:
        raise SetupError(
            f"{program} {qemu.version} does not take the plugin",
            where=qemu.path,
            hint="use a QEMU from 4.2 to 8.1 (Debian 12 has 7.2)",
        )
    return qemu


@cache
def _fixed_addresses() -> tuple[str, ...]:
    """``setarch -R`` where the kernel allows it; some containers forbid it."""
    setarch = shutil.which("setarch")
    if setarch is None:
        return ()
    done = subprocess.run([setarch, "-R", "true"], capture_output=True, timeout=60)
    return (setarch, "-R") if done.returncode == 0 else ()


def profile_command(qemu: Qemu, cpu: str, core: Core, root: Path, plugin: Path) -> list[str]:
    """Everything before the program and its arguments.

    The plugin writes ``trace.<process id>`` into the working folder. Run it with an empty
    environment: its size would shift the stack, and with it the cache counts.
    """
    if core.l1d is None or core.l2 is None:
        raise SetupError("the target file gives no caches (l1d, l2) to model", where=root)
    # in an option of QEMU a doubled comma is a plain one
    arguments = [f"{plugin}".replace(",", ",,"), "out=trace", f"line={core.l1d.line_bytes}"]
    for name, memory in (("l1", core.l1d), ("l2", core.l2)):
        arguments += [f"{name}sets={_sets(memory)}", f"{name}ways={memory.ways}"]
    return [*emulator_command(qemu, cpu, root), "-plugin", ",".join(arguments)]


def emulator_command(qemu: Qemu, cpu: str, root: Path) -> list[str]:
    """The same without the plugin: several times as fast, and nothing is counted."""
    command = list(_fixed_addresses())
    if prlimit := shutil.which("prlimit"):
        # a crash in the emulator would write a core of gigabytes
        command = [prlimit, "--core=0", *command]
    return [
        *command,
        *(str(qemu.path), "-seed", "1", "-R", _RESERVED, "-cpu", cpu, "-L", str(root)),
    ]


def _sets(memory: Cache) -> int:
    return memory.bytes // (memory.ways * memory.line_bytes)
