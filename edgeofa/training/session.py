"""One training from start to end, as the command line runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from math import inf
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from edgeofa.errors import MissingMaterial, UsageError
from edgeofa.spaces import load_space
from edgeofa.training.data import is_archive, load_images
from edgeofa.training.parallel import join_workers
from edgeofa.training.recipe import recipe_for
from edgeofa.training.record import write_record
from edgeofa.training.state import Progress
from edgeofa.training.trainer import Budget, Trainer

__all__ = ["alone", "seconds_until", "train"]


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds from ``now`` to the next HH:MM."""
    try:
        then = datetime.strptime(clock, "%H:%M")
    except ValueError:
        raise UsageError(
            f"not a time of day: {clock[:20]!r}", hint="HH:MM, such as 06:30"
        ) from None
    end = now.replace(hour=then.hour, minute=then.minute, second=0, microsecond=0)
    return ((end if end > now else end + timedelta(days=1)) - now).total_seconds()


def train(
    space_name: str,
    data: Path,
    out: Path,
    minutes: float | None,
    until: str | None,
    steps: int | None,
    seed: int,
    log: Callable[[str], None],
    refine: Path | None = None,
    schedule: str = "sandwich",
    macs: float | None = None,
    device: str = "cpu",
) -> Progress:
    """Trains the supernet of a space until the first of the limits; resumes the state in ``out``.

    The learning rate falls to its end over these limits, so give the same ones when resuming. Under
    ``torchrun`` its processes share every batch (:mod:`edgeofa.training.parallel`).

    Args:
        refine: folder of a finished training whose supernet this one refines.
        schedule: a name of :data:`edgeofa.training.schedules.SCHEDULES`.
        macs: multiply-accumulates of forward and backward passes.
        device: ``cpu`` or ``cuda``.
    """
    # one thread a process: two collapse when the machine is shared
    torch.set_num_threads(1)
    _check_device(device)
    space = load_space(space_name)
    images, held_out = load_images(data, "train", space), load_images(data, "held_out", space)
    if not is_archive(data):
        # a test picture that cannot be read is said now, not after hours of training
        load_images(data, "test", space)
    with join_workers() as workers, alone(out) if workers.first else nullcontext():
        trainer = Trainer(
            space=space,
            recipe=recipe_for(space, refine=refine is not None),
            train=images,
            held_out=held_out,
            out=out,
            seed=seed,
            log=log if workers.first else _silent,
            workers=workers,
            schedule_name=schedule,
            device=device,
        )
        if not trainer.resume() and refine is not None:
            trainer.start_from(refine / "state.pt")
        seconds = inf if minutes is None else 60 * minutes
        if until is not None:
            left = seconds_until(until, datetime.now())
            seconds = min(seconds, trainer.progress.elapsed_s + left)
        budget = Budget(seconds=seconds, steps=steps, macs=inf if macs is None else macs)
        trainer.run(budget)
        if workers.first:
            write_record(trainer, budget)
        return trainer.progress


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise UsageError(f"no device to train on: {device[:40]!r}", hint="cpu or cuda")
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise MissingMaterial(
            "torch finds no CUDA device here", hint="--device cpu, or a torch built for CUDA"
        )
    if torch.distributed.is_torchelastic_launched():
        raise UsageError(
            "several processes train on CPUs alone", hint="--device cuda without torchrun"
        )


def _silent(_: str) -> None:
    """One process of several logs."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One training at a time writes to a folder; the lock ends with its process."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            "another training writes to this folder", where=out, hint="wait, or name another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
