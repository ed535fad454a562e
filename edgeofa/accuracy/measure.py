"""Measures many subnets of a supernet: the data that accuracy models are fitted to.

Finished subnets go to a journal, one JSON line each, so that an interrupted run goes on. Its
first line says which weights and images it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces.space import Layer, Space, Subnet
from edgeofa.training.data import Images
from edgeofa.training.recalibrate import subnet_accuracy

__all__ = ["Identity", "identity_of", "measure_subnets", "read_journal", "sample_subnets"]

_MAX_LINE = 8192
_MAX_BYTES = 1 << 26
_T = TypeVar("_T")


def sample_subnets(space: Space, count: int, seed: int) -> list[Subnet]:
    """Distinct subnets for an accuracy model: the corners, uniform ones, and leaning ones.

    Random subnets alone are all of a middling size, while a budget asks for small or for large
    ones; a leaning subnet draws a size first, and its choices then lean towards it.
    """
    rng = random.Random(f"accuracy {seed}")
    ends = (space.resolutions[0], space.resolutions[len(space.resolutions) // 2])
    chosen = dict.fromkeys(
        [s for r in ends for s in (space.largest(r), space.smallest(r))][: max(count // 8, 1)]
    )
    while len(chosen) < min(count, space.count()):
        chosen[space.sample_by_choice(rng) if rng.random() < 0.4 else _leaning(space, rng)] = None
    return list(chosen)


def _leaning(space: Space, rng: random.Random) -> Subnet:
    size = rng.random()

    def pick(options: Sequence[_T]) -> _T:
        place = rng.betavariate(1 + 4 * size, 1 + 4 * (1 - size)) * len(options)
        return options[min(int(place), len(options) - 1)]

    def layers(stage: int) -> tuple[Layer, ...]:
        s = space.stages[stage]
        return tuple(Layer(pick(s.kernels), pick(s.expands_at(j))) for j in range(pick(s.depths)))

    stages = tuple(layers(i) for i in range(len(space.stages)))
    return Subnet(space.name, rng.choice(space.resolutions), stages)


@dataclass(frozen=True)
class Identity:
    """What decides an accuracy: SHA-256 of the weights, of the images for the batch norms and of
    the labelled ones. The seed is no part of it: it only says which subnets are measured."""

    space: str
    weights: str
    recalibration: str
    images: str
    schema_version: int = 1


_IDENTITY = TypeAdapter(Identity)


def identity_of(supernet: Supernet, recalibration: Tensor, images: Images) -> Identity:
    """The identity of what ``measure_subnets`` would measure."""
    state = supernet.state_dict()
    weights = hashlib.sha256()
    for name in sorted(state):
        weights.update(f"{name} {tuple(state[name].shape)} {state[name].dtype}\n".encode())
        weights.update(_bytes(state[name]))
    labelled = hashlib.sha256(_bytes(images.pixels))
    labelled.update(_bytes(images.labels))
    return Identity(
        supernet.space.name,
        weights.hexdigest(),
        hashlib.sha256(_bytes(recalibration)).hexdigest(),
        labelled.hexdigest(),
    )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def read_journal(path: Path, space: Space, identity: Identity | None = None) -> dict[Subnet, float]:
    """Finished subnets and their accuracies; a last line that was cut off is dropped.

    Raises ``FileFormatError`` for a corrupt journal, and with ``identity`` for one of other
    weights or images.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_BYTES:
        raise _refusal(path, "larger than a journal can be")
    # what follows the last end of a line is where a run was killed
    lines = path.read_bytes().split(b"\n")[:-1]
    if not lines:
        return {}
    try:
        found = _IDENTITY.validate_json(lines[0], strict=True)
    except ValidationError as error:
        raise _refusal(path, "does not say which weights and images it belongs to") from error
    if identity is not None and found != identity:
        other = next(f.name for f in fields(found) if _differ(found, identity, f.name))
        raise _refusal(path, f"a foreign journal: it was measured with other {other}")
    entries: dict[Subnet, float] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            if len(line) > _MAX_LINE:
                raise ValueError("line too long")
            entry = json.loads(line)
            accuracy = float(entry["accuracy"])
            if not 0 <= accuracy <= 1:
                raise ValueError(f"accuracy {accuracy}")
            entries[space.parse(entry["subnet"])] = accuracy
        except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
            raise _refusal(path, f"line {number} is not an entry: {error}") from error
    return entries


def _differ(one: Identity, other: Identity, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _refusal(path: Path, what: str) -> FileFormatError:
    return FileFormatError(
        what, where=path, hint="delete it, or name another file: its subnets are measured again"
    )


def measure_subnets(
    supernet: Supernet,
    subnets: Sequence[Subnet],
    recalibration: Tensor,
    images: Images,
    journal: Path,
    progress: Callable[[int, Subnet, float], None] | None = None,
) -> list[tuple[Subnet, float]]:
    """(subnet, accuracy) in the order given; the journal's entries are not measured again.

    Args:
        recalibration: pixels ``[N, h, w, 3]`` for the batch norms.
        images: labelled images, held out of the training.
        journal: a file of this supernet and these images, made when it is not there; lines are
            only ever added to it.
        progress: called after each measured subnet.

    Raises ``FileFormatError`` for a corrupt or foreign journal, ``UsageError`` where another
    process fills it.
    """
    identity = identity_of(supernet, recalibration, images)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with _locked(journal), journal.open("a+b") as file:
        known = read_journal(journal, supernet.space, identity)
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        if b"\n" not in content:
            _append(file, asdict(identity))
        for number, subnet in enumerate(subnets):
            if subnet in known:
                continue
            known[subnet] = subnet_accuracy(supernet, subnet, recalibration, images)
            _append(file, {"subnet": str(subnet), "accuracy": known[subnet]})
            if progress is not None:
                progress(number, subnet, known[subnet])
    return [(s, known[s]) for s in subnets]


def _append(file: BinaryIO, entry: dict[str, object]) -> None:
    file.write(json.dumps(entry).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _locked(journal: Path) -> Iterator[None]:
    try:
        with FileLock(journal.with_name(f".{journal.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise UsageError(
            "another process fills this journal", where=journal, hint="wait, or name another file"
        ) from None
