"""Which class is which back end: the built-in ones, and plugins by entry point.

A plugin of the group ``edgeofa.backends`` is named like its back end and loads to a subclass of
``Backend`` that can be made without arguments.
"""

from __future__ import annotations

import difflib
import warnings
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from edgeofa.backends.base import Backend
from edgeofa.backends.tvm.installed import require_tvm
from edgeofa.errors import SetupError, UsageError

GROUP = "edgeofa.backends"

_BUILT_IN = {
    "firmware": ("edgeofa.backends.firmware.backend", "FirmwareBackend"),
    "litert": ("edgeofa.backends.litert", "LiteRtBackend"),
    "onnxruntime": ("edgeofa.backends.onnx", "OnnxRuntimeBackend"),
    "tvm": ("edgeofa.backends.tvm.backend", "TvmBackend"),
}


def backend_names() -> list[str]:
    """Every name that ``get_backend`` may know; plugins are not loaded for it."""
    return sorted({*_BUILT_IN, *(e.name for e in entry_points(group=GROUP))})


def check_backend(name: str) -> None:
    """``UsageError`` for a name that no back end has."""
    if name not in backend_names():
        near = difflib.get_close_matches(name, backend_names(), n=1)
        raise UsageError(
            f"unknown back end {name!r}",
            hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(_BUILT_IN))}",
        )


def why_not(name: str) -> SetupError | None:
    """What keeps a back end from compiling on this machine; None where nothing does."""
    if name != "tvm":
        return None
    try:
        require_tvm()
    except SetupError as error:
        return error
    return None


def get_backend(name: str) -> Backend:
    """The back end called ``name``; ``UsageError`` when there is none, ``SetupError`` where it
    needs a package that is not installed.

    A built-in name always means the built-in back end. A plugin that does not load, or is no
    ``Backend``, is named in a warning and skipped.
    """
    problem = why_not(name)
    if problem is not None:
        raise problem
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        made: Backend = getattr(import_module(module), attribute)()
        return made
    for plugin in entry_points(group=GROUP, name=name):
        loaded = _load(plugin)
        if loaded is not None:
            return loaded
    check_backend(name)
    raise UsageError(
        f"the back end {name!r} comes from a plugin that does not load",
        hint=f"one of {', '.join(sorted(_BUILT_IN))}",
    )


def _load(plugin: EntryPoint) -> Backend | None:
    try:
        kind = plugin.load()
        if not (isinstance(kind, type) and issubclass(kind, Backend)):
            raise TypeError(f"{plugin.value} is no subclass of edgeofa.backends.base.Backend")
        made = kind()
        if made.name != plugin.name:
            raise TypeError(f"it calls itself {made.name!r}")
    except Exception as error:  # a plugin's code can raise anything, and must not stop the rest
        warnings.warn(
            f"back end plugin {plugin.name} ({plugin.value}) does not load: {error}", stacklevel=3
        )
        return None
    return made
