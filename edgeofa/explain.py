"""Why a block or a network is slow or fast: what it executes, and how far that is from the peak.

On an emulated core the executed machine code is known: instructions, cache lines, cycles, and the
basic blocks that the cycles go to, with what llvm-mca says holds them up. The peak is that core's
too: the fastest sequence of multiply-accumulates by the same pipeline model. On a device with a
clock the time is measured, back ends in turns, and the peak is a measured matrix product's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.backends.base import Artifact
from edgeofa.backends.registry import get_backend
from edgeofa.devices.base import Device, Evidence, Job, Latency
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.qemu_user import Profile, QemuUserDevice
from edgeofa.emulation.model import CoreModel, block_cost, core_model, latency, region_cost
from edgeofa.emulation.trace import BlockCount
from edgeofa.errors import DeviceError, SetupError, UsageError
from edgeofa.graph.ir import DType
from edgeofa.graph.ops import macs
from edgeofa.pieces import Piece
from edgeofa.profiling.interleaved import interleaved
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder

_WARMUPS, _RUNS, _TURN_MS = 2, 5, 10.0
_PEAK_TIMEOUT_S = 120
#: of a matrix product in float32: large enough for the peak, and still in the second cache
_PRODUCT = """
import time, numpy as np
a = np.ones((384, 384), np.float32)
best = 1e9
for _ in range(40):
    start = time.perf_counter()
    a @ a
    best = min(best, time.perf_counter() - start)
print(384**3 / best)
"""


@dataclass(frozen=True)
class Peak:
    """Multiply-accumulates that the device could do at most in a second, on one thread; None where
    that is not known."""

    macs_per_s: float | None
    macs_per_cycle: float | None
    evidence: Evidence
    source: str


@dataclass(frozen=True)
class HotBlock:
    """A basic block of machine code. ``share``: of all cycles. ``cycles``: of one execution, by
    llvm-mca. ``bottleneck``: what llvm-mca says holds it up. Lines are of the whole run."""

    share: float
    executions: int
    cycles: float
    waiting_share: float
    l1_missed_lines: int
    l2_missed_lines: int
    bottleneck: str
    listing: tuple[str, ...]


@dataclass(frozen=True)
class Counted:
    """What one invoke executes on an emulated core. ``cycles`` contain waiting for cache lines and
    starting operators; ``parts_ms`` says what the time is made of."""

    instructions: int
    cycles: float
    cycles_per_mac: float | None
    instructions_per_cycle: float
    l1_missed_lines: int
    l2_missed_lines: int
    written_back_lines: int
    parts_ms: dict[str, float]
    hot: tuple[HotBlock, ...]


@dataclass(frozen=True)
class Explained:
    """One back end's artifact. ``failure`` says why there is nothing else."""

    backend: str
    latency: Latency | None = None
    operators: int | None = None
    ns_per_mac: float | None = None
    share_of_peak: float | None = None
    counted: Counted | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Explanation:
    """A piece on a device, by each back end. ``cold``: weights are not in the caches, as a block
    meets them in a network."""

    target: str
    device: str
    piece: str
    precision: DType
    macs: int
    cold: bool
    peak: Peak
    backends: tuple[Explained, ...]


