"""What a Linux board says of itself, checked, and which target it is one of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.devices.protocol import Printable, State
from edgeofa.errors import DeviceError
from edgeofa.targets import Core, Target

#: Arm's own cores by the part number of their main identification register (Arm's technical
#: reference manuals, MIDR_EL1; the same table is in the Linux kernel's cputype.h)
_ARM_PARTS = {
    0xD03: "cortex-a53",
    0xD04: "cortex-a35",
    0xD05: "cortex-a55",
    0xD07: "cortex-a57",
    0xD08: "cortex-a72",
    0xD09: "cortex-a73",
    0xD0A: "cortex-a75",
    0xD0B: "cortex-a76",
    0xD0C: "neoverse-n1",
    0xD0D: "cortex-a77",
    0xD40: "neoverse-v1",
    0xD41: "cortex-a78",
    0xD42: "cortex-a78ae",
    0xD44: "cortex-x1",
    0xD46: "cortex-a510",
    0xD47: "cortex-a710",
    0xD48: "cortex-x2",
    0xD49: "neoverse-n2",
    0xD4B: "cortex-a78c",
    0xD4D: "cortex-a715",
    0xD4E: "cortex-x3",
    0xD4F: "neoverse-v2",
    0xD80: "cortex-a520",
    0xD81: "cortex-a720",
    0xD82: "cortex-x4",
}
_ARM = 0x41


Text = Annotated[str, Field(max_length=200), Printable]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Clock(_Model):
    """One group of cores that share a clock."""

    policy: int
    max_hz: Number | None
    min_hz: Number | None
    now_hz: Number | None
    may_be_set: bool
    governor: Text | None


class CacheFacts(_Model):
    level: int
    kind: Text | None
    bytes: int | None = Field(ge=0)
    ways: int | None = Field(ge=0)
    line_bytes: int | None = Field(ge=0)


class BoardFacts(_Model):
    """The answer of ``edgeofa-board probe``; None where the board does not tell.

    ``emulator``: why its clock is not that of a processor; ``libc`` such as ``glibc 2.36`` or
    ``musl``; ``parts`` the part number of each processor.
    """

    event: Literal["board"]
    protocol: Literal[1]
    machine: Literal["aarch64", "x86_64"]
    emulator: Text | None
    kernel: Text | None
    libc: Text | None
    processors: int | None = Field(ge=1, le=4096)
    parts: tuple[int, ...] = Field(max_length=256)
    implementer: int | None
    processor_hz: Number | None
    processor_name: Text | None
    features: str = Field(max_length=2048)
    model: Text | None
    clocks: tuple[Clock, ...] = Field(max_length=64)
    caches: tuple[CacheFacts, ...] = Field(max_length=8)
    ram_bytes: int | None = Field(ge=0)
    free_bytes: int | None = Field(ge=0)
    state: State

    @property
    def microarchitecture(self) -> str:
        """Names of the cores, the smallest first where there are several kinds."""
        if not self.parts:
            name = re.sub(r"[^a-z0-9]+", "-", (self.processor_name or self.machine).lower())
            return name.strip("-")[:40] or self.machine
        return " ".join(dict.fromkeys(self._core_name(part) for part in sorted(self.parts)))

    def _core_name(self, part: int) -> str:
        if self.implementer == _ARM and part in _ARM_PARTS:
            return _ARM_PARTS[part]
        return f"arm-{self.implementer or 0:02x}-{part:03x}"

    @property
    def glibc(self) -> tuple[int, int] | None:
        """Version of the C library; None where it is another one, or unreadable."""
        match = re.fullmatch(r"glibc ([0-9]{1,3})\.([0-9]{1,3})", self.libc or "")
        return (int(match[1]), int(match[2])) if match else None

    @property
    def clock_hz(self) -> float | None:
        """The highest clock of any core."""
        return max((c.max_hz for c in self.clocks if c.max_hz), default=self.processor_hz)

    @property
    def clocks_note(self) -> str:
        """How steady the clock is while something is measured."""
        if not self.clocks:
            return "no clock governor"
        if all(c.may_be_set for c in self.clocks):
            return "pinned at the highest while measuring"
        governors = sorted({c.governor or "unknown" for c in self.clocks})
        return f"governor {', '.join(governors)}, not ours to pin"


def parse_facts(answer: bytes, where: str) -> BoardFacts:
    """The facts in an answer; ``DeviceError`` for anything else."""
    try:
        return BoardFacts.model_validate_json(answer)
    except ValidationError as error:
        first = error.errors()[0]
        raise DeviceError(
            f"the board answers nonsense: {first['msg']} in {answer[:80]!r}", where=where
        ) from error


def check_belongs(facts: BoardFacts, target: Target, where: str) -> None:
    """``DeviceError`` where the board cannot be one of ``target``."""
    core = target.core
    if core is None:
        return
    differences = []
    if core.isa != facts.machine:
        differences.append(f"is {facts.machine}, not {core.isa}")
    if core.microarchitecture != facts.microarchitecture and _known(core, facts):
        differences.append(f"has {facts.microarchitecture} cores, not {core.microarchitecture}")
    if facts.processors is not None and facts.processors < core.cores:
        differences.append(f"has {facts.processors} processors, not {core.cores}")
    if differences:
        raise DeviceError(
            f"the board belongs to another target: it {', '.join(differences)}",
            where=f"{where}, target {target.name}",
            hint="edgeofa device list; for a new kind of board: edgeofa target new --from-device",
        )


def _known(core: Core, facts: BoardFacts) -> bool:
    """Whether the board says which cores it has; what it does not say is no difference."""
    return core.isa == facts.machine and (bool(facts.parts) or facts.processor_name is not None)


def needed_glibc(program: bytes) -> tuple[int, int]:
    """The newest version of glibc that an ELF file asks for by name; (0, 0) for none."""
    found = re.findall(rb"\x00GLIBC_2\.([0-9]{1,3})(?=\.|\x00)", program)
    return (2, max(map(int, found))) if found else (0, 0)


def check_libc(facts: BoardFacts, program: bytes, name: str, where: str) -> None:
    """``DeviceError`` where a program or library cannot be loaded with the board's C library."""
    needed = needed_glibc(program)
    if needed == (0, 0):
        return
    text = f"{needed[0]}.{needed[1]}"
    if facts.libc is None:
        raise DeviceError(
            f"the board has no C library for {facts.machine} programs (a 32-bit system on a "
            f"64-bit kernel?); {name} needs glibc {text}",
            where=where,
            hint=f"install a 64-bit ({facts.machine}) system",
        )
    if facts.libc == "musl":
        raise DeviceError(
            f"the board's C library is musl; {name} needs glibc {text}",
            where=where,
            hint="use a system with glibc (Debian, Ubuntu, Fedora, Yocto's default)",
        )
    if facts.glibc is not None and facts.glibc < needed:
        raise DeviceError(
            f"the board has {facts.libc}; {name} needs {text} or newer",
            where=where,
            hint="a newer system on the board",
        )
