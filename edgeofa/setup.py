"""Brings what a target needs onto this machine, and says what is missing.

Two kinds of things are needed. Packages of the operating system are found, and installed only as
root and only when asked. Everything else lies in edgeofa's cache: libraries out of pinned wheels,
the root folder of the emulated machine, what is built from C. Each piece appears whole or not at
all, under one lock, so that an interrupted set-up is simply started again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from edgeofa.backends.firmware.link import COMPILER, PACKAGES, find_compiler
from edgeofa.backends.tvm.installed import (
    PIP_COMMAND,
    VERSIONS,
    is_installed,
    require_tvm,
    tvm_problem,
)
from edgeofa.devices.native import Arch, board_path, build, own_arch, runner_path
from edgeofa.emulation.cortex_m import cortex_model
from edgeofa.emulation.mca import find_llvm
from edgeofa.emulation.qemu import SYSTEM, find_qemu
from edgeofa.emulation.runtimes import RUNTIMES, Runtime, fetch, is_ready
from edgeofa.emulation.sysroot import LIBRARIES, missing_libraries, sysroot
from edgeofa.errors import SetupError
from edgeofa.microcontroller import Microcontroller
from edgeofa.paths import cache_dir
from edgeofa.targets import Target

_TVM = "tvm"
_INSTALL_TIMEOUT_S = 1800
_APT_LOCK_S = 300
#: called with what happens next, how many steps are done, and how many there are
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Requirement:
    """Something that a target needs. ``found`` is a version or path, None when missing;
    ``command`` brings it; ``packages`` are Debian's, where it is the operating system's. What is
    ``optional`` is one more back end, and the target does without."""

    name: str
    purpose: str
    found: str | None
    command: str
    packages: tuple[str, ...] = ()
    optional: bool = False

    @property
    def is_missing(self) -> bool:
        """It has to be brought before the target can be used."""
        return self.found is None and not self.optional


@dataclass(frozen=True)
class Prepared:
    """What a set-up did: each piece that it brought or checked, and everything that is there."""

    target: str
    cache: Path
    steps: tuple[str, ...]
    requirements: tuple[Requirement, ...]


def requirements(target: Target, backend: str | None = None) -> tuple[Requirement, ...]:
    """Everything that ``target`` needs beyond the Python package, found or not.

    Args:
        backend: one that is wanted beside those that every installation has.
    """
    needed = [
        _tool("cmake", "builds the runner", "cmake"),
        _tool("make", "builds the runner", "make"),
        _tool("cc", "compiles for this machine", "gcc", "libc6-dev"),
    ]
    if target.device == "qemu-user":
        needed += _emulation_packages()
        needed += [_library(runtime, target) for runtime in _runtimes(target, backend)]
    if target.mcu is not None:
        needed += _mcu_packages(target.mcu)
    if target.device == "ssh":
        needed.append(_tool("ssh", "reaches the board", "openssh-client"))
        if _is_foreign(target):
            needed.append(_cross_compiler())
            needed += [_library(runtime, target) for runtime in _runtimes(target, backend)]
    if _TVM in (*target.backends, backend):
        needed.append(_tvm_package(is_wanted=backend == _TVM))
    return tuple(needed)


def prepare(
    target: Target,
    *,
    backend: str | None = None,
    install: bool = False,
    report: Report = lambda *_: None,
) -> Prepared:
    """Make ``target`` usable on this machine; does nothing that is already done.

    Args:
        backend: one that is wanted beside those that every installation has.
        install: as root, let apt-get install missing packages.
        report: told about each step.

    Raises ``SetupError`` with the one command that is needed when packages are missing.
    """
    cache = cache_dir()
    done: list[str] = []
    if backend == _TVM:
        require_tvm()
    with FileLock(cache / "setup.lock"):
        if packages := missing_packages(requirements(target, backend)):
            _install(packages, allowed=install, report=report)
            done.append(f"installed {' '.join(packages)}")
        steps = _steps(target, backend)
        for number, (name, action) in enumerate(steps):
            report(name, number, len(steps))
            action()
            done.append(name)
        after = requirements(target, backend)
        if lacking := [r.name for r in after if r.is_missing]:
            raise SetupError(
                f"still not usable after setting up: {', '.join(lacking)}",
                where=f"target {target.name}",
                hint="another version may come first in PATH; edgeofa doctor lists what is found",
            )
        report("ready", len(steps), len(steps))
    return Prepared(target.name, cache, tuple(done), after)


def missing_packages(needed: Sequence[Requirement]) -> list[str]:
    """Debian packages of the requirements that are not met, each once."""
    return list(dict.fromkeys(p for r in needed if r.is_missing for p in r.packages))


def _steps(target: Target, backend: str | None) -> list[tuple[str, Callable[[], object]]]:
    """What is not done yet, in order. Builds are cached by their own sources and are cheap."""
    steps: list[tuple[str, Callable[[], object]]] = []
    if target.device == "qemu-user" or _is_foreign(target):
        for runtime in _runtimes(target, backend):
            if not is_ready(runtime):
                _sweep(runtime.path.parent)
                steps.append((f"download {runtime.requirement}", partial(fetch, runtime)))
        steps.append(("aarch64 runner", lambda: runner_path("aarch64")))
    if target.device == "qemu-user" and target.core is not None and target.emulation is not None:
        core, emulation = target.core, target.emulation
        steps.append(("root folder", lambda: sysroot(core, emulation)))
        steps.append(("QEMU plugin", lambda: build("edgeofa-profile", "host")))
    if target.mcu is not None:
        steps.append(("QEMU plugin", lambda: build("edgeofa-cortex-m", "host")))
    if target.device == "ssh":
        arch: Arch = "aarch64" if _is_foreign(target) else own_arch()
        steps.append((f"{arch} programs for boards", lambda: board_path(arch)))
    return steps


def _runtimes(target: Target, backend: str | None) -> list[Runtime]:
    """The aarch64 libraries to bring. TVM's wheel is large, and of use only where it compiles."""
    with_tvm = backend == _TVM or (_TVM in target.backends and tvm_problem() is None)
    return [r for r in RUNTIMES if r.backend != _TVM or with_tvm]


