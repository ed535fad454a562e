"""Tables as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from edgeofa.profiling.profile import Progress
from edgeofa.tables.diff import Change, Difference
from edgeofa.tables.store import TableFile
from edgeofa.tables.table import Row, Table
from edgeofa.tables.verify import Finding

#: where progress is not drawn it is a line of text, once in this many percent
_STEP_PERCENT = 10
_MAX_CHANGES = 20


class ProfileProgress:
    """Progress of a profiling run on stderr: bars on a terminal, a few lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, int] = {}

    def __enter__(self) -> ProfileProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, now: Progress) -> None:
        if now.phase not in self._tasks:
            self._tasks[now.phase] = self._bar.add_task(now.phase, total=now.total)
            if now.reused:
                self._say(f"{now.reused} of {now.total} {now.phase} were finished before")
        self._bar.update(self._tasks[now.phase], completed=now.done)
        percent = 100 * now.done // max(now.total, 1) // _STEP_PERCENT * _STEP_PERCENT
        if not self._console.is_terminal and percent > self._said.get(now.phase, 0):
            self._said[now.phase] = percent
            self._say(f"{now.phase} {now.done}/{now.total}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def table_summary(table: Table, path: Path, rows: int = 0) -> str:
    """Subject, origin, evidence and calibration of a table, and its slowest blocks."""
    h = table.header
    usable = [r for r in table.rows.values() if r.status != "failed"]
    states = {s: sum(r.status == s for r in table.rows.values()) for s in ("unstable", "throttled")}
    states["failed"] = len(table.rows) - len(usable)
    notes = "".join(f", {n} {s}" for s, n in states.items() if n)
    lines = [
        f"{'table':<12} {h.target}/{table.name}",
        f"{'file':<12} {path}",
        f"{'device':<12} {', '.join(h.device.values())[:160]}",
        f"{'runtime':<12} {h.runtime} {h.runtime_version}, {h.threads} thread(s)",
        f"{'blocks':<12} {len(table.rows)} at {', '.join(map(str, h.resolutions))} px{notes}",
        f"{'evidence':<12} {h.evidence}{_uncertainty(usable)}",
    ]
    if usable:
        fast, slow = min(r.latency_ms for r in usable), max(r.latency_ms for r in usable)
        energy = "yes, modelled" if usable[0].energy_mj is not None else "no (no power figures)"
        lines.append(f"{'latencies':<12} {fast:.4g} to {slow:.4g} ms a block")
        lines.append(f"{'invoke':<12} {h.overhead_ms:.4g} ms for an empty network")
        lines.append(f"{'energy':<12} {energy}")
        codes = [r.code_bytes for r in usable if r.code_bytes is not None]
        if codes:
            lines.append(f"{'code':<12} {min(codes)} to {max(codes)} bytes a block")
    fit = h.additivity
    if fit is None:
        lines.append(f"{'sums':<12} not calibrated: no whole subnet was measured")
    else:
        lines.append(
            f"{'sums':<12} whole = {fit.a_ms:.3f} ms + {fit.b:.4f} x sum, {fit.subnets} subnets: "
            f"MAPE {fit.mape_percent:.2f}%, Spearman {fit.spearman:.4f}, "
            f"margin {fit.q95_percent:.2f}%"
        )
    slowest = sorted(usable, key=lambda r: (-r.latency_ms, r.block))[:rows]
    width = max((len(r.block) for r in slowest), default=0)
    for row in slowest:
        energy = "" if row.energy_mj is None else f"  {row.energy_mj:9.3f} mJ"
        lines.append(
            f"  {row.block:<{width}} {row.latency_ms:9.4f} ms "
            f"[{row.latency_low_ms:.4f}, {row.latency_high_ms:.4f}]{energy}"
        )
    return "\n".join(lines)


def _uncertainty(rows: Sequence[Row]) -> str:
    """The widest and the median relative half-width of the rows' intervals."""
    widths = sorted((r.latency_high_ms - r.latency_low_ms) / 2 / r.latency_ms for r in rows)
    if not widths:
        return ""
    return f", ±{100 * widths[len(widths) // 2]:.1f}% (at most ±{100 * widths[-1]:.1f}%)"


def table_list(tables: Sequence[TableFile]) -> str:
    """One line a table."""
    if not tables:
        return "no tables; edgeofa profile makes one"
    names = [f"{t.header.target}/{t.path.stem}" for t in tables]
    width = max(map(len, names))
    return "\n".join(
        f"{name:<{width}}  {t.rows:5} blocks  {t.header.evidence:<9}  {t.header.date}  {t.path}"
        for name, t in zip(names, tables, strict=True)
    )


def difference_text(difference: Difference) -> str:
    """The largest changes first."""
    d = difference
    lines = [f"{len(d.changed)} changed, {d.unchanged} unchanged, "]
    lines[0] += f"{len(d.added)} added, {len(d.removed)} removed"
    if d.mean_ratio is not None:
        lines.append(f"mean ratio new / old {d.mean_ratio:.4f}")
    lines += [_change_text(c) for c in d.changed[:_MAX_CHANGES]]
    if len(d.changed) > _MAX_CHANGES:
        lines.append(f"  and {len(d.changed) - _MAX_CHANGES} more")
    lines += [f"  {k}: {old} -> {new}" for k, (old, new) in d.status.items()]
    lines += [f"  {k}: {old} -> {new}" for k, (old, new) in d.header.items()]
    return "\n".join(lines)


def _change_text(change: Change) -> str:
    c = change
    return f"  {c.block} {c.old_ms:.4f} -> {c.new_ms:.4f} ms ({100 * (c.ratio - 1):+.1f}%)"


def verification_text(findings: Sequence[Finding], checks: Sequence[tuple[Change, bool]]) -> str:
    """Findings, then the blocks that were measured again."""
    lines = [f"{f.severity}: {f.where}: {f.what}" for f in findings] or ["the table is consistent"]
    lines += [_change_text(c) + ("  MOVED" if differs else "") for c, differs in checks]
    return "\n".join(lines)
