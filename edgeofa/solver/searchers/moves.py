"""Small changes of one subnet that keep it within the limits."""

from __future__ import annotations

import numpy as np

from edgeofa.solver.problem import Ints
from edgeofa.solver.searchers.base import Search

_TRIES = 1000


def mutate_one(search: Search, parent: Ints) -> Ints:
    """The parent with one choice drawn anew: resolution, a stage's depth, or a layer.

    A change over the limits is drawn again; after ``_TRIES`` of them the child is the parent.
    """
    choices, rng = search.choices, search.rng
    stages = len(choices.starts)
    for _ in range(_TRIES):
        child = parent.copy()
        what = int(rng.integers(1 + stages + choices.slots))
        if what == 0:
            child[0] = rng.choice(choices.resolutions)
        elif what <= stages:
            start, depths = int(choices.starts[what - 1]), choices.depths[what - 1]
            depth = int(rng.choice(depths))
            for j in range(int(depths[-1])):
                at = 1 + start + j
                if j >= depth:
                    child[at] = -1
                elif child[at] < 0:
                    child[at] = rng.integers(choices.options[start + j])
        else:
            slot = what - 1 - stages
            if child[1 + slot] < 0:
                continue
            child[1 + slot] = rng.integers(choices.options[slot])
        if not np.array_equal(child, parent) and choices.fits(child[None])[0]:
            return child
    return parent
