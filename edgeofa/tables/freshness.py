"""Whether a table still says what its target would give today.

A modelled table depends on constants and a library that edgeofa itself carries, so both are
compared, without an emulator: a changed constant or another build of the runtime changes every
number. A measured table depends on a device that is not at hand here; only its target is compared.
"""

from __future__ import annotations

from edgeofa.emulation.model import core_model
from edgeofa.emulation.runtimes import RUNTIMES
from edgeofa.tables.table import Header
from edgeofa.targets import Target


def staleness(header: Header, target: Target) -> str | None:
    """Why a table of ``target`` must not be used any more; None for a fresh one."""
    if header.target_digest != target.digest:
        return f"made for another version of the target file {target.name} (its digest differs)"
    # what other kinds of devices model with, their own identity says
    if target.emulation is None or "latency_model" not in header.device:
        return None
    model = core_model(target.emulation.model).identity
    if header.device["latency_model"] != model:
        return (
            f"made with other constants of the latency model ({header.device['latency_model']}, "
            f"now {model})"
        )
    runtime = next((r for r in RUNTIMES if r.backend == header.backend), None)
    if runtime is None:
        return None
    made, now = (
        f"{header.runtime_version} sha256:{header.runtime_digest}",
        f"{runtime.version} sha256:{runtime.library_sha256[:16]}",
    )
    if made != now:
        return f"made with {header.backend} {made}, edgeofa setup brings {now}"
    return None
