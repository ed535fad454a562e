"""The folder that qemu-aarch64 shows to programs as their root: libraries, and who the CPU is.

Runtimes choose their kernels by ``/proc/cpuinfo`` and the processor lists under ``/sys``; without
these files both LiteRT and onnxruntime crash in the emulator.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock

from edgeofa.errors import SetupError
from edgeofa.paths import cache_dir, write_atomic
from edgeofa.targets import Core, Emulation

#: Debian's arm64 libraries (libc6-arm64-cross, libstdc++6-arm64-cross)
LIBRARIES = Path("/usr/aarch64-linux-gnu/lib")
LOADER = "ld-linux-aarch64.so.1"
NEEDED = (LOADER, "libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")


def missing_libraries(libraries: Path = LIBRARIES) -> list[str]:
    """Names of the arm64 libraries that are not there."""
    return [name for name in NEEDED if not (libraries / name).exists()]


def cpuinfo(core: Core, emulation: Emulation) -> str:
    """``/proc/cpuinfo`` of the target's kernel, as far as runtimes read it."""
    one = (
        "processor\t: {number}\n"
        "BogoMIPS\t: 108.00\n"
        f"Features\t: {emulation.cpu_features}\n"
        f"CPU implementer\t: {emulation.cpu_implementer}\n"
        "CPU architecture: 8\n"
        "CPU variant\t: 0x0\n"
        f"CPU part\t: {emulation.cpu_part}\n"
        "CPU revision\t: 3\n"
    )
    return "\n".join(one.format(number=number) for number in range(core.cores)) + "\n"


def sysroot(core: Core, emulation: Emulation, libraries: Path = LIBRARIES) -> Path:
    """The root folder for a core, made in the cache when it is not there yet.

    Raises ``SetupError`` when the arm64 libraries are missing.
    """
    if missing := missing_libraries(libraries):
        raise SetupError(
            f"arm64 libraries are missing: {', '.join(missing)}",
            where=libraries,
            hint="apt-get install libc6-arm64-cross libstdc++6-arm64-cross",
        )
    processors = f"0-{core.cores - 1}\n" if core.cores > 1 else "0\n"
    files = {"proc/cpuinfo": cpuinfo(core, emulation)}
    files |= {f"sys/devices/system/cpu/{name}": processors for name in _PROCESSOR_LISTS}
    digest = hashlib.sha256(repr((sorted(files.items()), str(libraries))).encode()).hexdigest()
    root = cache_dir() / "sysroots" / f"aarch64-{digest[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_suffix(".lock")):
        for name, content in files.items():
            path = root / name
            if not path.is_file() or path.read_text(encoding="utf-8") != content:
                write_atomic(path, content)
        link = root / "lib"
        if not link.is_symlink() or link.readlink() != libraries:
            link.unlink(missing_ok=True)
            link.symlink_to(libraries)
    return root


_PROCESSOR_LISTS = ("possible", "present", "online")
