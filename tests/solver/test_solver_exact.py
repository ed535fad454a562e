"""The exact solver against plain enumeration on small spaces, and HiGHS on the shipped ones."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_world import (
    Additive,
    make_table,
    noisy_scores,
    noisy_table,
    small_space,
)

from edgeofa.accuracy.base import MacsProxy
from edgeofa.errors import FileFormatError, MissingMaterial, NoSubnetFits, UsageError
from edgeofa.solver.crosscheck import every_subnet, fits, highs_optimum
from edgeofa.solver.exact import k_best
from edgeofa.solver.frontier import frontier
from edgeofa.solver.fronts import Fronts
from edgeofa.solver.objective import leanest
from edgeofa.solver.prediction import predict
from edgeofa.solver.problem import AXES, Budgets, Limits, Problem, Totals, build_problem
from edgeofa.solver.select import select
from edgeofa.spaces import Space, load_space
from edgeofa.spaces.space import Block
from edgeofa.tables.table import Additivity, Table

STAGES = st.fixed_dictionaries(
    {
        "depths": st.sampled_from([[1], [2], [1, 2], [1, 3]]),
        "kernels": st.sampled_from([[3], [3, 5]]),
        "expands": st.sampled_from([[3], [2, 4]]),
    }
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Space, Table, Additive]:
    """A space of at most a few thousand subnets with arbitrary costs and scores.

    Small ranges make ties and equal costs common; ``harsh`` makes latency, energy and weight
    independent of each other, which no real device does.
    """
    resolutions = draw(st.sampled_from([(16,), (16, 24), (16, 20, 24)]))
    space = small_space(draw(st.lists(STAGES, min_size=1, max_size=2)), resolutions)
    rng = random.Random(draw(st.integers(0, 2**32)))
    steps = draw(st.sampled_from([2, 5, 1000]))
    signed = draw(st.booleans())

    def row(block: Block) -> tuple[float, float, int, int]:
        return (
            rng.randint(1, steps) / 8 + rng.randint(0, 3) / 10**6,
            rng.randint(0, steps) / 4,
            rng.randint(0, steps),
            rng.randint(1, 20),
        )

    scores: dict[Any, float] = {}

    def layer(*key: Any) -> float:
        return scores.setdefault(key, rng.randint(-steps if signed else 0, steps) / 3)

    fit = draw(
        st.sampled_from([None, Additivity(0.25, 1.03, 0.1, 30, 1.0, 0.99, 1.0, q95_percent=1.7)])
    )
    table = make_table(space, row, fit=fit)
    return space, table, Additive(layer, lambda r: layer("intercept", r))


def enumerate_all(problem: Problem) -> list[tuple[Any, Totals]]:
    return [(s, problem.totals(s)) for s in every_subnet(problem)]


@settings(max_examples=15, deadline=None)
@given(worlds(), st.randoms(use_true_random=False), st.sampled_from([1, 2, 7, 60]))
def test_k_best_equals_enumeration(world: Any, rng: random.Random, k: int) -> None:
    problem = build_problem(*world)
    everything = enumerate_all(problem)
    # every combination of budgets, each set to what some subnet exactly costs
    for used in product([False, True], repeat=4):
        model = [rng.choice(everything)[1] for _ in range(4)]
        limits = Limits(
            tuple(model[a].sums[a] if used[a] else None for a in range(3)),  # type: ignore[arg-type]
            model[3].peak_bytes if used[3] else None,
        )
        ranking = k_best(problem, limits, k)
        wanted = sorted((t.score for _, t in everything if fits(t, limits)), reverse=True)
        assert ranking.proven
        assert [r.totals.score for r in ranking.best] == wanted[:k]
        assert len({r.subnet for r in ranking.best}) == len(ranking.best)
        assert all(fits(problem.totals(r.subnet), limits) for r in ranking.best)
        if wanted:
            assert ranking.bound == wanted[0]


@settings(max_examples=30, deadline=None)
@given(worlds(), st.sampled_from(AXES), st.booleans(), st.booleans())
def test_frontier_equals_enumeration(
    world: Any, axis: Any, per_resolution: bool, peaked: bool
) -> None:
    problem = build_problem(*world)
    everything = enumerate_all(problem)
    peak = sorted(t.peak_bytes for _, t in everything)[len(everything) // 2] if peaked else None
    found = frontier(problem, axis, peak_bytes=peak, per_resolution=per_resolution)
    groups: dict[int, list[tuple[int, int]]] = {}
    for subnet, totals in everything:
        if peak is None or totals.peak_bytes <= peak:
            group = subnet.resolution if per_resolution else 0
            groups.setdefault(group, []).append((totals.sums[AXES.index(axis)], totals.score))
    wanted = []
    for group, points in groups.items():
        best = None
        for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
            if best is None or score > best:
                best = score
                wanted.append((group, cost, score))
    got = []
    for n in range(len(found)):
        subnet = found.subnet(n)
        totals = problem.totals(subnet)
        assert totals.score == found.score[n]
        assert totals.sums[AXES.index(axis)] == found.cost[n]
        assert peak is None or totals.peak_bytes <= peak
        got.append((subnet.resolution if per_resolution else 0, found.cost[n], found.score[n]))
    assert sorted(got) == sorted(wanted)


@settings(max_examples=30, deadline=None)
@given(worlds(), st.integers(0, 10**6))
def test_never_over_budget_and_never_too_careful(world: Any, pick: int) -> None:
    """The latency limit is exact: what plans within the budget fits, what does not is left out."""
    problem = build_problem(*world)
    everything = enumerate_all(problem)
    budget_ms = round(problem.plan_ms(everything[pick % len(everything)][1].latency_ns), 4)
    selection = select(problem, Budgets(latency_ms=budget_ms + 1e-4), k=5)
    assert selection.best.planned_ms <= (budget_ms + 1e-4) * (1 + 1e-12)
    limit, *_ = problem.boards[0].limits(Budgets(latency_ms=budget_ms))
    assert limit is not None
    assert problem.plan_ms(limit) <= budget_ms * (1 + 1e-12)
    assert problem.plan_ms(limit + 1) > budget_ms * (1 - 1e-12)


def test_budgets_are_taken_as_the_decimals_they_are() -> None:
    space = small_space([{"depths": [1], "kernels": [3], "expands": [3]}], (16,))
    # 0.1 + 0.1 + 0.1 is above 0.3 in binary
    table = make_table(space, lambda _: (0.1, 1.1, 10, 7))
    problem = build_problem(space, table, MacsProxy(space))
    assert problem.limits(Budgets(latency_ms=0.3)).sums[0] == 300_000
    best = select(problem, Budgets(latency_ms=0.3, energy_mj=3.3, weight_bytes=30, peak_bytes=7))
    assert best.best.weight_bytes == 30
    with pytest.raises(NoSubnetFits, match=r"fastest, small@16/3x3, takes 0\.300 ms"):
        select(problem, Budgets(latency_ms=0.299999))


def test_energy_follows_the_fit_of_latency() -> None:
    """The constant of the fit is spent at the blocks' mean power, and the margin holds for both."""
    space = small_space([{"depths": [1], "kernels": [3], "expands": [3]}], (16,))
    fit = Additivity(2.0, 1.1, 0.1, 30, 1.0, 0.99, 1.0, q95_percent=10.0)
    problem = build_problem(
        space, make_table(space, lambda _: (1.0, 4.0, 1, 1), fit=fit), MacsProxy(space)
    )
    best = select(problem, Budgets(energy_mj=23.33)).best
    assert best.energy_mj == pytest.approx(2.0 * 4 + 1.1 * 12)
    assert problem.plan_energy_mj(12_000_000) == pytest.approx(1.1 * 21.2)
    with pytest.raises(NoSubnetFits, match=r"takes 21\.200 mJ \(23\.320 mJ with its margin\)"):
        select(problem, Budgets(energy_mj=23.31))


