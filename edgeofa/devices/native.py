"""Builds what is written in C, once per content of its sources, into the user's cache."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from filelock import FileLock

from edgeofa.errors import SetupError
from edgeofa.paths import cache_dir, data_dir

Arch = Literal["x86_64", "aarch64"]
Toolchain = Literal["host", "aarch64-linux-gnu"]

RUNNER = "edgeofa-runner"
#: what a board needs beside the runner, see targets/runtime/board/board.c
BOARD = "edgeofa-board"
_ARCHITECTURES: dict[str, Arch] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}
_BUILD_TIMEOUT_S = 600
_SOURCE_SUFFIXES = {".c", ".h", ".cmake"}
_COMPILERS: dict[Toolchain, str] = {"host": "cc", "aarch64-linux-gnu": "aarch64-linux-gnu-gcc"}
_PACKAGES: dict[Toolchain, str] = {
    "host": "cmake make gcc libc6-dev",
    "aarch64-linux-gnu": "cmake make gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
}


def runner_path(arch: Arch) -> Path:
    """The runner for a processor architecture, built when it is not in the cache yet."""
    return _program(RUNNER, arch)


def own_arch() -> Arch:
    """This machine's architecture; ``SetupError`` where nothing is built for it."""
    machine = platform.machine().lower()
    if machine not in _ARCHITECTURES:
        raise SetupError(f"edgeofa knows x86-64 and aarch64 Linux, not {machine}", where="host")
    return _ARCHITECTURES[machine]


def board_path(arch: Arch) -> Path:
    """The boards' helper program, as ``runner_path``."""
    return _program(BOARD, arch)


def _program(name: str, arch: Arch) -> Path:
    own = platform.machine() == arch
    if arch == "x86_64" and not own:
        raise SetupError("programs for x86-64 are built on x86-64 machines only", where=name)
    return build(name, "host" if own else "aarch64-linux-gnu")


def build(target: str, toolchain: Toolchain) -> Path:
    """The file that the CMake target ``target`` builds with ``toolchain``.

    A build lies in the cache under the digest of all C sources, so that
    it is made once and never stale. Two processes do not build the same thing at once, and one
    that is interrupted leaves nothing behind. Raises ``SetupError`` when a tool is missing or the
    build fails.
    """
    folder = cache_dir() / "native" / source_digest() / toolchain
    finished = folder / target
    if finished.is_file():
        return finished
    missing = [x for x in ("cmake", "make", _COMPILERS[toolchain]) if shutil.which(x) is None]
    if missing:
        raise SetupError(
            f"missing: {', '.join(missing)}",
            where=target,
            hint=f"apt-get install -y --no-install-recommends {_PACKAGES[toolchain]}",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{target}.lock"):
        if not finished.is_file():
            with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
                built = _cmake(target, toolchain, Path(work))
                built.replace(finished)
    return finished


def source_digest() -> str:
    """Of everything that a build reads: the C sources, CMake's files and the toolchain files."""
    root = data_dir()
    files = [root / "CMakeLists.txt"]
    for folder in ("targets/runtime", "firmware_scripts"):
        files += [p for p in (root / folder).rglob("*") if p.suffix in _SOURCE_SUFFIXES]
    # firmware has a digest of its own, see backends/firmware/link.py
    files = [p for p in files if not p.is_relative_to(root / "targets" / "runtime" / "mcu")]
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _cmake(target: str, toolchain: Toolchain, work: Path) -> Path:
    root = data_dir()
    configure = ["cmake", "-G", "Unix Makefiles", "-S", str(root), "-B", str(work)]
    if toolchain != "host":
        file = root / "firmware_scripts" / "toolchains" / f"{toolchain}.cmake"
        configure.append(f"-DCMAKE_TOOLCHAIN_FILE={file}")
    for command in (configure, ["cmake", "--build", str(work), "--target", target]):
        _run(command, target)
    for name in (target, f"{target}.so", f"lib{target}.so"):
        if (work / name).is_file():
            return work / name
    raise SetupError(f"cmake built no file for the target {target}", where=root / "CMakeLists.txt")


def _run(command: list[str], target: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"the build did not end within {_BUILD_TIMEOUT_S} s", where=target) from (
            error
        )
    if done.returncode:
        tail = (done.stderr or done.stdout)[-2000:].strip()
        raise SetupError(f"the build failed:\n{tail}", where=target)
