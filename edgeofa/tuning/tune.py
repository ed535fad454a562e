"""Tune kernels for a device: search within a budget, keep what is faster beyond doubt.

    pass 1: default and 3 others of each      pass 2: 8 more of each    ...      confirm, keep
    |--- most work first, 8 kernels at once --|--- longest time first ---|-------|------------|

Every trial is in a journal before the next batch begins. The order depends on the seed and on what
was found, never on the clock: a budget only says how far it goes, and a run with more of it goes
on where the last one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.tvm.backend import templates_digest
from edgeofa.backends.tvm.machine import Machine
from edgeofa.devices.base import Device, Evidence
from edgeofa.tuning.build import Builders
from edgeofa.tuning.evaluate import Evaluator
from edgeofa.tuning.journal import TuningJournal
from edgeofa.tuning.records import (
    Record,
    all_records,
    read_records,
    records_behind,
    records_path,
    write_records,
)
from edgeofa.tuning.run import USUAL_LIMITS, Limits, Progress, Run, Tuned
from edgeofa.tuning.workload import Work


@dataclass(frozen=True)
class Tuning:
    """A whole run. ``speedup``: of the kernels' summed time. ``finished``: nothing is left to try
    within the limit of trials; else the same command goes on. ``unusable``: kernels whose default
    does not work, which are not tuned, and why; the next run tries them again."""

    machine: str
    device: str
    evidence: Evidence
    file: Path
    kernels: tuple[Tuned, ...]
    unusable: tuple[str, ...]
    speedup: float
    trials: int
    new_trials: int
    seconds: float
    finished: bool


def tune(
    works: Sequence[Work],
    machine: Machine,
    device: Device,
    folder: Path,
    journals: Path,
    *,
    limits: Limits = USUAL_LIMITS,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuning:
    """Search configurations of the kernels, and write the best ones to the machine's file.

    Args:
        works: what to tune, most work first.
        folder: of the records; other kernels' records in it stay. What is on record for a kernel,
            here or in use, is tried among the first.
        journals: folder of what was tried.

    Raises ``DeviceError`` when no kernel's default runs, ``FileFormatError`` where the records that
    there are cannot be read.
    """
    subject = {
        "machine": machine.key,
        "schedules": templates_digest(),
        **device.identity(),
    }
    begin = clock()
    with (
        TuningJournal(journals, machine.key, subject) as journal,
        Builders() as builders,
    ):
        path = records_path(folder, machine.key)
        old = read_records(path, machine.key) if path.is_file() else {}
        recorded = {k: r.config for k, r in {**all_records(machine.key), **old}.items()}
        evaluator = Evaluator(machine, device, builders, seed=seed)
        run = Run(works, evaluator, journal, limits, seed, recorded)
        spent = False
        for _ in run.batches():
            run.report(progress, clock() - begin)
            spent = limits.seconds is not None and clock() - begin >= limits.seconds
            if spent:
                break
        kept = run.verdicts()
    tried = {t.kernel for t in kept}
    records = {k: r for k, r in old.items() if k not in tried}
    records |= {r.kernel: r for r in _records(kept, evaluator, folder)}
    write_records(path, machine.key, records.values())
    return Tuning(
        machine=machine.key,
        device=device.name,
        evidence=device.evidence,
        file=path,
        kernels=kept,
        unusable=tuple(f"{kernel}: {reason}" for kernel, reason in run.unusable().items()),
        speedup=_speedup(kept),
        trials=sum(t.trials for t in kept),
        new_trials=run.new_trials,
        seconds=clock() - begin,
        finished=not spent,
    )


def _records(kept: Iterable[Tuned], evaluator: Evaluator, folder: Path) -> list[Record]:
    """What is kept. A default that stays is not recorded, because it may become better with
    edgeofa, unless another folder's record would be used in its place."""
    behind = records_behind(folder, evaluator.machine.key)
    return [
        Record(
            kernel=t.kernel,
            config=dict(t.config),
            ratio=round(t.ratio, 4),
            default_ns=round(t.default_ns, 1),
            evidence=evaluator.device.evidence,
            trials=t.trials,
            schedules=templates_digest(),
        )
        for t in kept
        if t.ratio < 1 or t.kernel in behind
    ]


def _speedup(kept: Sequence[Tuned]) -> float:
    before = sum(t.calls * t.default_ns for t in kept)
    after = sum(t.calls * t.default_ns * t.ratio for t in kept)
    return before / after if after else 1.0
