"""A whole tuning, from a target and what is named on the command line to records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgeofa.backends.tvm.installed import require_tvm
from edgeofa.backends.tvm.machine import machine_for
from edgeofa.devices.registry import device_for
from edgeofa.errors import UsageError
from edgeofa.graph.ir import DType
from edgeofa.paths import cache_dir, tuning_dirs
from edgeofa.pieces import Piece, find_piece
from edgeofa.spaces import load_space
from edgeofa.targets import Target, load_target
from edgeofa.tuning.networks import space_pieces
from edgeofa.tuning.run import Limits, Progress
from edgeofa.tuning.tune import Tuning, tune
from edgeofa.tuning.workload import workload

_PRECISIONS: dict[str, tuple[DType, ...]] = {
    "both": ("int8", "float32"),
    "int8": ("int8",),
    "float32": ("float32",),
}


@dataclass(frozen=True)
class TuneRequest:
    """What to tune; see ``docs/verbs/tune.md``. ``pieces`` name blocks and subnets; without any the
    space's reference networks and the solver's picks are meant."""

    target: str
    space: str | None = None
    pieces: tuple[str, ...] = ()
    precision: str = "both"
    limits: Limits = field(default_factory=lambda: Limits(600.0))
    out: Path | None = None
    device: str | None = None
    seed: int = 0


def tune_pieces(
    request: TuneRequest, progress: Callable[[Progress], None] = lambda _: None
) -> Tuning:
    """Tune the kernels of the networks; what was tried is kept even if it is interrupted.

    Raises:
        UsageError: a target, space, subnet, block or precision that there is not, or a target
            whose device runs no library.
        SetupError: TVM is not installed.
        DeviceError: the device cannot be used.
    """
    target = load_target(request.target)
    if "tvm" not in target.backends:
        raise UsageError(
            "tuning is of the back end tvm, which is none of its back ends",
            where=f"target {target.name}",
            hint=f"it has {', '.join(target.backends)}",
        )
    if request.precision not in _PRECISIONS:
        raise UsageError(f"unknown precision {request.precision!r}", hint="float32, int8 or both")
    precisions = [p for p in _PRECISIONS[request.precision] if p in target.precisions]
    if not precisions:
        raise UsageError(
            f"{request.precision} is no precision of {target.name}",
            hint=f"one of {', '.join(target.precisions)}",
        )
    require_tvm()
    machine = machine_for(target)
    return tune(
        workload(_pieces(request, target), precisions, machine),
        machine,
        device_for(target, request.device),
        request.out or tuning_dirs()[0],
        cache_dir() / "tuning",
        limits=request.limits,
        seed=request.seed,
        progress=progress,
    )


def _pieces(request: TuneRequest, target: Target) -> tuple[Piece, ...]:
    if request.pieces:
        return tuple(find_piece(text, request.space) for text in request.pieces)
    return space_pieces(target, load_space(request.space or target.default_space))