def explain(
    piece: Piece,
    target: Target,
    device: Device,
    backends: Sequence[str],
    precision: DType,
    *,
    hot: int = 5,
    seed: int = 0,
) -> Explanation:
    """Compile ``piece`` with each back end, run it, and say where the time goes.

    Args:
        hot: machine-code blocks of each, the hottest first.
        seed: of the weights.

    Raises:
        UsageError: a precision or back end that the target has not.
        DeviceError: the device cannot be used, or no back end's artifact runs on it.
    """
    for name in backends:
        if name not in target.backends:
            known = ", ".join(target.backends)
            raise UsageError(f"{name} is no back end of {target.name}", hint=f"one of {known}")
    if precision not in target.precisions:
        known = ", ".join(target.precisions)
        raise UsageError(f"{precision} is no precision of {target.name}", hint=f"one of {known}")
    graph = piece.graph(precision, seed)
    work = macs(graph)
    with work_folder("explain") as folder:
        artifacts: dict[str, Artifact] = {}
        failures: dict[str, str] = {}
        for name in backends:
            try:
                compiler = get_backend(name).for_target(target)
                artifacts[name] = compiler.compile(graph, folder / f"{name}{compiler.suffix}")
            except (SetupError, UsageError) as error:
                # an extra that was left out, a core or an operator that it has nothing for
                failures[name] = str(error)
        if isinstance(device, QemuUserDevice):
            peak = _modelled_peak(device, target, precision)
            found = _counted(device, target, artifacts, work, peak, hot, cold=piece.is_block)
        elif device.evidence == "measured":
            peak = _measured_peak(device)
            found = _measured(device, artifacts, work, peak, seed, cold=piece.is_block)
        else:
            raise UsageError(
                f"what {device.name} executes is not known to this verb",
                hint="a target that is emulated by qemu-user, or a device with a clock",
            )
    if not any(e.failure is None for e in found):
        reasons = "; ".join([*failures.values(), *(str(e.failure) for e in found)])
        raise DeviceError(f"no artifact runs: {reasons}", where=device.name, hint="edgeofa doctor")
    by_name = {e.backend: e for e in found}
    return Explanation(
        target=target.name,
        device=device.name,
        piece=piece.name,
        precision=precision,
        macs=work,
        cold=piece.is_block,
        peak=peak,
        backends=tuple(
            by_name.get(name) or Explained(name, failure=failures.get(name)) for name in backends
        ),
    )


# ------------------------------------------------------------------------------ emulated cores


def _modelled_peak(device: QemuUserDevice, target: Target, precision: DType) -> Peak:
    """The best of some endless sequences of independent multiply-accumulates, by llvm-mca."""
    if target.core is None or target.emulation is None:
        raise UsageError("the target cannot be emulated", where=f"target {target.name}")
    sequences = dict(_sequences(precision, target.emulation.cpu_features.split()))
    prices = device.prices(code for code, _ in sequences.values())
    rates = {
        name: work / prices[code] for name, (code, work) in sequences.items() if code in prices
    }
    if not rates:
        raise DeviceError("llvm-mca prices no multiply-accumulate", where=device.name)
    best = max(rates, key=lambda name: rates[name])
    return Peak(
        macs_per_s=rates[best] * target.core.clock_hz,
        macs_per_cycle=rates[best],
        evidence="modelled",
        source=f"{best} without end, by llvm-mca's model of {target.emulation.mca_cpu} at "
        f"{target.core.clock_hz / 1e9:g} GHz",
    )


def _sequences(precision: DType, features: Sequence[str]) -> list[tuple[str, tuple[str, int]]]:
    """Name, and code with its multiply-accumulates, of what a kernel's inner loop can be made of
    (encodings: Arm Architecture Reference Manual, advanced SIMD three same and three different)."""

    def three(word: int, to: int, a: int, b: int) -> str:
        return f"{word | b << 16 | a << 5 | to:08x}"

    if precision == "float32":
        fmla = "".join(three(0x4E20CC00, r, 30, 31) for r in range(24))
        return [("fmla v.4s", (fmla, 24 * 4))]
    triples = [
        three(0x0E20C000, 16 + r, 30, 31)  # smull v.8h, v.8b, v.8b
        + three(0x4E208000, 16 + r, 30, 31)  # smlal2 v.8h, v.16b, v.16b
        + f"{0x4E606800 | (16 + r) << 5 | r:08x}"  # sadalp v.4s, v.8h
        for r in range(8)
    ]
    found = [("smull, smlal2, sadalp", ("".join(triples), 8 * 16))]
    if "asimddp" in features:
        sdot = "".join(three(0x4E809400, r, 30, 31) for r in range(24))
        found.append(("sdot v.4s, v.16b", (sdot, 24 * 16)))
    return found


def _counted(
    device: QemuUserDevice,
    target: Target,
    artifacts: dict[str, Artifact],
    work: int,
    peak: Peak,
    hot: int,
    *,
    cold: bool,
) -> list[Explained]:
    jobs = [Job(a.path, name, cold=cold) for name, a in artifacts.items()]
    profiles = device.profile(jobs)
    return [
        Explained(name, failure=profile)
        if isinstance(profile, str)
        else _one_counted(name, profile, device, target, work, peak, hot)
        for name, profile in zip(artifacts, profiles, strict=True)
    ]


