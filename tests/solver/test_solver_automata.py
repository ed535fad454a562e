"""The exact solver on automata of any shape against plain enumeration, CP-SAT and HiGHS.

Trees with contexts and ties, options that a context forbids, pairwise scores, one board or two.
About 25 s.
"""

from __future__ import annotations

import random
import tomllib
from itertools import product

import pytest
from automaton_world import random_problem, random_scores, true_score
from solver_world import Additive, make_table, noisy_scores, noisy_table
from tree_space import TREE

from edgeofa.accuracy.base import MacsProxy
from edgeofa.solver.budgets import Budgets, Limits, Totals
from edgeofa.solver.core import Problem
from edgeofa.solver.cpsat import cp_sat_best
from edgeofa.solver.crosscheck import every_path, fits, highs_optimum
from edgeofa.solver.exact import k_best
from edgeofa.solver.objective import k_leanest, least_peak
from edgeofa.solver.problem import build_problem
from edgeofa.solver.select import select
from edgeofa.spaces import Space, load_space
from edgeofa.spaces.blocks import Block, block_macs

SPACES = 200


def world(seed: int) -> tuple[random.Random, Problem]:
    """Every fourth has two boards and pairs, every other one of the two."""
    rng = random.Random(seed)
    steps = rng.choice([2, 9, 500])
    return rng, random_problem(rng, boards=1 + seed % 2, paired=seed % 4 >= 2, steps=steps)


def enumerated(problem: Problem) -> list[Totals]:
    return [problem.path_totals(c, path) for c, path in every_path(problem)]


def some_limits(
    rng: random.Random, everything: list[Totals], used: tuple[bool, ...], boards: int
) -> Limits:
    """Each budget is what some network costs exactly; ``used``: latency, energy, weight, peak."""
    sums = tuple(rng.choice(everything).sums[c] if used[c % 3] else None for c in range(3 * boards))
    peaks = [rng.choice(everything).peaks[b] if used[3] else None for b in range(boards)]
    return Limits(sums, peaks[0], tuple(peaks[1:]))


@pytest.mark.parametrize("part", range(4))
def test_k_best_equals_enumeration_for_every_combination_of_budgets(part: int) -> None:
    for seed in range(part, SPACES, 4):
        rng, problem = world(seed)
        networks = list(every_path(problem))
        everything = [problem.path_totals(c, path) for c, path in networks]
        for (c, path), totals in list(zip(networks, everything, strict=True))[::9]:
            assert abs(problem.score(totals.score) - true_score(problem, c, path)) < 1e-9
        for used in product([False, True], repeat=4):
            limits = some_limits(rng, everything, used, len(problem.boards))
            k = rng.choice([1, 5, 30])
            ranking = k_best(problem, limits, k)
            wanted = sorted((t.score for t in everything if fits(t, limits)), reverse=True)
            assert ranking.proven
            assert [r.totals.score for r in ranking.best] == wanted[:k], (seed, used)
            assert len({(r.context, r.path) for r in ranking.best}) == len(ranking.best)
            assert all(fits(r.totals, limits) for r in ranking.best)
            if wanted:
                assert ranking.bound == wanted[0]


def test_cp_sat_and_highs_agree() -> None:
    pytest.importorskip("ortools")
    pytest.importorskip("scipy")
    for seed in range(40):
        rng, problem = world(seed)
        everything = enumerated(problem)
        for _ in range(2):
            used = tuple(rng.random() < 0.7 for _ in range(4))
            limits = some_limits(rng, everything, used, len(problem.boards))
            k = rng.choice([1, 6])
            ours, theirs = k_best(problem, limits, k), cp_sat_best(problem, limits, k)
            assert theirs.proven
            assert [r.totals.score for r in theirs.best] == [r.totals.score for r in ours.best]
            assert theirs.bound == ours.bound
            assert len({(r.context, r.path) for r in theirs.best}) == len(theirs.best)
            by_highs = highs_optimum(problem, limits)
            assert (by_highs is None) == (not ours.best)
            if by_highs is not None:
                # its floating-point gap is 1e-6 of the largest score of an option
                assert ours.bound - 1e-5 / problem.score_unit < by_highs <= ours.bound


def test_all_three_agree_on_the_full_space() -> None:
    """All 25 resolutions of ofa_mbv3, latency, energy, weights and peak together."""
    pytest.importorskip("ortools")
    pytest.importorskip("scipy")
    space = "ofa_mbv3"
    problem = build_problem(
        load_space(space), noisy_table("ofa_mbv3", 3), noisy_scores("ofa_mbv3", 4)
    )
    alone = k_best(problem, problem.limits(Budgets(latency_ms=40)), 1).best[0].totals
    limits = Limits(
        (alone.latency_ns, int(alone.energy_nj * 0.95), int(alone.weight_bytes * 0.9)),
        int(alone.peak_bytes * 0.95),
    )
    ours, theirs = k_best(problem, limits, 3), cp_sat_best(problem, limits, 3)
    assert ours.proven
    assert theirs.proven
    assert [r.totals.score for r in theirs.best] == [r.totals.score for r in ours.best]
    # HiGHS takes a second a resolution: the winner's and its neighbours'
    best = ours.best[0]
    r = problem.resolutions[best.context]
    near = tuple(x for x in problem.resolutions if abs(x - r) <= 4)
    part = build_problem(
        load_space(space), noisy_table("ofa_mbv3", 3), noisy_scores("ofa_mbv3", 4), near
    )
    score = highs_optimum(part, limits)
    assert score is not None
    assert part.score(score) == pytest.approx(problem.score(best.totals.score), abs=1e-9)


