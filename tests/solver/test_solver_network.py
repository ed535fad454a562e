"""Search and proof under predictors that are networks, and the searchers they are compared with.

Networks and tables here are made up; what is tested against is plain enumeration.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from network_world import (
    RESOLUTIONS,
    STAGES,
    enumerated_best,
    half_budget,
    network_model,
    small_problem,
)
from solver_world import Additive, make_table, noisy_table, small_space

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.anytime import anytime, first_solutions
from edgeofa.solver.bound import Line, bound, crown_line, interval_ceiling, relu_lines
from edgeofa.solver.choices import Choices, Objective, RowFeatures
from edgeofa.solver.crosscheck import every_subnet, fits
from edgeofa.solver.exact import k_best
from edgeofa.solver.problem import Budgets, Limits, Problem, build_problem
from edgeofa.solver.relaxed import Part
from edgeofa.solver.searchers import get_searcher, searcher_names
from edgeofa.solver.searchers.base import Search
from edgeofa.solver.searchers.ofa import OfaEvolution
from edgeofa.solver.stack import stacked
from edgeofa.spaces import load_space


def whole_parts(problem: Problem, limits: Limits) -> list[Part]:
    choices = Choices(problem, limits)
    features = RowFeatures(choices, problem.accuracy)  # type: ignore[arg-type]
    return [Part.whole(choices, features, c) for c in choices.contexts.tolist()]


# ------------------------------------------------------------------------------------ rows


def test_rows_cost_and_predict_what_their_subnets_do() -> None:
    problem = small_problem(0)
    choices = Choices(problem, half_budget(problem))
    rows = choices.sample(np.random.default_rng(1), 50)
    subnets = [choices.subnet(row) for row in rows]
    objective = Objective(choices)
    assert np.abs(objective(rows) - problem.accuracy.rerank(subnets)).max() < 1e-5
    assert objective.calls == 50
    for row, subnet, sums, fit in zip(
        rows, subnets, choices.sums(rows), choices.fits(rows), strict=True
    ):
        totals = problem.totals(subnet)
        assert tuple(sums) == totals.sums
        assert fit == fits(totals, choices.limits)
        assert (choices.row(subnet) == row).all()


def test_stacked_problems_keep_their_own_figures() -> None:
    space = small_space(STAGES, RESOLUTIONS)
    model = Additive(lambda r, i, j, x: x.expand / (r + i + j))
    parts = []
    for n, r in enumerate(RESOLUTIONS):
        table = make_table(
            space, lambda b, n=n: (1.0 + n + b.mid / 100, None, 1, 1), resolutions=(r,)
        )
        parts.append(build_problem(space, table, model))
    whole = stacked(parts)
    for part in parts:
        for subnet in list(every_subnet(part))[::7]:
            assert whole.totals(subnet).sums == part.totals(subnet).sums
            assert whole.score(whole.totals(subnet).score) == pytest.approx(model.score(subnet))
    with pytest.raises(UsageError, match="ascend"):
        stacked(parts[::-1])


# ------------------------------------------------------------------------------------ anytime


@pytest.mark.parametrize("seed", range(6))
def test_anytime_finds_the_best_of_a_small_space(seed: int) -> None:
    problem = small_problem(seed)
    limits = half_budget(problem)
    found = anytime(problem, limits, calls=1500, seed=0)
    assert fits(problem.totals(found.best), limits)
    assert found.value == pytest.approx(enumerated_best(problem, limits), abs=1e-9)
    again = anytime(problem, limits, calls=1500, seed=0)
    assert (again.best, again.value, again.calls) == (found.best, found.value, found.calls)


def test_anytime_of_an_additive_model_starts_at_the_optimum() -> None:
    space = small_space(STAGES, RESOLUTIONS)
    table = make_table(space, lambda b: (1.0 + b.mid / 50 + b.kernel / 9, None, 1, 1))
    problem = build_problem(space, table, Additive(lambda _, i, j, x: x.kernel * x.expand + i + j))
    limits = half_budget(problem)
    best = k_best(problem, limits, 1).best[0].totals.score
    search = Search(problem, limits, 10, 0)
    scores = [problem.totals(search.choices.subnet(row)).score for row in first_solutions(search)]
    assert max(scores) == best


def test_anytime_names_a_budget_that_nothing_meets() -> None:
    with pytest.raises(NoSubnetFits):
        anytime(small_problem(0), Limits((1, None, None), None), calls=10)


# ------------------------------------------------------------------------------------ bound


@pytest.mark.parametrize("seed", range(4))
def test_bound_is_never_below_the_best_and_closes_on_it(seed: int) -> None:
    problem = small_problem(seed)
    limits = half_budget(problem)
    best = enumerated_best(problem, limits)
    quick = bound(problem, limits, seconds=0.0)
    assert quick.value >= best
    assert quick.value <= quick.interval + 1e-9
    closed = bound(problem, limits, best=best, seconds=60.0)
    assert closed.closed
    assert best <= closed.value <= best + 1e-6
    assert closed.nodes >= quick.nodes


def test_crown_is_within_the_interval_and_above_random_subnets() -> None:
    space = load_space("ofa_mbv3_w12")
    table = noisy_table("ofa_mbv3_w12", 0, (160, 192))
    problem = build_problem(space, table, network_model(space, (20, 20, 20), 3))
    middle = np.median(
        Choices(problem, Limits((None, None, None), None)).sums(
            Choices(problem, Limits((None, None, None), None)).sample(np.random.default_rng(0), 500)
        )[:, 0]
    )
    limits = Limits((int(middle), None, None), None)
    choices = Choices(problem, limits)
    rows = choices.sample(np.random.default_rng(5), 4000)
    rows = rows[choices.fits(rows)]
    values = Objective(choices)(rows)
    for part in whole_parts(problem, limits):
        crown = crown_line(problem.accuracy.network, part)  # type: ignore[attr-defined]
        ceiling = crown.ceiling
        assert ceiling <= interval_ceiling(problem.accuracy.network, part)  # type: ignore[attr-defined]
        here = rows[:, 0] == part.context
        assert here.sum() > 100
        assert values[here].max() <= ceiling
        # the linear function itself lies above the network at every one of them
        x = RowFeatures(choices, problem.accuracy).encode(rows[here]).astype(float)  # type: ignore[arg-type]
        assert (values[here] <= x @ crown.slopes[0] + crown.offsets[0] + 1e-5).all()


def test_priced_budget_bounds_every_linear_function() -> None:
    problem = small_problem(2)
    limits = half_budget(problem)
    choices = Choices(problem, limits)
    features = RowFeatures(choices, problem.accuracy)  # type: ignore[arg-type]
    rows = np.array([choices.row(s) for s in every_subnet(problem)])
    rows = rows[choices.fits(rows)]
    x = features.encode(rows).astype(float)
    slopes = np.random.default_rng(0).normal(size=(40, x.shape[1]))
    for part in whole_parts(problem, limits):
        here = x[rows[:, 0] == part.context]
        exact = (here @ slopes.T).max(axis=0)
        ceilings = part.maximise(slopes, np.zeros(40))
        assert (ceilings >= exact).all()
        free = Part(
            Choices(problem, Limits((None, None, None), None)),
            features,
            part.context,
            part.edges,
            part.options,
        )
        # without the price of the budget it would be looser
        assert ceilings.sum() < free.maximise(slopes, np.zeros(40)).sum()


def test_a_broken_slope_is_found_out() -> None:
    """Half a chord without its lift is not above a ReLU: the best exceeds such a bound."""

    def broken(low: np.ndarray, high: np.ndarray) -> Line:
        return replace(
            relu_lines(low, high), lift=np.zeros(len(low)), up=relu_lines(low, high).up / 2
        )

    found_out = 0
    for seed in range(4):
        problem = small_problem(seed)
        limits = half_budget(problem)
        parts = whole_parts(problem, limits)
        network = problem.accuracy.network  # type: ignore[attr-defined]
        best = enumerated_best(problem, limits)
        assert max(crown_line(network, p).ceiling for p in parts) >= best
        found_out += max(crown_line(network, p, broken).ceiling for p in parts) < best
    assert found_out >= 3


def test_bound_refuses_what_it_cannot_prove() -> None:
    problem = small_problem(0)
    with pytest.raises(NoSubnetFits):
        bound(problem, Limits((1, None, None), None))
    additive = replace(problem, accuracy=Additive(lambda *_: 1.0))
    with pytest.raises(UsageError, match="additive"):
        bound(additive, half_budget(problem))


# ------------------------------------------------------------------------------------ searchers


@pytest.mark.parametrize("name", searcher_names())
def test_searchers_keep_to_limits_calls_and_seed(name: str) -> None:
    problem = small_problem(1)
    limits = half_budget(problem)
    result = get_searcher(name).search(problem, limits, 300, 7)
    assert result.calls <= 300
    assert fits(problem.totals(result.best), limits)
    assert result.value == pytest.approx(problem.accuracy.accuracy(result.best))
    values = [step.value for step in result.trace]
    assert values == sorted(values)
    assert result.value == pytest.approx(values[-1], abs=1e-5)
    again = get_searcher(name).search(problem, limits, 300, 7)
    assert (again.best, again.calls) == (result.best, result.calls)


@pytest.mark.parametrize("name", ["anytime", "ofa-evolution", "regularised", "smbo"])
def test_searchers_beat_random_on_a_large_space(name: str) -> None:
    space = load_space("cifar_lite")
    model = Additive(
        lambda _, i, j, x: np.log(x.kernel * x.expand) / (9 + i + j), lambda r: r / 500
    )
    problem = build_problem(space, noisy_table("cifar_lite", 0), model)
    middle = problem.totals(space.smallest(space.resolutions[0])).latency_ns * 3
    limits = Limits((middle, None, None), None)
    ours, theirs = (
        [get_searcher(n).search(problem, limits, 600, seed).value for seed in range(3)]
        for n in (name, "random")
    )
    assert np.mean(ours) > np.mean(theirs)


def test_evolution_makes_the_published_number_of_calls() -> None:
    problem = small_problem(0)
    searcher = OfaEvolution(generations=3)
    result = searcher.search(problem, half_budget(problem), 10_000, 0)
    assert result.calls == 100 + 3 * 100
    assert (OfaEvolution().population, OfaEvolution().generations) == (100, 500)


def test_unknown_searchers_are_named() -> None:
    with pytest.raises(UsageError, match="no searcher 'evolution'"):
        get_searcher("evolution")


def test_budgets_with_nothing_random_in_them_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeofa.solver.searchers.base.MAX_TRIES", 5000)
    problem = small_problem(0)
    with pytest.raises(NoSubnetFits, match="random subnets"):
        get_searcher("random").search(problem, problem.limits(Budgets(latency_ms=1e-3)), 10, 0)
