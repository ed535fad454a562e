"""What a training writes to disk so that it can be stopped at any moment and continued."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeofa.errors import FileFormatError
from edgeofa.paths import atomic_path

__all__ = ["Progress", "load_state", "save_state"]

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


def save_state(
    path: Path,
    space: str,
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    content = {
        "schema_version": _SCHEMA,
        "space": space,
        "progress": vars(progress),
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_state(
    path: Path,
    space: str,
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer | None,
) -> Progress:
    """Restores all of it in place; refuses the state of another space or version."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found: tuple[object, object] = (content["schema_version"], content["space"])
        if found != (_SCHEMA, space):
            raise FileFormatError(
                f"training state of schema and space {found}, not {(_SCHEMA, space)}", where=path
            )
        for module, key in ((model, "model"), (average, "average")):
            state: dict[str, Tensor] = content[key]
            module.load_state_dict(state)
        if optimiser is not None:
            optimiser.load_state_dict(content["optimiser"])
        return Progress(**content["progress"])
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise FileFormatError(f"not a training state: {error}", where=path) from error