def test_cp_sat_out_of_time_keeps_a_bound_that_holds() -> None:
    pytest.importorskip("ortools")
    for seed in range(8):
        rng, problem = world(seed)
        limits = some_limits(rng, enumerated(problem), (True, True, True, False), 1 + seed % 2)
        ours, theirs = k_best(problem, limits, 3), cp_sat_best(problem, limits, 3, seconds=0.0)
        if ours.best:
            assert not theirs.proven
            assert theirs.bound >= ours.bound


def test_leanest_equals_enumeration() -> None:
    for seed in range(40):
        rng, problem = world(seed)
        everything = enumerated(problem)
        boards = len(problem.boards)
        for _ in range(3):
            used = tuple(rng.random() < 0.3 for _ in range(4))
            limits = some_limits(rng, everything, used, boards)
            column, k = rng.randrange(3 * boards), rng.choice([1, 7])
            floor = rng.choice([None, rng.choice(everything).score])
            ranking = k_leanest(problem, limits, column, floor, k)
            good = [
                t for t in everything if fits(t, limits) and (floor is None or t.score >= floor)
            ]
            wanted = sorted(t.sums[column] for t in good)
            assert ranking.proven
            assert [r.totals.sums[column] for r in ranking.best] == wanted[:k], seed
            if wanted:
                assert -ranking.bound == wanted[0]
            lowest = min((t.peaks[-1] for t in good), default=None)
            assert least_peak(problem, limits, boards - 1, floor) == lowest


# ------------------------------------------------------------------------------- declared spaces


def garden() -> Space:
    return Space.model_validate(tomllib.loads(TREE))


def test_a_declared_tree_is_solved_exactly() -> None:
    space = garden()

    def row(block: Block) -> tuple[float, float, int, int]:
        work = block_macs(block)
        return round(0.02 + work / 1e5, 6), round(0.1 + work / 3e4, 6), work % 997, block.size**2

    problem = build_problem(space, make_table(space, row), MacsProxy(space))
    networks = list(every_path(problem))
    assert len(networks) == space.count()
    everything = [problem.path_totals(c, path) for c, path in networks]
    names = {problem.named(c, path) for c, path in networks}
    assert len(names) == space.count()
    rng = random.Random(0)
    for _ in range(12):
        limits = some_limits(rng, everything, tuple(rng.random() < 0.5 for _ in range(4)), 1)
        wanted = sorted((t.score for t in everything if fits(t, limits)), reverse=True)
        ranking = k_best(problem, limits, 9)
        assert [r.totals.score for r in ranking.best] == wanted[:9]
        for r in ranking.best:
            assert problem.totals(space.parse(str(r.subnet))) == r.totals
    selection = select(problem, Budgets(latency_ms=0.5))
    assert selection.best.planned_ms <= 0.5
    assert selection.proven


def test_pairs_change_the_optimum_and_cost_only_where_they_are() -> None:
    declared, table = load_space("cifar_micro"), noisy_table("cifar_micro", 0, (32,))
    automaton = declared.automaton((32,))
    rng = random.Random(1)
    model = random_scores(rng, automaton, paired=True)
    first, second = (e.name for e in automaton.edges if e.place in ((0, 0), (0, 1)))
    few = {k: v for k, v in model.pairs.items() if (k[1], k[3]) == (first, second)}
    sizes = []
    for pairs in ({}, few, model.pairs):
        problem = build_problem(declared, table, type(model)(model.options, pairs))  # type: ignore[arg-type]
        sizes.append(len(problem.arcs))
        for _ in range(5):
            c, path = next(every_path(problem))
            totals = problem.path_totals(c, path)
            assert abs(problem.score(totals.score) - true_score(problem, c, path)) < 1e-9
    assert sizes[0] == len(automaton.edges)
    assert sizes[0] < sizes[1] < sizes[2]


def test_additive_models_of_layers_still_work_on_any_problem() -> None:
    model = Additive(lambda _, i, j, layer: layer.expand + i - j, lambda r: r)
    problem = build_problem(load_space("cifar_micro"), noisy_table("cifar_micro", 0), model)
    for c, path in (next(every_path(problem)),):
        subnet = problem.named(c, path)
        assert problem.place(subnet) == (c, path)
        assert problem.score(problem.path_totals(c, path).score) == pytest.approx(
            model.score(subnet)
        )
