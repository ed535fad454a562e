"""Quadratic ceilings hold for every subnet, whatever the multipliers. 5 s, 3 to load torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from network_world import half_budget, small_problem

from edgeofa.solver.bound import bound, crown_line
from edgeofa.solver.choices import Choices, RowFeatures
from edgeofa.solver.crosscheck import every_subnet, fits
from edgeofa.solver.problem import Limits, Problem
from edgeofa.solver.quadratic import Multipliers, Relaxation, descend
from edgeofa.solver.relaxed import Part
from edgeofa.solver.segments import segments_of


def relaxations_of(problem: Problem, limits: Limits) -> list[tuple[Relaxation, float]]:
    """One a context, with the best that a subnet of it reaches within the limits."""
    choices = Choices(problem, limits)
    features = RowFeatures(choices, problem.accuracy)  # type: ignore[arg-type]
    network = problem.accuracy.network  # type: ignore[attr-defined]
    subnets = [s for s in every_subnet(problem) if fits(problem.totals(s), limits)]
    values = problem.accuracy.rerank(subnets)
    found = []
    for c in choices.contexts.tolist():
        part = Part.whole(choices, features, c)
        r = problem.resolutions[c]
        here = [v for s, v in zip(subnets, values, strict=True) if s.resolution == r]
        relaxation = Relaxation(network, part, crown_line(network, part).ranges)
        found.append((relaxation, max(here)))
    return found


def concave(r: Relaxation, rng: np.random.Generator, scale: float) -> Multipliers:
    """Random multipliers, those of the squares made large enough."""
    a, b, c, e = (tuple(rng.exponential(scale, len(w)) for w in r.weights) for _ in range(4))
    d = [rng.uniform(0.5, 1.5, len(w)) * scale for w in r.weights]
    below = None
    for k in range(len(d) - 1, -1, -1):
        if below is not None:
            d[k] = d[k] + np.abs(below).sum(axis=1)
        kept = np.diag(d[k] + e[k]) - (0 if below is None else below)
        coupled = d[k][:, None] * r.weights[k]
        below = coupled.T @ np.linalg.solve(kept, coupled) / 4
    assert below is not None
    largest = float(np.linalg.eigvalsh(below)[-1]) * 1.01
    blocks = tuple(largest * np.eye(s.stop - s.start) for s in r.slices)
    point = rng.uniform(0, 1, len(below))
    return Multipliers(a, b, c, tuple(d), e, blocks, point, float(rng.exponential(scale)))


@pytest.mark.parametrize("seed", range(3))
def test_any_multipliers_give_a_ceiling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = small_problem(seed, (9, 7, 5))
    for relaxation, best in relaxations_of(problem, half_budget(problem)):
        for scale in (0.01, 0.1, 1.0):
            assert np.isfinite(ceiling := relaxation.certify(concave(relaxation, rng, scale)))
            assert ceiling >= best


def test_what_is_not_concave_or_not_positive_proves_nothing() -> None:
    problem = small_problem(0)
    relaxation, _ = relaxations_of(problem, half_budget(problem))[0]
    m = concave(relaxation, np.random.default_rng(0), 0.1)
    assert np.isfinite(relaxation.certify(m))
    flat = replace(m, blocks=tuple(b * 1e-3 for b in m.blocks))
    negative = replace(m, a=tuple(-a for a in m.a))
    assert relaxation.certify(flat) == np.inf
    assert relaxation.certify(negative) == np.inf
    assert relaxation.certify(replace(m, price=-1.0)) == np.inf


def test_segments_list_every_network_once() -> None:
    problem = small_problem(2)
    limits = Limits((None, None, None), None)
    choices = Choices(problem, limits)
    features = RowFeatures(choices, problem.accuracy)  # type: ignore[arg-type]
    for c in choices.contexts.tolist():
        segments = segments_of(Part.whole(choices, features, c))
        assert segments is not None
        here = [s for s in every_subnet(problem) if problem.resolutions[c] == s.resolution]
        assert np.prod([len(s) for s in segments]) == len(here)
        wanted = features.encode(np.array([choices.row(s) for s in here]))
        columns = np.concatenate([s.columns for s in segments])
        rows = segments[0]
        for segment in segments[1:]:
            rows = rows.times(segment)
        got = {tuple(x) for x in rows.inputs.tolist()}
        assert got == {tuple(x) for x in wanted[:, columns].astype(float).tolist()}
        assert len(got) == len(here)


def test_descent_lowers_the_ceiling_of_a_wide_network() -> None:
    problem = small_problem(3, (40, 40, 40))
    limits = half_budget(problem)
    found = relaxations_of(problem, limits)
    heard: list[float] = []
    start = [1e6] * len(found)
    after = descend([r for r, _ in found], start, 1.5, heard.append)
    assert all(ceiling >= best for ceiling, (_, best) in zip(after, found, strict=True))
    assert max(after) == min(heard) < 1e6
    whole = bound(problem, limits, seconds=3.0)
    assert max(best for _, best in found) <= whole.value <= whole.root
    assert [v for _, v in whole.trace] == sorted((v for _, v in whole.trace), reverse=True)