def test_ties_go_to_the_faster_subnet() -> None:
    space = small_space([{"depths": [1], "kernels": [3, 5], "expands": [2, 4]}], (16,))
    table = make_table(space, lambda b: (0.1 * b.kernel, 1.0, 1, 1))
    best = select(build_problem(space, table, Additive(lambda *_: 1.0)), Budgets(latency_ms=9)).best
    assert best.subnet.stages[0][0].kernel == 3


@pytest.mark.parametrize(
    ("name", "resolutions"), [("cifar_lite", None), ("cifar_micro", None), ("ofa_mbv3", (176,))]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_optimum_equals_highs(name: str, resolutions: tuple[int, ...] | None, seed: int) -> None:
    pytest.importorskip("scipy")
    space = load_space(name)
    problem = build_problem(space, noisy_table(name, seed), noisy_scores(name, seed), resolutions)
    middle = [
        problem.totals(space.sample_by_choice(random.Random(n), problem.resolutions[0])).sums
        for n in range(9)
    ]
    latency, energy, weight = (int(x) for x in np.median(np.array(middle), axis=0))
    peak = int(np.median(problem.fixed_peaks) * 2)
    for limits in (
        Limits((latency, None, None), None),
        Limits((latency, None, None), peak),
        Limits((latency, None, weight), None),
        Limits((latency, energy, weight), peak),
    ):
        ranking = k_best(problem, limits, 1)
        assert ranking.proven
        wanted = highs_optimum(problem, limits)
        if wanted is None:
            assert ranking.best == ()
        else:
            assert ranking.best[0].totals.score == wanted


def test_many_budgets_on_the_full_space_are_proven() -> None:
    """All 25 resolutions, three sums and the peak together, K = 50."""
    problem = build_problem(
        load_space("ofa_mbv3"), noisy_table("ofa_mbv3", 3), noisy_scores("ofa_mbv3", 4)
    )
    alone = k_best(problem, problem.limits(Budgets(latency_ms=50)), 1).best[0].totals
    limits = Limits(
        (alone.latency_ns, int(alone.energy_nj * 0.9), int(alone.weight_bytes * 0.85)),
        int(alone.peak_bytes * 0.9),
    )
    ranking = k_best(problem, limits, 50)
    assert ranking.proven
    assert len(ranking.best) == 50
    assert all(fits(r.totals, limits) for r in ranking.best)
    assert ranking.bound == ranking.best[0].totals.score < alone.score


def test_a_narrow_search_says_what_it_did_not_prove() -> None:
    """Independent costs defeat the bounds; the bound still holds and the claim is withdrawn."""
    space = small_space([{"depths": [3], "kernels": [3, 5, 7], "expands": [2, 3, 4]}] * 2, (16,))
    rng = random.Random(5)
    table = make_table(
        space, lambda _: (rng.randint(1, 999) / 1e3, rng.randint(1, 999), rng.randint(1, 999), 1)
    )
    problem = build_problem(space, table, Additive(lambda *_: rng.random()))
    totals = problem.totals(space.sample_by_choice(rng))
    limits = Limits(totals.sums, None)
    exact = k_best(problem, limits, 20)
    narrow = k_best(problem, limits, 20, max_width=20)
    assert exact.proven
    assert not narrow.proven
    assert narrow.bound >= exact.best[0].totals.score >= narrow.best[0].totals.score


@settings(max_examples=20, deadline=None)
@given(worlds(), st.integers(1, 9))
def test_thinned_fronts_are_upper_bounds(world: Any, max_points: int) -> None:
    problem = build_problem(*world)
    count = len(problem.resolutions)
    weights = np.zeros((count, 3), dtype=np.int64)
    weights[:, 0] = 1
    exact, thin = Fronts(problem, weights), Fronts(problem, weights, max_points=max_points * count)
    assert exact.exact
    most = exact.span
    r = np.repeat(np.arange(count), 50)
    room = np.tile(np.linspace(-1, most, 50).astype(np.int64), count)
    for node in range(problem.nodes):
        true, bound = exact.best(node, r, room), thin.best(node, r, room)
        assert (bound >= true).all()
        if thin.exact:
            assert (bound == true).all()


def test_score_that_is_the_cost_neither_hangs_nor_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sum is non-dominated then; the frontier is refused, the optimum is still found."""
    space = load_space("cifar_micro")
    table = noisy_table("cifar_micro", 0, (32,))

    def milliseconds(resolution: int, stage: int, position: int, layer: Any) -> float:
        return table.row(space.layer_block(resolution, stage, position, layer)).latency_ms

    problem = build_problem(space, table, Additive(milliseconds))
    limits = problem.limits(Budgets(latency_ms=2.0))
    ranking = k_best(problem, limits, 3)
    assert ranking.bound >= ranking.best[0].totals.score
    limit = limits.sums[0]
    assert limit is not None
    assert 0.999 * limit < ranking.best[0].totals.latency_ns <= limit
    monkeypatch.setattr("edgeofa.solver.frontier._MAX_POINTS", 1000)
    with pytest.raises(UsageError, match="more than 1000 points"):
        frontier(problem)


# ------------------------------------------------------------------------------- infeasible


def _spread() -> tuple[Space, Problem]:
    """Fast networks are large and small ones slow, so that budgets contradict each other."""
    space = small_space([{"depths": [1, 2], "kernels": [3, 5], "expands": [2, 4]}], (16, 24))
    table = make_table(
        space,
        lambda b: (b.size / 100 + (0.5 if b.kernel == 3 else 0.1), 2.0, 50 * b.kernel, b.size),
    )
    return space, build_problem(space, table, MacsProxy(space))


@pytest.mark.parametrize(
    ("budgets", "named"),
    [
        (Budgets(latency_ms=0.2), r"within 0\.2 ms; the fastest, small@16/5x2, takes \d\.\d+ ms"),
        (Budgets(energy_mj=1.0), r"within 1 mJ; the most frugal, .* takes 6\.000 mJ"),
        (Budgets(latency_ms=9, weight_bytes=9), r"within 9 weight bytes; the smallest, .* bytes"),
        (Budgets(latency_ms=9, peak_bytes=10), r"within 10 bytes of peak .* needs 16 bytes"),
    ],
)
def test_infeasible_names_the_nearest(budgets: Budgets, named: str) -> None:
    _, problem = _spread()
    with pytest.raises(NoSubnetFits, match=named) as caught:
        select(problem, budgets)
    assert caught.value.exit_code == 3
    assert caught.value.hint is not None


def test_budgets_that_exclude_each_other_are_told_together() -> None:
    _, problem = _spread()
    fast, small = leanest(problem, 0), leanest(problem, 2)
    assert fast is not None
    assert small is not None
    budgets = Budgets(
        latency_ms=problem.plan_ms(fast.totals.latency_ns) + 1e-6,
        weight_bytes=small.totals.weight_bytes,
    )
    with pytest.raises(NoSubnetFits, match="together; the fastest within the others") as caught:
        select(problem, budgets)
    # the hint is a way out
    assert caught.value.hint is not None
    needed = float(caught.value.hint.split()[-2])
    assert select(problem, Budgets(latency_ms=needed, weight_bytes=budgets.weight_bytes)).best


# ------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused() -> None:
    space = load_space("cifar_micro")
    table = noisy_table("cifar_micro", 0, (32,))
    proxy = MacsProxy(space)
    assert build_problem(space, table, proxy).resolutions == (32,)
    with pytest.raises(UsageError, match="table is of space"):
        build_problem(load_space("cifar_lite"), table, proxy)
    with pytest.raises(MissingMaterial, match="60 blocks have no usable row: head-5x5"):
        build_problem(space, table, proxy, (40,))
    with pytest.raises(UsageError, match="no such resolution"):
        build_problem(space, table, proxy, (33,))
    with pytest.raises(UsageError, match="not a number"):
        build_problem(space, table, Additive(lambda *_: float("nan")))
    with pytest.raises(UsageError, match="no energies"):
        select(
            build_problem(space, make_table(space, lambda _: (1.0, None, 1, 1)), proxy),
            Budgets(energy_mj=1),
        )
    with pytest.raises(FileFormatError, match="not usable"):
        build_problem(space, make_table(space, lambda _: (float("inf"), 1.0, 1, 1)), proxy)
    with pytest.raises(FileFormatError, match="too large"):
        build_problem(space, make_table(space, lambda _: (1e9, 1.0, 1, 1)), proxy)
    with pytest.raises(UsageError, match="must be positive"):
        Budgets(latency_ms=-1)
    with pytest.raises(UsageError, match="k must be"):
        k_best(build_problem(space, table, proxy), Limits((None, None, None), None), 0)


def test_selection_reranks_and_predicts() -> None:
    space = load_space("cifar_micro")
    table = noisy_table("cifar_micro", 0)
    accuracy = noisy_scores("cifar_micro", 1)
    # a better model that disagrees: it likes what the additive one likes least
    accuracy.rerank = lambda subnets: np.array([1 - accuracy.accuracy(s) for s in subnets])  # type: ignore[method-assign]
    problem = build_problem(space, table, accuracy)
    selection = select(problem, Budgets(latency_ms=3.0), k=10)
    worst = k_best(problem, problem.limits(Budgets(latency_ms=3.0)), 10).best[-1]
    assert selection.best.subnet == worst.subnet
    assert selection.bound >= selection.best.score
    assert len(selection.runners_up) == 9
    best = selection.best
    assert best.latency.low_ms <= best.latency.ms <= best.latency.high_ms
    assert best.latency.ms == pytest.approx(table.predict_ms(space.blocks(best.subnet)))
    assert best.latency.ms == pytest.approx(problem.latency_ms(worst.totals.latency_ns))
    assert best.peak_bytes == worst.totals.peak_bytes
    assert predict(problem, [best.subnet]) == [best]


def test_the_proxy_claims_no_accuracy() -> None:
    space = load_space("cifar_micro")
    problem = build_problem(space, noisy_table("cifar_micro", 0), MacsProxy(space))
    best = select(problem, Budgets(latency_ms=2.0)).best
    assert best.accuracy is None
    assert best.value == best.score
    with pytest.raises(UsageError, match="no accuracy"):
        MacsProxy(space).accuracy(best.subnet)
