"""Measures many subnets of a supernet: the data that accuracy models are fitted to.

Finished subnets go to a journal, one JSON line each, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces.space import Layer, Space, Subnet
from edgeofa.training.data import Images
from edgeofa.training.recalibrate import subnet_accuracy

__all__ = ["measure_subnets", "read_journal", "sample_subnets"]

_MAX_LINE = 8192
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
        chosen[space.sample(rng) if rng.random() < 0.4 else _leaning(space, rng)] = None
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


def read_journal(path: Path, space: Space) -> dict[Subnet, float]:
    """Finished subnets and their accuracies; a last line that was cut off is dropped."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    found: dict[Subnet, float] = {}
    for number, line in enumerate(lines):
        try:
            if len(line) > _MAX_LINE:
                raise ValueError("line too long")
            entry = json.loads(line)
            accuracy = float(entry["accuracy"])
            if not 0 <= accuracy <= 1:
                raise ValueError(f"accuracy {accuracy}")
            found[space.parse(entry["subnet"])] = accuracy
        except (ValueError, KeyError, TypeError, UsageError) as error:
            if number == len(lines) - 1:
                break
            raise FileFormatError(
                f"line {number + 1} is not an entry: {error}", where=path
            ) from error
    return found


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
        journal: must belong to this very supernet and these images.
        progress: called after each measured subnet.
    """
    known = read_journal(journal, supernet.space)
    journal.parent.mkdir(parents=True, exist_ok=True)
    # rewritten, so that a line that was cut off does not stay in the middle
    with journal.open("w", encoding="utf-8") as file:
        for subnet, accuracy in known.items():
            file.write(json.dumps({"subnet": str(subnet), "accuracy": accuracy}) + "\n")
        file.flush()
        for number, subnet in enumerate(subnets):
            if subnet in known:
                continue
            known[subnet] = subnet_accuracy(supernet, subnet, recalibration, images)
            file.write(json.dumps({"subnet": str(subnet), "accuracy": known[subnet]}) + "\n")
            file.flush()
            if progress is not None:
                progress(number, subnet, known[subnet])
    return [(s, known[s]) for s in subnets]
