"""Whether a table still says what its target would give today.

A modelled table depends on constants and a library that edgeofa itself carries, so both are
compared, without an emulator: a changed constant or another build of the runtime changes every
number. A measured table depends on a device that is not at hand here; only its target is compared.
"""

from __future__ import annotations

from edgeofa.emulation.cortex_m import cortex_model
from edgeofa.emulation.model import core_model
from edgeofa.emulation.runtimes import runtime_of
from edgeofa.microcontroller import Microcontroller
from edgeofa.tables.table import Header
from edgeofa.targets import Target


def staleness(header: Header, target: Target) -> str | None:
    """Why a table of ``target`` must not be used any more; None for a fresh one."""
    if header.target_digest != target.digest:
        return f"made for another version of the target file {target.name} (its digest differs)"
    if target.mcu is not None and "cycle_model" in header.device:
        return _stale_firmware(header, target.mcu)
    # what other kinds of devices model with, their own identity says
    if target.emulation is None or "latency_model" not in header.device:
        return None
    model = core_model(target.emulation.model).identity
    if header.device["latency_model"] != model:
        return (
            f"made with other constants of the latency model ({header.device['latency_model']}, "
            f"now {model})"
        )
    runtime = runtime_of(header.backend)
    if runtime is None:
        return None
    made, now = (
        f"{header.runtime_version} sha256:{header.runtime_digest}",
        f"{runtime.version} sha256:{runtime.library_sha256[:16]}",
    )
    if made != now:
        return f"made with {header.backend} {made}, edgeofa setup brings {now}"
    return _stale_schedules(header, target) if header.backend == "tvm" else None


def _stale_schedules(header: Header, target: Target) -> str | None:
    """The same for code that edgeofa itself generates."""
    from edgeofa.backends.tvm.backend import TvmBackend

    made, now = header.device.get("compiler"), TvmBackend().for_target(target).version()
    if made == now:
        return None
    return f"made with other schedules ({made or 'unknown ones'}, now {now})"


def _stale_firmware(header: Header, mcu: Microcontroller) -> str | None:
    """The same for an emulated microcontroller: its cycle model, and the kernels."""
    from edgeofa.backends.registry import get_backend

    model = cortex_model(mcu.cycle_model).identity
    if header.device["cycle_model"] != model:
        return (
            f"made with other constants of the cycle model ({header.device['cycle_model']}, "
            f"now {model})"
        )
    kernels = get_backend("firmware").version()
    if header.backend == "firmware" and header.runtime_version != kernels:
        return f"made with other kernels ({header.runtime_version}, now {kernels})"
    return None