def _is_foreign(target: Target) -> bool:
    """A board whose programs are not this machine's: aarch64, unless the target says otherwise."""
    isa = target.core.isa if target.core is not None else "aarch64"
    return target.device == "ssh" and isa == "aarch64" and own_arch() != "aarch64"


def _sweep(folder: Path) -> None:
    """Downloads that were killed; safe under the set-up's lock."""
    for stale in folder.glob(".download-*"):
        shutil.rmtree(stale, ignore_errors=True)


def _tool(name: str, purpose: str, *packages: str) -> Requirement:
    path = shutil.which(name)
    return Requirement(name, purpose, path, _apt(packages), packages)


def _apt(packages: Sequence[str]) -> str:
    return f"apt-get install -y --no-install-recommends {' '.join(packages)}"


def _emulation_packages() -> list[Requirement]:
    qemu, llvm = find_qemu(), find_llvm()
    supported = qemu.version if qemu is not None and qemu.is_supported else None
    libraries = None if missing_libraries() else str(LIBRARIES)
    library_packages = ("libc6-arm64-cross", "libstdc++6-arm64-cross")
    return [
        Requirement(
            "qemu-aarch64 (4.2 to 8.1)",
            "runs the target's programs",
            supported,
            _apt(["qemu-user"]),
            ("qemu-user",),
        ),
        Requirement(
            "llvm-mca",
            "prices code on the core",
            llvm.version if llvm is not None else None,
            _apt(["llvm-19"]),
            ("llvm-19",),
        ),
        _cross_compiler(),
        Requirement(
            "arm64 libraries",
            "the target's C and C++ libraries",
            libraries,
            _apt(library_packages),
            library_packages,
        ),
    ]


def _mcu_packages(mcu: Microcontroller) -> list[Requirement]:
    """What builds and emulates firmware; a flasher is named by ``edgeofa flash`` when missing."""
    qemu, llvm = find_qemu(SYSTEM), find_llvm()
    supported = qemu.version if qemu is not None and qemu.is_supported else None
    needed = [
        Requirement(
            "qemu-system-arm (4.2 to 8.1)",
            "emulates the board",
            supported,
            _apt(["qemu-system-arm"]),
            ("qemu-system-arm",),
        ),
        _tool(COMPILER, "compiles firmware", *PACKAGES),
    ]
    if cortex_model(mcu.cycle_model).engine == "mca":
        found = llvm.version if llvm is not None else None
        needed.append(
            Requirement(
                "llvm-mca", "prices code on the core", found, _apt(["llvm-19"]), ("llvm-19",)
            )
        )
    return needed


def _cross_compiler() -> Requirement:
    return _tool(
        "aarch64-linux-gnu-gcc",
        "compiles for the target",
        "gcc-aarch64-linux-gnu",
        "libc6-dev-arm64-cross",
    )


def _library(runtime: Runtime, target: Target) -> Requirement:
    return Requirement(
        f"{runtime.requirement} (aarch64)",
        f"the back end {runtime.backend} on the target",
        runtime.version if is_ready(runtime) else None,
        f"edgeofa setup --target {target.name}",
    )


def _tvm_package(*, is_wanted: bool) -> Requirement:
    problem = tvm_problem()
    return Requirement(
        "apache-tvm",
        "compiles for the back end tvm",
        VERSIONS["apache-tvm"] if problem is None else None,
        PIP_COMMAND,
        # left out it is an extra; in a version that crashes it is a mistake
        optional=not is_wanted and not is_installed(),
    )


def _install(packages: Sequence[str], *, allowed: bool, report: Report) -> None:
    command = _apt(packages)
    if not allowed or os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(
            f"packages of the operating system are missing: {' '.join(packages)}",
            hint=f"{command}   (as root; then run edgeofa setup again)",
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    report(f"install {' '.join(packages)}", 0, 1)
    # another apt-get may be running, as on a machine that has just started: wait for its lock
    apt = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={_APT_LOCK_S}"]
    for step in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                step, env=environment, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"{' '.join(step[:5])} took too long", hint=command) from error
        # an update that fails for one archive may still have brought what is needed
        if done.returncode and "install" in step:
            raise SetupError(f"apt-get failed: {done.stderr.strip()[-600:]}", hint=command)
    find_qemu.cache_clear()
    find_compiler.cache_clear()
    find_llvm.cache_clear()
