"""Fill the latency table of one target, space, back end and precision.

Blocks are built with random weights, compiled, and measured in groups; each finished group goes
into a journal at once, so that a run that is interrupted in any way goes on where it stopped. Then
whole random subnets are measured, the additivity fit is made, and the table is written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeofa import __version__
from edgeofa.backends.base import Backend
from edgeofa.backends.registry import backend_names
from edgeofa.devices.base import Device
from edgeofa.devices.registry import device_for
from edgeofa.errors import EdgeofaError, UsageError
from edgeofa.graph.ir import DType
from edgeofa.paths import cache_dir, table_dirs
from edgeofa.profiling.artifacts import sample_subnets
from edgeofa.profiling.groups import block_groups, subnet_groups
from edgeofa.profiling.journal import Journal, Subject
from edgeofa.profiling.measuring import (
    TRIVIAL,
    Work,
    invoke_overhead_ms,
    measure_blocks,
    measure_subnets,
    measure_trivial,
)
from edgeofa.profiling.protocol import PROTOCOL_VERSION, RULES, Rules
from edgeofa.spaces.space import Space
from edgeofa.tables.additivity import MIN_SUBNETS, fit_additivity
from edgeofa.tables.store import write_table
from edgeofa.tables.table import Additivity, Header, Row, Table
from edgeofa.targets import Target


@dataclass(frozen=True)
class Progress:
    """How far a run is. ``reused`` of the ``done`` items came from an earlier, interrupted run."""

    phase: Literal["blocks", "subnets"]
    done: int
    total: int
    reused: int


def profile(
    target: Target,
    space: Space,
    backend: Backend,
    precision: DType,
    *,
    resolutions: Sequence[int] | None = None,
    threads: int = 1,
    device: Device | None = None,
    subnets: int = 30,
    seed: int = 0,
    out: Path | None = None,
    fresh: bool = False,
    known: Table | None = None,
    rules: Rules = RULES,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Table:
    """Measure every block of ``space`` and write the table; returns it as it reads back.

    Args:
        resolutions: those to profile, all by default. A later run with more of them reuses what
            an earlier one measured.
        device: where to measure; the target's own by default.
        subnets: how many whole random subnets calibrate the sums, 0 for none.
        out: folder of tables, the user's own by default.
        fresh: forget the journal of earlier runs and measure everything again.
        known: a table to complete: only what it lacks, or what failed there, is measured, and its
            calibration stays.

    Raises:
        UsageError: a resolution or precision that does not exist, another run on this table, or a
            table to complete that was made with something else.
        DeviceError: the device cannot be used, or nothing of a group runs on it.
    """
    if known is not None:
        resolutions = sorted({*known.header.resolutions, *(resolutions or ())})
    chosen = _check(target, space, backend, precision, resolutions, subnets, threads)
    backend = backend.for_target(target)
    device = device or device_for(target)
    # another runtime's version changes no number here
    others = set(backend_names()) - {backend.name}
    identity = {k: v for k, v in device.identity().items() if k not in others}
    subject = Subject(
        target=target.name,
        target_digest=target.digest,
        space=space.name,
        space_digest=_digest(space.model_dump_json()),
        backend=backend.name,
        backend_version=backend.version(),
        precision=precision,
        threads=threads,
        runtime_digest=_digest(json.dumps(sorted(identity.items()))),
        protocol_version=PROTOCOL_VERSION,
        edgeofa_version=__version__,
        seed=seed,
    )
    version, library = _runtime(identity, backend, subject.runtime_digest)
    if backend.version() != version:
        # the runtime's library says nothing about code that lies in the artifacts
        identity["compiler"] = backend.version()
    if known is not None:
        _check_known(known, device, library, identity.get("compiler", ""))
    journals = cache_dir() / "profiles"
    with _explained_disk(journals), Journal(journals, subject, fresh=fresh) as journal:
        # the lock is held: what an earlier run left there belongs to nobody
        folder = journal.path.with_suffix(".work")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            work = Work(target, space, backend, precision, threads, seed, device, rules, folder)
            journal.drop_failed()
            if known is None:
                overhead = _measure_overhead(work, journal)
                rows = _measure_blocks(work, journal, overhead, chosen, progress)
                fit = _measure_subnets(work, journal, chosen, rows, subnets, progress)
            else:
                overhead, fit = known.header.overhead_ms, known.header.additivity
                usable = {k: row for k, row in known.rows.items() if row.status != "failed"}
                rows = _measure_blocks(work, journal, overhead, chosen, progress, usable)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        header = Header(
            target=target.name,
            target_digest=target.digest,
            space=space.name,
            backend=backend.name,
            precision=precision,
            threads=threads,
            evidence=device.evidence,
            runtime=backend.name,
            runtime_version=version,
            runtime_digest=library,
            device=identity,
            protocol_version=PROTOCOL_VERSION,
            seed=seed,
            date=journal.started[:10],
            edgeofa_version=__version__,
            resolutions=chosen,
            additivity=fit,
            overhead_ms=overhead,
        )
        return write_table(Table(header, rows), out or table_dirs()[0])[1]


def _check(
    target: Target,
    space: Space,
    backend: Backend,
    precision: DType,
    resolutions: Sequence[int] | None,
    subnets: int,
    threads: int,
) -> tuple[int, ...]:
    """The resolutions in ascending order; a ``UsageError`` for what cannot be profiled."""
    if threads > 1 and not backend.is_parallel:
        raise UsageError(f"artifacts of {backend.name} compute on one thread", hint="--threads 1")
    if precision not in backend.precisions or precision not in target.precisions:
        raise UsageError(
            f"no {precision} with {backend.name} on {target.name}",
            hint=f"{target.name} runs {', '.join(target.precisions)}",
        )
    if not 1 <= threads <= (target.core.cores if target.core else 256):
        raise UsageError(f"{threads} threads on {target.name}")
    if subnets and not MIN_SUBNETS <= subnets <= 1000:
        raise UsageError(f"{subnets} subnets", hint=f"0, or {MIN_SUBNETS} to 1000")
    chosen = tuple(sorted(set(resolutions))) if resolutions else space.resolutions
    if foreign := sorted(set(chosen) - set(space.resolutions)):
        raise UsageError(
            f"resolutions {foreign} are not in space {space.name}",
            hint=f"it has {', '.join(map(str, space.resolutions))}",
        )
    return chosen


def _check_known(known: Table, device: Device, library: str, compiler: str) -> None:
    """A table is completed only by what made it."""
    h = known.header
    for what, there, here in (
        ("evidence", h.evidence, device.evidence),
        ("runtime", h.runtime_digest, library),
        ("compiler", h.device.get("compiler", compiler), compiler),
        ("protocol version", h.protocol_version, PROTOCOL_VERSION),
    ):
        if there != here:
            raise UsageError(
                f"its {what} is {there}, and would be {here} now: rows would not compare",
                where=f"table {h.target}/{known.name}",
                hint="profile all blocks: the same command without --missing",
            )


# ------------------------------------------------------------------------------------ the loop


def _measure_overhead(work: Work, journal: Journal) -> float:
    """What an invoke costs, from the journal or measured now."""
    known = journal.blocks()
    if any(key not in known for key in TRIVIAL):
        journal.add_blocks(measure_trivial(work))
    return invoke_overhead_ms(journal.blocks())


def _measure_blocks(
    work: Work,
    journal: Journal,
    overhead_ms: float,
    resolutions: Sequence[int],
    progress: Callable[[Progress], None],
    known: Mapping[str, Row] | None = None,
) -> dict[str, Row]:
    """The rows of all blocks, the ``known`` ones as they are."""
    known = known or {}
    groups = block_groups(work.space, resolutions)
    wanted = {b.key for group in groups for b in group if b.key not in known}
    finished = journal.blocks().keys() & wanted
    done = reused = len(finished)
    progress(Progress("blocks", done, len(wanted), reused))
    for group in groups:
        pending = [b for b in group if b.key in wanted and b.key not in finished]
        if not pending:
            continue
        journal.add_blocks(measure_blocks(work, pending, overhead_ms))
        done += len(pending)
        progress(Progress("blocks", done, len(wanted), reused))
    return {**known, **{k: row for k, row in journal.blocks().items() if k in wanted}}


def _measure_subnets(
    work: Work,
    journal: Journal,
    resolutions: Sequence[int],
    rows: dict[str, Row],
    count: int,
    progress: Callable[[Progress], None],
) -> Additivity | None:
    # a subnet with a failed block has no sum
    usable = [
        s
        for s in sample_subnets(work.space, resolutions, count, work.seed)
        if all(rows[b.key].status != "failed" for b in work.space.blocks(s))
    ]
    finished = journal.subnets().keys() & {str(s) for s in usable}
    done = reused = len(finished)
    for group in subnet_groups(work.space, usable):
        progress(Progress("subnets", done, len(usable), reused))
        pending = [s for s in group if str(s) not in finished]
        if pending:
            journal.add_subnets(measure_subnets(work, pending))
            done += len(pending)
    progress(Progress("subnets", done, len(usable), reused))
    whole = journal.subnets()
    pairs = [
        (sum(rows[b.key].latency_ms for b in work.space.blocks(s)), whole[str(s)].latency_ms)
        for s in usable
        if whole[str(s)].status != "failed"
    ]
    if len(pairs) < MIN_SUBNETS:
        return None
    return fit_additivity([x for x, _ in pairs], [y for _, y in pairs])


# ------------------------------------------------------------------------------------ helpers


def _runtime(identity: Mapping[str, str], backend: Backend, otherwise: str) -> tuple[str, str]:
    """Version and digest of the library that runs artifacts, where the device tells them (as
    ``2.3.0 sha256:…``); else the compiler's version and the digest of the whole identity."""
    match = re.fullmatch(r"(\S+) sha256:([0-9a-f]{16})[0-9a-f]*", identity.get(backend.name, ""))
    return (match[1], match[2]) if match else (backend.version(), otherwise)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _explained_disk(folder: Path) -> Iterator[None]:
    """A full disk, said so."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise EdgeofaError(
            f"cannot write: {error.strerror}",
            where=error.filename or folder,
            hint="free some space and run the same command again: finished blocks are kept",
        ) from error
