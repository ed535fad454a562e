"""Targets: kinds of devices, one TOML file each, validated whole before use."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from edgeofa.datafile import read_data_file
from edgeofa.devices.registry import device_kinds
from edgeofa.devices.store import stored_devices
from edgeofa.errors import UsageError
from edgeofa.graph.ir import DType
from edgeofa.intervals import DataModel, Interval
from edgeofa.microcontroller import Microcontroller
from edgeofa.paths import data_dir

_MAX_FILE_BYTES = 1 << 18


class Cache(DataModel):
    bytes: int = Field(gt=0)
    ways: int = Field(gt=0)
    line_bytes: int = Field(gt=0)


class Core(DataModel):
    isa: str
    microarchitecture: str
    clock_hz: float = Field(gt=0)
    cores: int = Field(gt=0)
    l1d: Cache | None = None
    l2: Cache | None = None
    source: str


class Memory(DataModel):
    ram_bytes: int = Field(gt=0)
    flash_bytes: int | None = Field(default=None, gt=0)
    source: str


class Power(DataModel):
    """Watts of the whole board."""

    idle_w: Interval
    #: added by each busy core
    core_w: Interval


class Emulation(DataModel):
    """How the target is emulated when no board is at hand."""

    engine: Literal["qemu-user"]
    #: QEMU's ``-cpu`` and llvm-mca's ``-mcpu``
    cpu: str
    mca_cpu: str
    #: the main identification register's fields that runtimes choose kernels by
    cpu_implementer: str
    cpu_part: str
    cpu_features: str
    #: constants of the latency model, see docs/numbers.md
    model: str


class Target(DataModel):
    """A kind of device. ``backends`` are in order of preference."""

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str
    #: the way to reach it, see devices/registry.py
    device: str
    default_space: str
    backends: tuple[str, ...] = Field(min_length=1)
    precisions: tuple[DType, ...] = Field(min_length=1)
    core: Core | None = None
    memory: Memory | None = None
    power: Power | None = None
    emulation: Emulation | None = None
    mcu: Microcontroller | None = None

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if value not in device_kinds():
            raise ValueError(f"must be one of {', '.join(device_kinds())}")
        return value

    @model_validator(mode="after")
    def _emulation(self) -> Target:
        if self.device == "qemu-user" and (self.emulation is None or self.core is None):
            raise ValueError("device = 'qemu-user' needs the sections [core] and [emulation]")
        if self.device in ("qemu-board", "serial") and (self.mcu is None or self.core is None):
            raise ValueError(f"device = {self.device!r} needs the sections [core] and [mcu]")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over everything that can change a number, the first 16 hex digits."""
        # a table belongs to one back end, and stays what it is when another one comes
        unread: dict[str, Any] = {"description": True, "default_space": True, "backends": True}
        # how a board is reached changes no number; targets of other kinds have no such section
        unread["mcu"] = True if self.mcu is None else {"serial": True, "flashing": True}
        text = self.model_dump_json(exclude=unread)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def target_names() -> list[str]:
    """Names of the shipped targets."""
    return sorted(p.stem for p in (data_dir() / "targets").glob("*.toml"))


def own_targets() -> dict[str, Path]:
    """The user's own targets, those of configured devices: name and file."""
    return {
        d.target: Path(d.target_file)
        for d in stored_devices()
        if d.target is not None and d.target_file is not None
    }


def target_path(name: str) -> Path:
    """Where the file of a target is: ``name`` is a key, or a path that ends in ``.toml``.

    A shipped target goes before one of the user's with its name.
    """
    if name.endswith(".toml"):
        return Path(name)
    shipped = data_dir() / "targets" / f"{name}.toml"
    return shipped if shipped.is_file() else own_targets().get(name, shipped)


def load_target(name: str) -> Target:
    """A shipped target or one of the user's by name, or a target file by path (``.toml``)."""
    path = target_path(name)
    if not path.is_file():
        if name in own_targets():
            raise UsageError(
                f"the file of target {name} is not there any more",
                where=path,
                hint="edgeofa device list; edgeofa target new writes it again",
            )
        near = difflib.get_close_matches(name, target_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(target_names())}."
        raise UsageError(f"unknown target {name!r}", hint=f"{hint} A .toml file works too.")
    return read_data_file(path, Target, _MAX_FILE_BYTES)
