"""Which kernels are worth tuning: those of the networks that matter, by their share of the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeofa.backends.tvm.fuse import fuse
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.graph.ir import DType, Graph
from edgeofa.pieces import Piece
from edgeofa.tuning.subject import TUNABLE

#: the share of the work that is tuned: the many small kernels behind it gain next to nothing
_COVERED = 0.95
#: a multiply-accumulate of a depthwise convolution costs so many of another one's
_DEPTHWISE = 3


@dataclass(frozen=True)
class Work:
    """A kernel without its fused sum, and how often the networks call it."""

    kernel: Kernel
    calls: int


def workload(
    pieces: Sequence[Piece], precisions: Sequence[DType], machine: Machine
) -> tuple[Work, ...]:
    """The tunable kernels of all pieces in all precisions that make up nearly all of the work, each
    once, most work first."""
    found: dict[str, Work] = {}
    for piece in pieces:
        for precision in precisions:
            for kernel, calls in _kernels(piece.graph(precision), machine).items():
                before = found[kernel.key].calls if kernel.key in found else 0
                found[kernel.key] = Work(kernel, before + calls)
    ordered = sorted(found.values(), key=lambda w: (-_weight(w), w.kernel.key))
    total, so_far = sum(map(_weight, ordered)), 0
    kept = []
    for work in ordered:
        if so_far >= _COVERED * total:
            break
        kept.append(work)
        so_far += _weight(work)
    return tuple(kept)


def _weight(work: Work) -> int:
    """About what its calls cost together."""
    kernel = work.kernel
    return work.calls * kernel.macs * (_DEPTHWISE if kernel.kind == "depthwise_conv2d" else 1)


def _kernels(graph: Graph, machine: Machine) -> Mapping[Kernel, int]:
    """Kernels with knobs and their calls."""
    counts: dict[Kernel, int] = {}
    for call in fuse(graph, machine):
        if call.kernel.kind in TUNABLE:
            plain = call.kernel.plain
            counts[plain] = counts.get(plain, 0) + 1
    return counts
