"""Where the runtimes' shared libraries are: those installed beside edgeofa, and those for boards
of another kind, which a set-up brought."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeofa.backends.tvm.installed import PIP_COMMAND, require_tvm
from edgeofa.emulation.runtimes import is_ready, runtime_of
from edgeofa.errors import DeviceError, SetupError, UsageError

#: the C interface that the runner declares for itself is checked with this major version
_LITERT_MAJOR = "2"


@dataclass(frozen=True)
class Library:
    """A runtime's library, and the one that has to be loaded before it."""

    path: Path
    version: str
    needed: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """In the order in which they are loaded."""
        return (self.path,) if self.needed is None else (self.needed, self.path)

    @property
    def identity(self) -> str:
        """Version and content, as devices tell them."""
        with self.path.open("rb") as file:
            return f"{self.version} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def runtime_names() -> tuple[str, ...]:
    """The back ends whose artifacts can be run on Linux."""
    return tuple(_INSTALLED)


def installed_library(backend: str) -> Library:
    """The shared library of an installed runtime; ``SetupError`` when it is not there."""
    if backend not in _INSTALLED:
        raise UsageError(
            f"no local runtime for {backend!r}", hint=f"one of {', '.join(_INSTALLED)}"
        )
    return _INSTALLED[backend]()


def library_for(backend: str, machine: str, where: str, target: str) -> Library:
    """The shared library of a back end for boards of a machine.

    Args:
        where: the board, for messages.
        target: its target, for the command that brings what is missing.

    Raises ``SetupError`` when it is not here yet, ``DeviceError`` when there is none.
    """
    if machine == platform.machine():
        return installed_library(backend)
    runtime = runtime_of(backend)
    if runtime is None or machine != "aarch64":
        raise DeviceError(f"no {machine} library of the back end {backend}", where=where)
    if not is_ready(runtime):
        raise SetupError(
            f"the aarch64 library of {runtime.requirement} is not prepared",
            where=where,
            hint=f"edgeofa setup --target {target} --backend {backend}",
        )
    return Library(
        runtime.path, runtime.version, runtime.needed.path if runtime.needed is not None else None
    )


def _litert() -> Library:
    path = _package_folder("ai_edge_litert") / "libLiteRt.so"
    if not path.is_file():
        raise SetupError(
            "libLiteRt.so is missing", where="host", hint="pip install ai-edge-litert==2.3.0"
        )
    version = metadata.version("ai-edge-litert")
    if version.split(".")[0] != _LITERT_MAJOR:
        raise SetupError(
            f"LiteRT {version}: the runner knows {_LITERT_MAJOR}.x",
            where=path,
            hint="pip install ai-edge-litert==2.3.0",
        )
    return Library(path, version)


def _onnxruntime() -> Library:
    paths = sorted((_package_folder("onnxruntime") / "capi").glob("libonnxruntime.so*"))
    if not paths:
        raise SetupError(
            "libonnxruntime.so is missing", where="host", hint="pip install onnxruntime"
        )
    return Library(paths[0], metadata.version("onnxruntime"))


def _tvm() -> Library:
    require_tvm()
    path = _package_folder("tvm") / "lib" / "libtvm_runtime.so"
    needed = _package_folder("tvm_ffi") / "lib" / "libtvm_ffi.so"
    for file in (path, needed):
        if not file.is_file():
            raise SetupError(f"{file.name} is missing", where="host", hint=PIP_COMMAND)
    return Library(path, metadata.version("apache-tvm"), needed)


#: back end -> how its library is found
_INSTALLED: dict[str, Callable[[], Library]] = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "tvm": _tvm,
}


def _package_folder(module: str) -> Path:
    """Where a package lies, without importing it; an empty path when it is not installed."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec is not None and spec.origin else Path()
