"""The shipped aarch64 runtimes: one shared library out of each pinned wheel.

TVM's runtime stands on a second library, which comes in a wheel of its own.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.tvm.installed import VERSIONS
from edgeofa.errors import FileFormatError, SetupError
from edgeofa.paths import cache_dir, write_atomic

_DOWNLOAD_TIMEOUT_S = 900
_MAX_WHEEL_BYTES = 1 << 27
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")


@dataclass(frozen=True)
class Runtime:
    """One pinned wheel and the library in it that the runner loads, after the ``needed`` one."""

    backend: str
    project: str
    version: str
    wheel_sha256: str
    member: str
    library_bytes: int
    library_sha256: str
    needed: Runtime | None = None

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"

    @property
    def path(self) -> Path:
        """Where the library lies once it was prepared."""
        folder = cache_dir() / "runtimes" / "aarch64"
        return folder / f"{self.project}-{self.version}-{self.library_sha256[:12]}.so"


RUNTIMES = (
    Runtime(
        backend="litert",
        project="ai-edge-litert",
        version="2.3.0",
        wheel_sha256="853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
        member="ai_edge_litert/libLiteRt.so",
        library_bytes=5_991_672,
        library_sha256="b57687dc234d2b8b0598aef5a9c961ed24263df8f8b3f56adbee1cff618e544b",
    ),
    Runtime(
        backend="onnxruntime",
        project="onnxruntime",
        version="1.32.0",
        wheel_sha256="2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
        member="onnxruntime/capi/libonnxruntime.so.1.32.0",
        library_bytes=27_165_936,
        library_sha256="49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
    ),
    Runtime(
        backend="tvm",
        project="apache-tvm",
        version=VERSIONS["apache-tvm"],
        wheel_sha256="4acfdb7653e4e1ba7a707bdf2833db72eb8fda7d04d99141f2a4e1da43171fb7",
        member="tvm/lib/libtvm_runtime.so",
        library_bytes=2_953_920,
        library_sha256="ba06950fac134b8d71549111fad2c6605cd6f738061fe0482f217c37ccbdff05",
        needed=Runtime(
            backend="tvm",
            project="apache-tvm-ffi",
            version=VERSIONS["apache-tvm-ffi"],
            wheel_sha256="c7a759781d4fbf2b99fa12f2741f250b882b06acc2747bb02831d491d1ac7d3c",
            member="tvm_ffi/lib/libtvm_ffi.so",
            library_bytes=2_232_416,
            library_sha256="673d816bd962daddb55d8b0f8ae137e797500307951d0f721227731df0c13e24",
        ),
    ),
)


def runtime_of(backend: str) -> Runtime | None:
    """The runtime of a back end; None where no aarch64 one is shipped."""
    return next((r for r in RUNTIMES if r.backend == backend), None)


def is_ready(runtime: Runtime) -> bool:
    """The library is there and is the pinned one, to the last byte; so is the one it needs."""
    if runtime.needed is not None and not is_ready(runtime.needed):
        return False
    path = runtime.path
    if not path.is_file() or path.stat().st_size != runtime.library_bytes:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == runtime.library_sha256


def fetch(runtime: Runtime) -> None:
    """Download the wheel with pip and keep its library; nothing else is left behind. A needed
    library that is not there comes first.

    Raises ``SetupError`` when pip fails, ``FileFormatError`` when what came is not the pinned
    wheel.
    """
    if runtime.needed is not None and not is_ready(runtime.needed):
        fetch(runtime.needed)
    folder = runtime.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as work:
        extract(runtime, _download(runtime, Path(work)))


def extract(runtime: Runtime, wheel: Path) -> None:
    """Put the library of a wheel in its place if both are the pinned ones."""
    size = wheel.stat().st_size
    if size > _MAX_WHEEL_BYTES:
        raise FileFormatError(f"a wheel of {size} bytes is not {runtime.requirement}", where=wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != runtime.wheel_sha256:
        raise FileFormatError(
            f"not the pinned wheel of {runtime.requirement} (sha256 {digest[:16]}…)",
            where=wheel.name,
            hint="another index or a proxy may serve other files; clear pip's cache and run again",
        )
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(runtime.member)
            if member.file_size != runtime.library_bytes:
                raise FileFormatError(f"{runtime.member} has another size", where=wheel.name)
            content = archive.read(member)
    except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise FileFormatError(f"not a readable wheel: {error}", where=wheel.name) from error
    if hashlib.sha256(content).hexdigest() != runtime.library_sha256:
        raise FileFormatError(f"{runtime.member} is not the pinned file", where=wheel.name)
    write_atomic(runtime.path, content)


def _download(runtime: Runtime, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", "311"]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    command += ["--dest", str(folder), runtime.requirement]
    where = runtime.requirement
    hint = "check the network and pip's configuration, then run edgeofa setup again"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SetupError("the download took too long", where=where, hint=hint) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [x for x in done.stderr.strip().splitlines() if not x.startswith("WARNING")]
        reason = "; ".join(lines[-3:])[:600] or f"{len(wheels)} wheels came"
        raise SetupError(f"pip could not download it: {reason}", where=where, hint=hint)
    return wheels[0]
