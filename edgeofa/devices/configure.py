"""Adding a device: its address and its target are checked before they are kept."""

from __future__ import annotations

from pathlib import Path

from edgeofa.devices.registry import check_address, device_kinds
from edgeofa.devices.store import StoredDevice, add_device, new_device
from edgeofa.errors import UsageError
from edgeofa.targets import load_target, target_path


def configure(
    name: str, address: str, target: str | None = None, *, replace: bool = False
) -> StoredDevice:
    """Keep ``address`` under ``name`` as a device of ``target`` (a key, or a file's path).

    Raises ``UsageError`` for a bad name, address or target, or a name that is taken.
    """
    stored = stored_device(name, address, target)
    add_device(stored, replace=replace)
    return stored


def stored_device(name: str, address: str, target: str | None) -> StoredDevice:
    """The record that ``configure`` keeps, checked."""
    if name in device_kinds():
        raise UsageError(f"{name} is a kind of device", hint="choose another name")
    check_address(address)
    if target is None:
        return new_device(name, address, None, None)
    file = str(Path(target_path(target)).resolve()) if target.endswith(".toml") else None
    return new_device(name, address, load_target(target).name, file)
