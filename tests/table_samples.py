"""Small tables for tests."""

from __future__ import annotations

from edgeofa.spaces import load_space
from edgeofa.tables.table import Additivity, Header, Row, Table

_BLOCKS = sorted(b.key for b in load_space("cifar_lite").all_blocks())


def make_row(number: int, scale: float = 1.0) -> Row:
    ms = round(0.1 * (number + 1) * scale, 6)
    return Row(
        block=_BLOCKS[number],
        latency_ms=ms,
        latency_low_ms=round(0.8 * ms, 6),
        latency_high_ms=round(1.2 * ms, 6),
        energy_mj=round(3 * ms, 6),
        energy_low_mj=round(2 * ms, 6),
        energy_high_mj=round(4 * ms, 6),
        peak_bytes=1000 * number,
        weight_bytes=100 * number,
        samples=1,
        rounds=1,
        evidence="modelled",
        status="ok",
    )


def make_table(
    rows: int = 5, scale: float = 1.0, digest: str = "ab" * 8, target: str = "rpi4"
) -> Table:
    header = Header(
        target=target,
        target_digest=digest,
        space="cifar_lite",
        backend="litert",
        precision="int8",
        threads=1,
        evidence="modelled",
        runtime="litert",
        runtime_version="2.3.0",
        runtime_digest="cd" * 8,
        device={"model": "a board", "core": "a core"},
        protocol_version=1,
        seed=0,
        date="2026-11-25",
        edgeofa_version="0.1.0",
        resolutions=(64, 96),
        additivity=Additivity(0.1, 1.0, 0.2, 30, 1.0, 0.999, 1.0, 2.0),
        overhead_ms=0.12,
    )
    made = [make_row(i, scale) for i in range(rows)]
    return Table(header, {r.block: r for r in made})
