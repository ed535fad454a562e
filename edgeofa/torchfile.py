"""Torch files of others, read without running any code of theirs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from edgeofa.errors import FileFormatError, MissingMaterial

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_state_dict"]


def read_state_dict(path: Path, max_bytes: int, hint: str | None = None) -> dict[str, Tensor]:
    """The tensors of a ``torch.save``d state dict, or of a checkpoint that has one as
    ``state_dict``; on the CPU, all finite.

    Read by torch's restricted unpickler, which builds tensors and plain containers and nothing
    else.

    Args:
        hint: what to try where there is no such file.

    Raises:
        MissingMaterial: there is no such file.
        FileFormatError: it is larger than ``max_bytes``, no torch file, holds objects other than
            tensors, or a value that is not finite (named).
    """
    import torch

    if not path.is_file():
        raise MissingMaterial("no such file", where=path, hint=hint)
    if path.stat().st_size > max_bytes:
        raise FileFormatError(f"a file of this kind is at most {max_bytes} bytes", where=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as failure:
        reason = str(failure).splitlines() or [type(failure).__name__]
        raise FileFormatError(
            f"not a torch file of tensors alone: {reason[0][:200]}", where=path
        ) from failure
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise FileFormatError("not a state dict", where=path)
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise FileFormatError(f"entry {str(name)[:80]!r} is not a named tensor", where=path)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FileFormatError(f"entry {name[:200]} is not finite", where=path)
        state[name] = value
    return state
