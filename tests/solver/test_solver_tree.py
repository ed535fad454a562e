"""Declared spaces of any shape are solved exactly: against every network that there is."""

from __future__ import annotations

import itertools
import random
import tomllib

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from random_spaces import Data, spaces
from solver_world import make_table
from tree_space import TREE, enumerate_networks

from edgeofa.accuracy.base import MacsProxy
from edgeofa.solver.exact import k_best
from edgeofa.solver.problem import Limits, Problem, build_problem
from edgeofa.spaces import Space
from edgeofa.spaces.blocks import Block

_MOST = 300


def _problem(space: Space, seed: int) -> Problem:
    rng = random.Random(seed)

    def row(_: Block) -> tuple[float, float, int, int]:
        return rng.randint(1, 40) / 1e3, rng.randint(1, 40) / 1e3, rng.randint(1, 40), rng.randint(
            1, 40
        )  # fmt: skip

    return build_problem(space, make_table(space, row), MacsProxy(space))


def _check(space: Space, problem: Problem, limits: Limits, k: int) -> int:
    """The k best are those of enumeration; returns how many networks are within the limits."""
    every = [space.subnet_at_index(n) for n in range(space.count())]
    totals = {subnet: problem.totals(subnet) for subnet in every}
    fitting = [
        t.score
        for t in totals.values()
        if all(limit is None or x <= limit for x, limit in zip(t.sums, limits.sums, strict=True))
        and (limits.peak is None or t.peaks[0] <= limits.peak)
    ]
    ranking = k_best(problem, limits, k)
    assert ranking.proven
    assert [r.totals.score for r in ranking.best] == sorted(fitting, reverse=True)[:k]
    assert len({r.subnet for r in ranking.best}) == len(ranking.best)
    for ranked in ranking.best:
        assert totals[ranked.subnet] == ranked.totals
    return len(fitting)


@pytest.mark.parametrize("which", list(itertools.product([0, 1], repeat=4)))
def test_the_garden_is_solved_exactly(which: tuple[int, ...]) -> None:
    space = Space.model_validate(tomllib.loads(TREE))
    problem = _problem(space, seed=5)
    middle = problem.totals(space.subnet_at_index(space.count() // 3))
    sums = tuple(x if w else None for x, w in zip(middle.sums, which, strict=False))
    found = _check(space, problem, Limits(sums, middle.peaks[0] if which[3] else None), 12)
    assert 0 < found < space.count() if any(which[:3]) else found <= space.count()


@given(data=spaces, seed=st.integers(0, 999), which=st.tuples(*[st.booleans()] * 4))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_any_space_is_solved_exactly(data: Data, seed: int, which: tuple[bool, ...]) -> None:
    count = len(list(itertools.islice(enumerate_networks(data), _MOST + 1)))
    assume(0 < count <= _MOST)
    try:
        space = Space.model_validate(data)
    except ValidationError:
        pytest.fail("enumeration finds networks")
    problem = _problem(space, seed)
    rng = random.Random(seed)
    middle = problem.totals(space.sample(rng))
    sums = tuple(x if w else None for x, w in zip(middle.sums, which, strict=False))
    _check(space, problem, Limits(sums, middle.peaks[0] if which[3] else None), 5)
