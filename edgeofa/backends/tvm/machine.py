"""What code is generated for: a processor, named explicitly and never detected by the compiler."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeofa.errors import UsageError
from edgeofa.targets import Target

#: what multiplies int8 vectors: VNNI's vpdpbusd, Armv8.2's sdot, pairs of Armv8.0's smull and
#: smlal, or nothing better than 32-bit products
Dot = Literal["vnni", "sdot", "mlal", "none"]


@dataclass(frozen=True)
class Machine:
    """A processor as the schedules see it.

    ``lane_multiply``: a multiply-add takes one lane of a register as its scalar (Arm), so that four
    inputs are loaded at once; else the scalar is read from memory (x86).
    """

    key: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_bytes: int
    registers: int
    lane_multiply: bool
    dot: Dot
    l1_bytes: int = 32768

    @property
    def is_arm(self) -> bool:
        """It is AArch64, the others are x86-64."""
        return self.triple.startswith("aarch64")

    def lanes(self, element_bytes: int) -> int:
        """Elements of one vector register."""
        return self.vector_bytes // element_bytes

    @property
    def llvm_target(self) -> dict[str, object]:
        """The compiler's description of it."""
        target: dict[str, object] = {
            "kind": "llvm",
            "mtriple": self.triple,
            "mcpu": self.cpu,
        }
        if self.features:
            target["mattr"] = [f"+{feature}" for feature in self.features]
        return target


_ARM = "aarch64-linux-gnu"
_X86 = "x86_64-linux-gnu"


def _x86(key: str, cpu: str, features: tuple[str, ...], vector_bytes: int, dot: Dot) -> Machine:
    registers = 32 if vector_bytes == 64 else 16
    return Machine(
        f"x86-64-{key}",
        _X86,
        cpu,
        features,
        vector_bytes,
        registers,
        lane_multiply=False,
        dot=dot,
    )


# prefer-256-bit is LLVM's default for server processors; our vectors are as wide as they say
_WIDE = ("avx512f", "avx512bw", "avx512vl", "avx512dq")
MACHINES: dict[str, Machine] = {
    m.key: m
    for m in (
        Machine("cortex-a53", _ARM, "cortex-a53", ("neon",), 16, 32, True, "mlal"),
        Machine("cortex-a72", _ARM, "cortex-a72", ("neon",), 16, 32, True, "mlal"),
        Machine("cortex-a76", _ARM, "cortex-a76", ("neon", "dotprod"), 16, 32, True, "sdot", 65536),
        _x86("avx2", "haswell", (), 32, "none"),
        _x86("avx512", "skylake-avx512", _WIDE, 64, "none"),
        _x86("avx512-vnni", "cascadelake", (*_WIDE, "avx512vnni"), 64, "vnni"),
    )
}


def machine_for(target: Target) -> Machine:
    """The machine of a target's core, or of this computer for a target without one.

    Raises ``UsageError`` for a core that no schedule was written for.
    """
    if target.core is None:
        return host_machine()
    name = target.core.microarchitecture
    if name not in MACHINES:
        known = ", ".join(key for key, machine in MACHINES.items() if machine.is_arm)
        raise UsageError(
            f"the back end tvm has no schedules for {name}",
            where=f"target {target.name}",
            hint=f"it has them for {known} and x86-64 with AVX2",
        )
    return MACHINES[name]


def host_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The machine that this program runs on, by what its processor says of itself."""
    if platform.machine() != "x86_64":
        # what every 64-bit Arm core runs; its order of execution hides what is not tuned
        return MACHINES["cortex-a72"]
    flags: set[str] = set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    if "avx2" not in flags or "fma" not in flags:
        raise UsageError("the back end tvm needs AVX2 and FMA", where="this processor")
    if not {*_WIDE} <= flags:
        return MACHINES["x86-64-avx2"]
    return MACHINES["x86-64-avx512-vnni" if "avx512_vnni" in flags else "x86-64-avx512"]