def _one_counted(
    name: str,
    profile: Profile,
    device: QemuUserDevice,
    target: Target,
    work: int,
    peak: Peak,
    hot: int,
) -> Explained:
    if target.core is None or target.emulation is None:
        raise UsageError("the target cannot be emulated", where=f"target {target.name}")
    model, clock_hz = core_model(target.emulation.model), target.core.clock_hz
    region = profile.region
    prices = device.prices(block.code for block in region.blocks)
    modelled = latency(model, region_cost(region, prices, model), clock_hz, profile.operators)
    cycles = modelled.ms * clock_hz / 1e3
    share = None
    if work and peak.macs_per_s is not None:
        share = work * 1e3 / modelled.ms / peak.macs_per_s
    return Explained(
        backend=name,
        latency=Latency(
            modelled.ms,
            modelled.ms * (1 - modelled.error),
            modelled.ms * (1 + modelled.error),
            "modelled",
        ),
        operators=profile.operators,
        ns_per_mac=modelled.ms * 1e6 / work if work else None,
        share_of_peak=share,
        counted=Counted(
            instructions=region.instructions,
            cycles=cycles,
            cycles_per_mac=cycles / work if work else None,
            instructions_per_cycle=region.instructions / cycles,
            l1_missed_lines=sum(b.l1_stream + b.l1_other for b in region.blocks),
            l2_missed_lines=sum(b.l2_stream + b.l2_other for b in region.blocks),
            written_back_lines=region.written_back,
            parts_ms=modelled.parts_ms,
            hot=_hottest(region.blocks, prices, model, device, cycles, hot),
        ),
    )


def _hottest(
    blocks: Sequence[BlockCount],
    prices: dict[str, float],
    model: CoreModel,
    device: QemuUserDevice,
    cycles: float,
    count: int,
) -> tuple[HotBlock, ...]:
    costs = {block: block_cost(block, prices.get(block.code), model) for block in blocks}
    order = sorted(blocks, key=lambda b: (-costs[b].cycles, b.code))
    return tuple(
        HotBlock(
            share=costs[b].cycles / cycles,
            executions=b.executions,
            cycles=prices.get(b.code, len(b.code) / 8),
            waiting_share=1 - costs[b].core / costs[b].cycles if costs[b].cycles else 0.0,
            l1_missed_lines=b.l1_stream + b.l1_other,
            l2_missed_lines=b.l2_stream + b.l2_other,
            bottleneck=device.block_prices.bottleneck(b.code),
            listing=tuple(device.block_prices.listing(b.code)),
        )
        for b in order[:count]
    )


# --------------------------------------------------------------------------- devices with a clock


def _measured_peak(device: Device) -> Peak:
    """What numpy's float32 matrix product reaches on this machine, on one thread."""
    if not isinstance(device, LocalDevice):
        # nothing is run on a board but artifacts: no peak is known of it
        return Peak(None, None, "estimated", "not known of this device")
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    try:
        with device.exclusive():
            done = subprocess.run(
                [sys.executable, "-P", "-c", _PRODUCT],
                capture_output=True,
                text=True,
                timeout=_PEAK_TIMEOUT_S,
                env={**os.environ, **dict.fromkeys(threads, "1")},
            )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"the matrix product takes over {_PEAK_TIMEOUT_S} s", where="this machine"
        ) from error
    if done.returncode:
        raise DeviceError(f"the matrix product fails: {done.stderr[-300:]}", where="this machine")
    return Peak(
        float(done.stdout),
        None,
        "measured",
        "numpy's float32 product of 384 x 384 matrices, one thread, the best of 40",
    )


def _measured(
    device: Device,
    artifacts: dict[str, Artifact],
    work: int,
    peak: Peak,
    seed: int,
    *,
    cold: bool,
) -> list[Explained]:
    jobs = {
        name: Job(a.path, name, warmups=_WARMUPS, runs=_RUNS, min_run_ms=_TURN_MS, cold=cold)
        for name, a in artifacts.items()
    }
    if not jobs:
        return []
    found = interleaved(device, jobs, next(iter(jobs)), seed=seed)
    explained = []
    for name, compared in found.items():
        if compared.reason:
            explained.append(Explained(name, failure=compared.reason))
            continue
        share = None
        if work and peak.macs_per_s is not None:
            share = work * 1e9 / compared.ns / peak.macs_per_s
        explained.append(
            Explained(
                backend=name,
                latency=Latency(
                    compared.ns / 1e6, compared.low_ns / 1e6, compared.high_ns / 1e6, "measured"
                ),
                ns_per_mac=compared.ns / work if work else None,
                share_of_peak=share,
            )
        )
    return explained
