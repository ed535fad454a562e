"""The user's devices: a name, the address that reaches it, and the target it is one of.

One file in the user's configuration folder, written whole and checked whole; no code and no
secret is in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeofa.errors import FileFormatError, UsageError
from edgeofa.paths import config_dir, write_atomic

_MAX_FILE_BYTES = 1 << 20
_MAX_DEVICES = 1000

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredDevice(_Model):
    """One configured device.

    ``target`` is the name of the target that it is one of, None while nobody has said;
    ``target_file`` is that target's file where it is not a shipped one.
    """

    name: Name
    address: str = Field(pattern=r"^[a-z][a-z0-9-]*:\S*$", max_length=1024)
    target: str | None = None
    target_file: str | None = None


class _File(_Model):
    schema_version: Literal[1] = 1
    devices: tuple[StoredDevice, ...] = Field(default=(), max_length=_MAX_DEVICES)

    @model_validator(mode="after")
    def _distinct(self) -> _File:
        names = [d.name for d in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("two devices of one name")
        return self


def store_path() -> Path:
    """Where the list of devices is kept."""
    return config_dir() / "devices.json"


def stored_devices() -> tuple[StoredDevice, ...]:
    """Every configured device, by name; ``FileFormatError`` for a foreign or broken file."""
    path = store_path()
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ()
    hint = "correct it, or remove it and add the devices again"
    if len(content) > _MAX_FILE_BYTES:
        raise FileFormatError("a list of devices is at most 1 MiB", where=path, hint=hint)
    try:
        return _File.model_validate_json(content).devices
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise FileFormatError(f"{place}: {first['msg']}", where=path, hint=hint) from error


def find_device(name: str) -> StoredDevice | None:
    """The configured device ``name``."""
    return next((d for d in stored_devices() if d.name == name), None)


def require_device(name: str) -> StoredDevice:
    """The configured device ``name``; ``UsageError`` with the nearest name where there is none."""
    devices = {d.name: d for d in stored_devices()}
    if name in devices:
        return devices[name]
    near = difflib.get_close_matches(name, devices, n=1)
    known = f"one of {', '.join(sorted(devices))}" if devices else "edgeofa device add NAME ADDRESS"
    raise UsageError(
        f"no device is called {name!r}", hint=f"did you mean {near[0]}?" if near else known
    )


def devices_of(target: str) -> tuple[StoredDevice, ...]:
    """The configured devices of a target."""
    return tuple(d for d in stored_devices() if d.target == target)


def add_device(device: StoredDevice, *, replace: bool = False) -> None:
    """Keep a device; one of that name is replaced only where ``replace`` says so."""
    with _changing() as devices:
        if device.name in devices and not replace:
            raise UsageError(
                f"there is a device {device.name!r} already ({devices[device.name].address})",
                hint=f"edgeofa device remove {device.name}",
            )
        devices[device.name] = device


def remove_device(name: str) -> StoredDevice:
    """Forget a device and return what was known of it."""
    removed = require_device(name)
    with _changing() as devices:
        devices.pop(name, None)
    return removed


def new_device(name: str, address: str, target: str | None, file: str | None) -> StoredDevice:
    """A checked record; ``UsageError`` for a bad name or address."""
    try:
        return StoredDevice(name=name, address=address, target=target, target_file=file)
    except ValidationError as error:
        key = error.errors()[0]["loc"][0]
        hints = {
            "name": "small letters, digits, dots, dashes and underscores, such as desk-pi",
            "address": "such as ssh://pi@raspberrypi.local",
        }
        shown = {"name": name, "address": address}.get(str(key), "")
        raise UsageError(f"not a device {key}: {shown[:80]!r}", hint=hints.get(str(key))) from error


@contextmanager
def _changing() -> Iterator[dict[str, StoredDevice]]:
    path = store_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        devices = {d.name: d for d in stored_devices()}
        yield devices
        file = _File(devices=tuple(devices[name] for name in sorted(devices)))
        write_atomic(path, file.model_dump_json(indent=2) + "\n")
