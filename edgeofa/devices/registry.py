"""Which class reaches which device: the built-in kinds, and plugins by entry point.

A plugin of the group ``edgeofa.devices`` is named like the ``device`` key of the target files
that it serves, and loads to a callable ``Target -> Device``.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from edgeofa.devices.base import Device
from edgeofa.errors import DeviceError

if TYPE_CHECKING:
    from edgeofa.targets import Target

GROUP = "edgeofa.devices"

_BUILT_IN = {
    "local": ("edgeofa.devices.local", "LocalDevice"),
    "qemu-user": ("edgeofa.devices.qemu_user", "QemuUserDevice"),
}


def device_kinds() -> list[str]:
    """Every value that the ``device`` key of a target file may have."""
    return sorted({*_BUILT_IN, *(e.name for e in entry_points(group=GROUP))})


def device_for(target: Target) -> Device:
    """The device that ``target`` is reached by; ``DeviceError`` where none can be made.

    A built-in kind always means the built-in class. A plugin that does not load is named in a
    warning and skipped.
    """
    kind = target.device
    if kind in _BUILT_IN:
        module, name = _BUILT_IN[kind]
        made: Device = getattr(import_module(module), name)(target)
        return made
    for plugin in entry_points(group=GROUP, name=kind):
        factory = _load(plugin)
        if factory is not None:
            return factory(target)
    near = difflib.get_close_matches(kind, device_kinds(), n=1)
    raise DeviceError(
        f"no way to reach a device of kind {kind!r}",
        where=f"target {target.name}",
        hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(device_kinds())}",
    )


def _load(plugin: EntryPoint) -> Callable[[Target], Device] | None:
    try:
        factory: Callable[[Target], Device] = plugin.load()
    except Exception as error:  # a plugin's import can raise anything, and must not stop the rest
        warnings.warn(
            f"device plugin {plugin.name} ({plugin.value}) does not load: {error}", stacklevel=3
        )
        return None
    return factory
