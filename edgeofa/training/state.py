"""What a training writes to disk so that it can be stopped at any moment and continued."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeofa.errors import FileFormatError, MissingMaterial
from edgeofa.paths import atomic_path

__all__ = [
    "Progress",
    "Stored",
    "check_run",
    "load_average",
    "load_state",
    "load_training",
    "read_progress",
    "restore",
    "save_state",
]

_SCHEMA = 1


@dataclass
class Progress:
    """Where a training stands. Randomness is derived from the step, so nothing else is needed."""

    step: int = 0
    images: int = 0
    #: seconds of training in all runs so far
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    #: multiply-accumulates of all forward passes
    macs: float = 0.0
    #: image passes through any subnet
    passes: int = 0
    #: seconds of the training that this one started from; its other costs are in the fields above
    earlier_s: float = 0.0
    #: multiply-accumulates of all forward and backward passes of this training, teachers' included
    training_macs: float = 0.0
    #: of the schedule, and the update at which it last began anew
    phase: int = 0
    restarted: int = 0


def save_state(
    path: Path,
    space: str,
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    run: Mapping[str, str],
    teacher: nn.Module | None = None,
    curve: Sequence[Mapping[str, float]] = (),
) -> None:
    """``run``: what the training is a training of (see :func:`check_run`)."""
    content = {
        "schema_version": _SCHEMA,
        "space": space,
        "run": dict(run),
        "progress": vars(progress),
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "teacher": None if teacher is None else teacher.state_dict(),
        "curve": [dict(point) for point in curve],
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _read(path: Path, space: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = (content["schema_version"], content["space"])
    except (KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise FileFormatError(f"not a training state: {error}", where=path) from error
    except OSError as error:
        raise MissingMaterial(f"no training state: {error}", where=path) from error
    if found != (_SCHEMA, space):
        raise FileFormatError(
            f"training state of schema and space {found}, not {(_SCHEMA, space)}", where=path
        )
    return content


def check_run(path: Path, space: str, run: Mapping[str, str]) -> bool:
    """Whether a state says what it is a training of; ``FileFormatError`` where that is another.

    States of the first trainings do not say it.
    """
    stored = _read(path, space).get("run")
    if stored is None:
        return False
    if not isinstance(stored, dict):
        raise FileFormatError("not a training state: its run is no table", where=path)
    # there was one schedule before states named it
    stored = {"schedule": "sandwich", **stored}
    for key, value in run.items():
        if stored.get(key) != value:
            raise FileFormatError(
                f"the state of another training: its {key} is {str(stored.get(key))[:80]}, "
                f"not {value}",
                where=path,
                hint="give the same recipe, seed and data, or another folder",
            )
    return True


def read_progress(path: Path, space: str) -> Progress:
    """What a training has cost so far."""
    try:
        return Progress(**_read(path, space)["progress"])
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"not a training state: {error}", where=path) from error


def load_average(path: Path, space: str, model: nn.Module) -> Progress:
    """Loads an earlier training's averaged weights; returns a new start that carries its costs."""
    content = _read(path, space)
    try:
        model.load_state_dict(content["average"])
        before = Progress(**content["progress"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise FileFormatError(f"not a training state: {error}", where=path) from error
    return Progress(
        images=before.images,
        cpu_s=before.cpu_s,
        macs=before.macs,
        passes=before.passes,
        earlier_s=before.earlier_s + before.elapsed_s,
    )


def load_state(
    path: Path,
    space: str,
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer | None,
) -> Progress:
    """Restores all of it in place; refuses the state of another space or version."""
    return load_training(path, space, model, average, optimiser).progress


@dataclass(frozen=True)
class Stored:
    """What a state holds beside the networks it was loaded into."""

    progress: Progress
    #: the frozen teacher's weights, where the schedule has one by now
    teacher: dict[str, Tensor] | None
    curve: list[dict[str, float]]


def load_training(
    path: Path,
    space: str,
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer | None,
) -> Stored:
    """``load_state`` with what a training goes on from."""
    content = _read(path, space)
    try:
        model.load_state_dict(content["model"])
        average.load_state_dict(content["average"])
        if optimiser is not None:
            optimiser.load_state_dict(content["optimiser"])
        curve = [{str(k): float(v) for k, v in p.items()} for p in content.get("curve", ())]
        return Stored(Progress(**content["progress"]), content.get("teacher"), curve)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FileFormatError(f"not a training state: {error}", where=path) from error


def restore(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights that a state holds."""
    try:
        network.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        raise FileFormatError(f"not a training state: {error}", where=path) from error
