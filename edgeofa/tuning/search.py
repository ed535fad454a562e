"""Which configurations to try next: the guess first, then random ones and neighbours of the best.

A proposal is a function of the seed and of what is known so far, and of nothing else, so that an
interrupted search goes on as if it had not been.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from math import prod

from edgeofa.backends.tvm.templates import Config, Knobs

#: a space of at most so many configurations is listed, so that all of it can be tried
_LISTED = 4096
#: of a batch after the first, how many are neighbours of the best ones, if there are as many
_NEAR = 0.75
#: how many of the best have their neighbours looked at
_ELITE = 3
#: random draws for one configuration that is new, in a space that is not listed
_DRAWS = 64

#: a configuration as a key
Frozen = tuple[tuple[str, int | str], ...]


def freeze(config: Config) -> Frozen:
    """The configuration as a key, whatever the order of its knobs."""
    return tuple(sorted(config.items()))


def propose(
    knobs: Knobs,
    default: Config,
    known: Mapping[Frozen, float | None],
    count: int,
    seed: str,
    hints: Sequence[Config] = (),
) -> list[Config]:
    """Up to ``count`` configurations that are not known; none when all are. Their knobs are in
    alphabetical order.

    Args:
        knobs: the values of each knob, in order; numbers next to each other are neighbours.
        default: tried before all others.
        known: the cost of each configuration that was tried, None where it does not work.
        seed: of everything random.
        hints: configurations that were good elsewhere, tried next; others' knobs may differ.
    """
    rng = random.Random(f"{seed} {len(known)}")
    found: dict[Frozen, Config] = {}

    def add(config: Config) -> None:
        key = freeze(config)
        if key not in known and len(found) < count:
            found.setdefault(key, dict(key))

    add(default)
    for config in hints:
        if config.keys() == knobs.keys() and all(config[k] in knobs[k] for k in knobs):
            add(config)
    near = round(_NEAR * count)
    for config in _near_best(knobs, known, rng):
        if len(found) >= near:
            break
        add(config)
    for config in _others(knobs, rng, count):
        if len(found) == count:
            break
        add(config)
    return list(found.values())


def _near_best(
    knobs: Knobs, known: Mapping[Frozen, float | None], rng: random.Random
) -> Iterator[Config]:
    """Neighbours of the best configurations: one knob moved, or two at once for the very best."""
    costs = sorted((cost, key) for key, cost in known.items() if cost is not None)
    for number, (_, key) in enumerate(costs[:_ELITE]):
        steps = list(_steps(knobs, dict(key)))
        rng.shuffle(steps)
        yield from ({**dict(key), name: value} for name, value in steps)
        if number == 0:
            pairs = [p for p in itertools.combinations(steps, 2) if p[0][0] != p[1][0]]
            rng.shuffle(pairs)
            yield from ({**dict(key), **dict(pair)} for pair in pairs[:_ELITE])


def _steps(knobs: Knobs, config: Config) -> Iterator[tuple[str, int | str]]:
    """Each knob's values up to two places from the one it has; any other word of one of words."""
    for name, values in knobs.items():
        at = values.index(config[name])
        words = isinstance(config[name], str)
        for place, value in enumerate(values):
            if place != at and (words or abs(place - at) <= 2):
                yield name, value


def _others(knobs: Knobs, rng: random.Random, count: int) -> Iterator[Config]:
    """Configurations at random; of a small space each, once."""
    values = list(knobs.values())
    size = prod(len(v) for v in values)
    if size <= _LISTED:
        for number in rng.sample(range(size), size):
            chosen = []
            for options in values:
                number, place = divmod(number, len(options))
                chosen.append(options[place])
            yield dict(zip(knobs, chosen, strict=True))
        return
    for _ in range(_DRAWS * count):
        yield {name: rng.choice(options) for name, options in knobs.items()}
