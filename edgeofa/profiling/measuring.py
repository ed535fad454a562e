"""Measure groups of blocks, or of whole subnets: build each, run them together, make the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeofa.backends.base import Artifact, Backend
from edgeofa.devices.base import Device
from edgeofa.emulation.energy import energy_mj
from edgeofa.errors import DeviceError
from edgeofa.graph.ir import DType
from edgeofa.profiling.artifacts import build_block, build_subnet, build_trivial
from edgeofa.profiling.journal import WholeSubnet
from edgeofa.profiling.protocol import Estimate, Rules, measure
from edgeofa.spaces.blocks import block_macs
from edgeofa.spaces.space import Block, Space, Subnet
from edgeofa.tables.table import Row
from edgeofa.targets import Target

#: the networks that show what an invoke costs: their keys in the journal, no block has such a one,
#: and their numbers of operators
TRIVIAL = {"trivial-1": 1, "trivial-5": 5}
#: a block never costs nothing: one nanosecond, the last digit of a table
_LEAST_MS = 1e-6


@dataclass(frozen=True)
class Work:
    """What every step of one run needs."""

    target: Target
    space: Space
    backend: Backend
    precision: DType
    threads: int
    seed: int
    device: Device
    rules: Rules
    folder: Path


def measure_trivial(work: Work) -> list[Row]:
    """Rows of the networks with hardly anything in them, see :func:`invoke_overhead_ms`."""
    with tempfile.TemporaryDirectory(dir=work.folder) as name:
        artifacts = {
            key: build_trivial(work.backend, n, work.precision, work.seed, Path(name))
            for key, n in TRIVIAL.items()
        }
        found = _measure(work, artifacts, max(artifacts), cold=True)
    for key, estimate in found.items():
        if estimate.status == "failed":
            raise DeviceError(f"{key} does not run: {estimate.reason}", where=work.device.name)
    return [_row(work.target, a, k, found[k], 0.0, work.threads) for k, a in artifacts.items()]


def invoke_overhead_ms(rows: Mapping[str, Row]) -> float:
    """Latency of a network without operators, from two with hardly anything in them.

    One operator is in every network and several are in every block, so what starting an operator
    costs belongs to the blocks; the rest of an invoke is paid once by a whole network.
    """
    (few, x), (many, y) = ((n, rows[key].latency_ms) for key, n in TRIVIAL.items())
    return round(max(x - few * (y - x) / (many - few), 0.0), 6)


def measure_blocks(work: Work, blocks: Sequence[Block], overhead_ms: float) -> list[Row]:
    """Rows of ``blocks``, measured together as one group."""
    with tempfile.TemporaryDirectory(dir=work.folder) as name:
        artifacts = {
            b.key: build_block(work.backend, b, work.precision, work.seed, Path(name))
            for b in blocks
        }
        sentinel = max(blocks, key=lambda b: (block_macs(b), b.key)).key
        found = _measure(work, artifacts, sentinel, cold=True)
    return [
        _row(work.target, artifacts[k], k, found[k], overhead_ms, work.threads) for k in artifacts
    ]


def measure_subnets(work: Work, subnets: Sequence[Subnet]) -> list[WholeSubnet]:
    """Latencies of whole subnets, as a deployed network runs: caches warm from the last invoke."""
    with tempfile.TemporaryDirectory(dir=work.folder) as name:
        artifacts = {
            str(s): build_subnet(work.backend, work.space, s, work.precision, work.seed, Path(name))
            for s in subnets
        }
        found = _measure(work, artifacts, str(subnets[-1]), cold=False)
    return [WholeSubnet(k, round(found[k].ms, 6), found[k].status) for k in artifacts]


def _measure(
    work: Work, artifacts: dict[str, Artifact], sentinel: str, *, cold: bool
) -> dict[str, Estimate]:
    found = measure(
        work.device,
        {k: a.path for k, a in artifacts.items()},
        backend=work.backend.name,
        sentinel=sentinel,
        cold=cold,
        threads=work.threads,
        seed=work.seed,
        rules=work.rules,
    )
    if all(e.status == "failed" for e in found.values()):
        raise DeviceError(
            f"nothing runs: {found[sentinel].reason}",
            where=f"{work.device.name}, {len(found)} jobs from {sentinel}",
            hint="edgeofa doctor; then run the same command again: finished blocks are kept",
        )
    return found


def _row(
    target: Target,
    artifact: Artifact,
    key: str,
    estimate: Estimate,
    overhead_ms: float,
    threads: int,
) -> Row:
    e = estimate
    energy = e.status != "failed"

    def energy_at(ms: float, end: Literal["mj", "low_mj", "high_mj"]) -> float | None:
        found = energy_mj(target, ms, threads) if energy else None
        return round(float(getattr(found, end)), 6) if found else None

    ms, low, high = _without_overhead(e, overhead_ms)
    return Row(
        block=key,
        latency_ms=round(ms, 6),
        latency_low_ms=round(low, 6),
        latency_high_ms=round(high, 6),
        energy_mj=energy_at(ms, "mj"),
        energy_low_mj=energy_at(low, "low_mj"),
        energy_high_mj=energy_at(high, "high_mj"),
        peak_bytes=artifact.peak_bytes,
        weight_bytes=artifact.weight_bytes,
        samples=e.samples,
        rounds=e.rounds,
        evidence=e.evidence,
        status=e.status,
        code_bytes=e.code_bytes,
    )


def _without_overhead(estimate: Estimate, overhead_ms: float) -> tuple[float, float, float]:
    """Latency and interval of what a block adds. A model's error is relative and stays so."""
    e = estimate
    if e.status == "failed":
        return 0.0, 0.0, 0.0
    ms = max(e.ms - overhead_ms, _LEAST_MS)
    if e.evidence == "modelled":
        return ms, ms * e.low_ms / e.ms, ms * e.high_ms / e.ms
    low = min(max(e.low_ms - overhead_ms, _LEAST_MS), ms)
    return ms, low, max(e.high_ms - overhead_ms, ms)
