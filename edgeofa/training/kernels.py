"""Compiles ``kernels.c`` with the system's compiler into the user's cache, and loads it.

There is no fallback inside: :func:`load_kernels` returns ``None`` where there is no compiler or no
suitable processor, and the callers then take the plain torch path (:mod:`edgeofa.training.ops`).
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from importlib import resources
from pathlib import Path

from edgeofa.paths import cache_dir

__all__ = ["load_kernels"]

_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
_VECTOR_FLAGS = ("avx2", "avx512f")


def _processor() -> str:
    """The processor's flags, in the cache key: one machine's library may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


@lru_cache(maxsize=1)
def load_kernels() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be built or would not pay."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    processor = _processor()
    if platform.machine() != "x86_64" or compiler is None:
        return None
    if not any(flag in processor.split() for flag in _VECTOR_FLAGS):
        return None
    source = (resources.files("edgeofa.training") / "kernels.c").read_bytes()
    key = hashlib.sha256(source + processor.encode() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    target = cache_dir() / "kernels" / f"training-{key}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            text, built = Path(folder) / "kernels.c", Path(folder) / "kernels.so"
            text.write_bytes(source)
            command = [compiler, *_FLAGS, "-o", str(built), str(text), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=300, check=False)
            if done.returncode != 0:
                return None
            built.replace(target)
    library = ctypes.CDLL(str(target))
    library.edgeofa_depthwise.restype = ctypes.c_int
    library.edgeofa_depthwise_grad.restype = ctypes.c_int
    for name in ("moments", "norm_apply", "norm_reduce", "norm_grad"):
        getattr(library, f"edgeofa_{name}").restype = None
    return library
