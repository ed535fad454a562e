"""Which class reaches which device: the built-in kinds, and plugins by entry point.

A kind is the ``device`` key of a target file and the scheme of an address (``ssh://pi@board``).
A plugin of the group ``edgeofa.devices`` is named like the kind that it serves, and loads to a
callable ``(Target, address) -> Device``; the address is None where only the kind was asked for.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from edgeofa.devices.base import Device
from edgeofa.devices.store import devices_of, find_device, stored_devices
from edgeofa.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from edgeofa.targets import Target

GROUP = "edgeofa.devices"

#: kind -> the class that is made of a target alone
_BUILT_IN = {
    "local": ("edgeofa.devices.local", "LocalDevice"),
    "qemu-user": ("edgeofa.devices.qemu_user", "QemuUserDevice"),
    "qemu-board": ("edgeofa.devices.qemu_board", "QemuBoardDevice"),
}
#: kind -> the class that is made of a target and an address
_ADDRESSED = {
    "ssh": ("edgeofa.devices.ssh", "SshDevice"),
    "serial": ("edgeofa.devices.serial_board", "SerialBoardDevice"),
    "tvm-rpc": ("edgeofa.devices.tvm_rpc", "TvmRpcDevice"),
}

Factory = Callable[["Target", str | None], Device]


def device_kinds() -> list[str]:
    """Every value that the ``device`` key of a target file may have."""
    return sorted({*_BUILT_IN, *_ADDRESSED, *(e.name for e in entry_points(group=GROUP))})


def device_for(target: Target, name: str | None = None) -> Device:
    """The device to use for ``target``.

    Args:
        name: a configured device (``edgeofa device list``), an address such as
            ``ssh://pi@board``, or a kind such as ``qemu-user``. By default the device that is
            configured for the target, else the one that the target file itself names.

    A built-in kind always means the built-in class. A plugin that does not load is named in a
    warning and skipped. Raises ``UsageError`` where it is not clear which device is meant, or the
    device was configured for another target; ``DeviceError`` where none can be made.
    """
    if name is None:
        configured = devices_of(target.name)
        if len(configured) > 1:
            names = " or ".join(d.name for d in configured)
            raise UsageError(f"target {target.name} has several devices", hint=f"--device {names}")
        if not configured:
            return _make(target, target.device, None)
        return _make(target, *_split(configured[0].address))
    stored = find_device(name)
    if stored is not None:
        if stored.target not in (None, target.name):
            raise UsageError(
                f"the device {name} is a {stored.target}, not a {target.name}",
                hint=f"--target {stored.target_file or stored.target}",
            )
        return _make(target, *_split(stored.address))
    if name in device_kinds():
        return _make(target, name, None)
    if ":" in name:
        return _make(target, *_split(name))
    near = difflib.get_close_matches(
        name, [*device_kinds(), *(d.name for d in stored_devices())], n=1
    )
    raise UsageError(
        f"no device is called {name!r}",
        hint=f"did you mean {near[0]}?" if near else "edgeofa device list",
    )


def check_address(address: str) -> None:
    """``UsageError`` for an address of no known kind, or that its kind does not understand."""
    kind, _ = _split(address)
    if kind in _ADDRESSED:
        module, name = _ADDRESSED[kind]
        getattr(import_module(module), name).check_address(address)
    elif kind not in device_kinds():
        near = difflib.get_close_matches(kind, device_kinds(), n=1)
        raise UsageError(
            f"no kind of device is called {kind[:40]!r}",
            hint=f"did you mean {near[0]}?" if near else "such as ssh://pi@raspberrypi.local",
        )


def _split(address: str) -> tuple[str, str]:
    """Kind and whole address."""
    return address.partition(":")[0], address


def _make(target: Target, kind: str, address: str | None) -> Device:
    if kind in _ADDRESSED:
        if address is None:
            raise DeviceError(
                f"the target is reached by {kind}, and no device is configured for it",
                where=f"target {target.name}",
                hint=f"edgeofa device add NAME {kind}://... --target {target.name}; "
                f"or --device {kind}://...",
            )
        module, name = _ADDRESSED[kind]
        reached: Device = getattr(import_module(module), name)(target, address)
        return reached
    if kind in _BUILT_IN:
        module, name = _BUILT_IN[kind]
        made: Device = getattr(import_module(module), name)(target)
        return made
    for plugin in entry_points(group=GROUP, name=kind):
        factory = _load(plugin)
        if factory is not None:
            return _checked(factory(target, address), plugin)
    near = difflib.get_close_matches(kind, device_kinds(), n=1)
    raise DeviceError(
        f"no way to reach a device of kind {kind!r}",
        where=f"target {target.name}",
        hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(device_kinds())}",
    )


def _load(plugin: EntryPoint) -> Factory | None:
    try:
        factory: Factory = plugin.load()
    except Exception as error:  # a plugin's import can raise anything, and must not stop the rest
        reason = f"does not load: {error}"
    else:
        if callable(factory):
            return factory
        reason = f"is a {type(factory).__name__}, not something that makes a device"
    warnings.warn(f"device plugin {plugin.name} ({plugin.value}) {reason}", stacklevel=3)
    return None


def _checked(device: object, plugin: EntryPoint) -> Device:
    if isinstance(device, Device):
        return device
    raise DeviceError(
        f"the plugin made a {type(device).__name__}, which is no edgeofa.devices.base.Device",
        where=f"device plugin {plugin.name} ({plugin.value})",
    )
