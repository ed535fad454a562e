"""An explanation as a person reads it: back ends side by side, then the hottest machine code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeofa.explain import Counted, Explained, Explanation, HotBlock

_LABEL, _COLUMN = 24, 16
#: instructions of a block that are shown; an unrolled one has hundreds
_SHOWN = 40


def explanation_text(found: Explanation) -> str:
    """Everything that is known, and what it stands on."""
    peak = found.peak
    per_cycle = "" if peak.macs_per_cycle is None else f"{peak.macs_per_cycle:.3g} MAC/cycle, "
    rate = "" if peak.macs_per_s is None else f"{peak.macs_per_s / 1e9:.3g} GMAC/s: "
    caches = "weights not in the caches" if found.cold else "caches as the last invoke left them"
    lines = [
        f"{found.piece}",
        f"{found.precision}, {found.macs / 1e6:.3f} M MACs, on {found.device}, {caches}",
        f"peak ({peak.evidence}): {per_cycle}{rate}{peak.source}",
        "",
        " " * _LABEL + "".join(f"{e.backend:>{_COLUMN}}" for e in found.backends),
    ]
    right = [e for e in found.backends if e.failure is None]
    for label, value in _ROWS:
        cells = [value(e) for e in found.backends]
        if any(cells):
            lines.append(f"{label:<{_LABEL}}" + "".join(f"{c:>{_COLUMN}}" for c in cells))
    lines += [f"{e.backend} failed: {e.failure}" for e in found.backends if e.failure]
    for e in right:
        if e.counted is not None:
            lines += _hot(e.backend, e.counted.hot)
    return "\n".join(lines)


def _hot(backend: str, blocks: Sequence[HotBlock]) -> list[str]:
    lines: list[str] = []
    for number, block in enumerate(blocks, 1):
        waits = f"{block.waiting_share:.0%} of it waiting for lines; "
        waits = waits if block.waiting_share >= 0.005 else ""
        lines += [
            "",
            f"{backend}, hottest block {number}: {block.share:.1%} of the cycles; {waits}"
            f"{block.executions} times {block.cycles:g} cycles, {len(block.listing)} instructions",
        ]
        if block.bottleneck:
            lines.append(f"  held up by (llvm-mca): {block.bottleneck}")
        lines += [f"    {line}" for line in block.listing[:_SHOWN]]
        if len(block.listing) > _SHOWN:
            lines.append(f"    ... {len(block.listing) - _SHOWN} more")
    return lines


def _of(form: str, value: Callable[[Explained], float | None]) -> Callable[[Explained], str]:
    def cell(e: Explained) -> str:
        number = value(e)
        return "" if number is None else format(number, form)

    return cell


def _counts(form: str, value: Callable[[Counted], float | None]) -> Callable[[Explained], str]:
    return _of(form, lambda e: None if e.counted is None else value(e.counted))


def _part(name: str) -> Callable[[Explained], str]:
    return _counts(".4f", lambda c: c.parts_ms.get(name))


_ROWS: tuple[tuple[str, Callable[[Explained], str]], ...] = (
    ("latency, ms", _of(".4f", lambda e: None if e.latency is None else e.latency.ms)),
    ("  from", _of(".4f", lambda e: None if e.latency is None else e.latency.low_ms)),
    ("  to", _of(".4f", lambda e: None if e.latency is None else e.latency.high_ms)),
    ("  evidence", lambda e: "" if e.latency is None else e.latency.evidence),
    ("share of peak", _of(".1%", lambda e: e.share_of_peak)),
    ("ns per MAC", _of(".4f", lambda e: e.ns_per_mac)),
    ("cycles per MAC", _counts(".4f", lambda c: c.cycles_per_mac)),
    ("cycles", _counts(",.0f", lambda c: c.cycles)),
    ("instructions", _counts(",.0f", lambda c: c.instructions)),
    ("instructions per cycle", _counts(".2f", lambda c: c.instructions_per_cycle)),
    ("lines missed in L1", _counts(",.0f", lambda c: c.l1_missed_lines)),
    ("lines missed in L2", _counts(",.0f", lambda c: c.l2_missed_lines)),
    ("lines written back", _counts(",.0f", lambda c: c.written_back_lines)),
    ("operators", _of(",.0f", lambda e: e.operators)),
    ("ms: computing", _part("core")),
    ("ms: waiting for L2", _part("l2")),
    ("ms: waiting for DRAM", _part("dram")),
    ("ms: starting operators", _part("operators")),
)
