"""Questions to the solver: several tables at once, goals, confidence, ties, explanations, refusals.

About 15 s.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network_world import enumerated_best, half_budget, small_problem
from solver_world import Additive, make_table, noisy_scores, noisy_table, small_space

import edgeofa.spaces
from edgeofa.accuracy.base import MacsProxy
from edgeofa.accuracy.features import space_digest
from edgeofa.accuracy.load import load_model
from edgeofa.accuracy.pairwise import PairwiseFile
from edgeofa.errors import FileFormatError, MissingMaterial, NoSubnetFits, UsageError
from edgeofa.report.solution import answer_text
from edgeofa.solver.budgets import Budgets, Limits
from edgeofa.solver.crosscheck import every_path
from edgeofa.solver.exact import k_best
from edgeofa.solver.explain import differences, explain
from edgeofa.solver.inputs import Inputs, choose, load_named, pose_candidates, solve
from edgeofa.solver.margins import margin_of, student_t
from edgeofa.solver.methods import parse_method
from edgeofa.solver.objective import leanest
from edgeofa.solver.prediction import predict
from edgeofa.solver.problem import build_problem
from edgeofa.solver.question import Goal, Question, parse_goal, parse_prefer
from edgeofa.solver.record import frontier_record
from edgeofa.solver.select import answer, select
from edgeofa.solver.ties import tolerance
from edgeofa.spaces import Space, load_space
from edgeofa.tables.table import Additivity, Table

STAGES = [{"depths": [1, 2], "kernels": [3, 5], "expands": [2, 4]}] * 2
FIT = Additivity(0.2, 1.1, 0.1, 30, 1.0, 0.99, 1.0, q95_percent=2.0)


class Logistic(Additive):
    """Scores are log-odds of the accuracy; an error may be known."""

    def score_at(self, accuracy: float) -> float:
        return float(np.log(accuracy / (1 - accuracy)))


def small() -> Space:
    return small_space(STAGES, (16, 24))


def model_of(seed: int) -> Logistic:
    rng = np.random.default_rng(seed)
    worth: dict[Any, float] = {}
    return Logistic(lambda *key: worth.setdefault(key, float(rng.uniform(0.0, 0.4))))


def table_of(seed: int, *, precision: Any = "int8", target: str = "made-up") -> Table:
    rng = np.random.default_rng(seed)

    def row(block: Any) -> tuple[float, float, int, int]:
        ms = round(0.1 + block.kernel * block.size / 200 * rng.uniform(0.5, 1.5), 6)
        return ms, round(3 * ms, 6), int(rng.integers(1, 4000)), int(rng.integers(100, 4000))

    table = make_table(small(), row, fit=FIT)
    header = dataclasses.replace(table.header, precision=precision, target=target)
    rows = {
        k: dataclasses.replace(
            r, latency_low_ms=0.9 * r.latency_ms, latency_high_ms=1.2 * r.latency_ms
        )
        for k, r in table.rows.items()
    }
    return Table(header, rows)


def middle_ms(table: Table) -> float:
    problem = build_problem(small(), table, model_of(0))
    sums = sorted(problem.path_totals(c, p).latency_ns for c, p in every_path(problem))
    return problem.plan_ms(sums[len(sums) // 2])


# ------------------------------------------------------------------------------ several tables


def test_the_answer_is_the_best_over_all_tables_with_one_bound() -> None:
    space, model = small(), model_of(1)
    tables = [table_of(n, precision=p) for n, p in ((1, "int8"), (2, "float32"))]
    candidates = pose_candidates([tables], space, model)
    budgets = Budgets(latency_ms=min(middle_ms(t) for t in tables))
    inputs, selection = choose(candidates, budgets, k=20)
    each = [select(c.problem, budgets, k=20) for c in candidates]
    assert selection.best.value == max(s.best.value for s in each)
    assert selection.bound == max(s.bound for s in each)
    assert selection.best == predict(inputs.problem, [selection.best.subnet])[0]
    assert selection.proven
    # one candidate a subnet, where it is fastest, and the best of all in order
    subnets = [p.subnet for p in (selection.best, *selection.runners_up)]
    assert len(set(subnets)) == len(subnets)
    for p in (selection.best, *selection.runners_up):
        times = [predict(c.problem, [p.subnet])[0].planned_ms for c in candidates]
        assert p.planned_ms == min(times)


def test_one_network_for_two_targets_keeps_both_budgets() -> None:
    space, model = small(), model_of(2)
    first = [table_of(1, target="rpi4"), table_of(2, precision="float32", target="rpi4")]
    second = [table_of(3, target="host"), table_of(4, precision="float32", target="host")]
    candidates = pose_candidates([first, second], space, model)
    assert len(candidates) == 4
    budgets = (Budgets(latency_ms=middle_ms(first[0])), Budgets(latency_ms=middle_ms(second[0])))
    record = solve(candidates, Question(budgets, k=8))
    best = record.selection.best
    assert (record.target, record.others[0].target) == ("rpi4", "host")
    assert best.planned_ms <= (budgets[0].latency_ms or 0)
    assert best.others[0].planned_ms <= (budgets[1].latency_ms or 0)
    # against enumeration over all four combinations
    scores = []
    for a, b in product(first, second):
        left, right = build_problem(space, a, model), build_problem(space, b, model)
        for c, path in every_path(left):
            fits = all(
                p.plan_ms(p.path_totals(c, path).latency_ns) <= (budget.latency_ms or 0)
                for p, budget in zip((left, right), budgets, strict=True)
            )
            if fits:
                scores.append(model.score(left.named(c, path)))
    assert best.score == pytest.approx(max(scores))
    assert record.selection.bound >= max(scores)
    # alone, the first target would allow more
    assert select(candidates[0].problem, budgets[0]).best.score >= best.score - 1e-12


def test_a_budget_of_the_second_target_that_nothing_meets_is_named() -> None:
    tables = [[table_of(1, target="rpi4")], [table_of(3, target="host")]]
    candidates = pose_candidates(tables, small(), model_of(0))
    with pytest.raises(NoSubnetFits, match=r"within 0\.2 ms on host; the fastest") as caught:
        choose(candidates, Question((Budgets(latency_ms=9.0), Budgets(latency_ms=0.2))))
    needed = float((caught.value.hint or "").split()[-2])
    assert choose(candidates, Question((Budgets(latency_ms=9), Budgets(latency_ms=needed))))
    with pytest.raises(NoSubnetFits, match="bytes of peak memory on host"):
        choose(candidates, Question((Budgets(latency_ms=9.0), Budgets(peak_bytes=1))))


# ------------------------------------------------------------------------------ goals


@pytest.mark.parametrize("cost", ["latency", "energy", "weight", "peak"])
@pytest.mark.parametrize("board", [0, 1])
def test_minimised_cost_at_an_accuracy_equals_enumeration(cost: Any, board: int) -> None:
    space, model = small(), model_of(3)
    tables = (table_of(5, target="rpi4"), table_of(6, target="host"))
    problem = build_problem(space, tables, model)
    predictions = predict(problem, [problem.named(c, p) for c, p in every_path(problem)])
    wanted = float(np.median([p.accuracy or 0 for p in predictions]))
    limit = sorted(p.planned_ms for p in predictions)[2 * len(predictions) // 3]

    def value(p: Any) -> float:
        on = p.on(board)
        return {
            "latency": on.planned_ms,
            "energy": on.energy_mj,
            "weight": on.weight_bytes,
            "peak": on.peak_bytes,
        }[cost]

    question = Question((Budgets(latency_ms=limit),), Goal(cost, board), wanted, k=10)
    selection = answer([problem], question)[1]
    good = [p for p in predictions if (p.accuracy or 0) >= wanted and p.planned_ms <= limit]
    assert value(selection.best) == pytest.approx(min(value(p) for p in good))
    assert (selection.best.accuracy or 0) >= wanted
    assert selection.proven
    margin = 1.02 if cost == "energy" else 1.0  # the least is as planned
    assert selection.least == pytest.approx(min(value(p) for p in good) * margin)
    values = [value(p) for p in (selection.best, *selection.runners_up)]
    assert values == sorted(values)


def test_a_better_model_that_disagrees_raises_the_floor() -> None:
    """Of what the additive model lets in the better one thinks less; the pick satisfies both."""
    problem = build_problem(small(), table_of(5), model := model_of(3))
    model.rerank = lambda subnets: np.array([model.accuracy(s) - 0.02 for s in subnets])  # type: ignore[method-assign]
    everything = predict(problem, [problem.named(c, p) for c, p in every_path(problem)])
    wanted = float(np.median([p.value for p in everything]))
    selection = answer([problem], Question((Budgets(),), Goal("latency"), wanted, k=1))[1]
    assert selection.best.value >= wanted
    assert selection.least is not None
    assert selection.least <= selection.best.planned_ms
    with pytest.raises(NoSubnetFits, match=r"predicted to reach 99%; the most accurate, small@"):
        answer([problem], Question((Budgets(),), Goal("latency"), 0.99))


def test_a_goal_without_an_accuracy_is_the_leanest_network() -> None:
    problem = build_problem(small(), table_of(5), MacsProxy(small()))
    selection = answer([problem], Question((Budgets(),), Goal("weight")))[1]
    least = min(problem.path_totals(c, p).weight_bytes for c, p in every_path(problem))
    assert selection.best.weight_bytes == selection.least == least
    with pytest.raises(UsageError, match="predicts no accuracy"):
        answer([problem], Question((Budgets(),), Goal("weight"), 0.5))


# ------------------------------------------------------------------------------ confidence


def test_margins_grow_with_confidence_and_the_default_is_the_residual() -> None:
    assert margin_of(FIT).percent == FIT.q95_percent
    assert margin_of(FIT).interval == 0
    levels = [0.5, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999]
    margins = [margin_of(FIT, c) for c in levels]
    assert (margins[0].percent, margins[0].interval) == (0, 0)
    assert margins[4].percent == FIT.q95_percent
    for small_, large in pairwise(margins):
        assert small_.percent < large.percent
        assert small_.interval < large.interval
    # tabled quantiles
    for p, freedom, value in ((0.95, 28, 1.7011), (0.99, 10, 2.7638), (0.999, 28, 3.4082)):
        assert student_t(p, freedom) == pytest.approx(value, rel=2e-3)
    for wrong in (0.4, 1.0, 95.0):
        with pytest.raises(UsageError, match="confidence"):
            margin_of(FIT, wrong)


def test_a_surer_plan_is_never_faster_and_holds_the_interval() -> None:
    space, table, model = small(), table_of(7), model_of(4)
    budget, last = middle_ms(table), np.inf
    for confidence in (0.5, 0.8, 0.95, 0.99):
        problem = build_problem(space, table, model, confidence=confidence)
        best = select(problem, Budgets(latency_ms=budget)).best
        assert best.planned_ms <= budget * (1 + 1e-12)
        assert best.score <= last
        last = best.score
        # every block at its share of the upper interval, then the residual
        margin = margin_of(table.fit, confidence)
        rows = [table.row(b) for b in space.blocks(best.subnet)]
        careful = sum(
            r.latency_ms + margin.interval * (r.latency_high_ms - r.latency_ms) for r in rows
        )
        wanted = (FIT.a_ms + FIT.b * careful) * (1 + margin.percent / 100)
        # rounded up to a nanosecond a block
        assert best.planned_ms == pytest.approx(wanted, rel=1e-5)
        assert best.latency.ms == pytest.approx(table.predict_ms(space.blocks(best.subnet)))


# ------------------------------------------------------------------------------ ties


def test_of_what_cannot_be_told_apart_the_fastest_is_taken() -> None:
    space, table = small(), table_of(8)
    model = model_of(5)
    model.error = 0.03  # type: ignore[assignment]
    gap = tolerance(model)  # type: ignore[arg-type]
    assert gap == pytest.approx(0.2533 * 1.7725 * 0.03, rel=1e-3)
    problem = build_problem(space, table, model)
    budgets = Budgets(latency_ms=middle_ms(table) * 1.2)
    plain = select(problem, budgets, k=4, prefer="accurate")
    tied = select(problem, budgets, k=4)
    assert plain.ties is None
    assert tied.ties is not None
    assert tied.ties.most_accurate == plain.best
    everything = predict(problem, [problem.named(c, p) for c, p in every_path(problem)])
    fastest = min(
        (p for p in everything if p.value >= plain.best.value - gap), key=lambda p: p.planned_ms
    )
    # the whole space was looked at, not the four best alone
    assert tied.best.subnet == fastest.subnet
    assert tied.best.planned_ms < plain.best.planned_ms
    assert tied.runners_up[0] == plain.best
    assert tied.bound == plain.bound
    model.error = None  # type: ignore[assignment]
    assert select(problem, budgets, k=4).ties is None


def test_the_error_of_a_difference_comes_from_cross_validation() -> None:
    from edgeofa.elastic.bundles import load_bundle

    for name in ("cifar_lite", "cifar_micro"):
        model: Any = load_bundle(load_space(name)).accuracy
        error = model.difference_error
        assert 0.5 * model.error < error < 4 * model.error
        assert tolerance(model) == pytest.approx(0.2533 * error, rel=1e-3)


# ------------------------------------------------------------------------------ explanations


def test_explanations_are_what_solving_again_says() -> None:
    space, table, model = small(), table_of(9), model_of(6)
    problem = build_problem(space, table, model)
    fast = select(problem, Budgets(latency_ms=middle_ms(table))).best
    budgets = (Budgets(latency_ms=fast.planned_ms + 1e-6, weight_bytes=10**9, peak_bytes=10**6),)
    question = Question(budgets, k=5)
    record = solve([Inputs(space, table, model, problem)], question, explained=True)  # type: ignore[arg-type]
    explanation = record.explanation
    assert explanation is not None
    latency, weight, peak = explanation.budgets
    assert (latency.cost, weight.cost, peak.cost) == ("latency", "weight", "peak")
    assert latency.binds
    assert not weight.binds
    assert not peak.binds
    free = select(problem, Budgets(weight_bytes=10**9)).best
    assert latency.gain_without == pytest.approx(free.value - record.selection.best.value)
    wider = select(problem, Budgets(latency_ms=fast.planned_ms + 1e-6 + 1)).best
    assert latency.gain == pytest.approx(wider.value - record.selection.best.value)
    assert latency.more == "1 ms"
    assert latency.used == record.selection.best.planned_ms
    assert weight.gain == peak.gain == 0
    assert explanation.runner_up == record.selection.runners_up[0]
    assert explanation.differences
    assert explain(problem, record.selection, question) == explanation


def test_differences_name_choice_by_choice() -> None:
    problem = build_problem(small(), table_of(1), model_of(0))
    one = small().parse("small@16/3x2/5x4")
    other = small().parse("small@24/3x4,5x2/5x4")
    assert [(d.place, d.pick, d.other) for d in differences(problem, one, other)] == [
        ("resolution", "16", "24"),
        ("stages.0.0", "3x2", "3x4"),
        ("stages.0.1", None, "5x2"),
    ]
    assert differences(problem, one, one) == ()


# ------------------------------------------------------------------------------ models from files


def pairwise_file(path: Path, space: Space, **changes: Any) -> Path:
    content = {
        "space": space.name,
        "space_digest": space_digest(space),
        "evidence": "made up",
        "scale": "log_error",
        "error": 0.01,
        "intercepts": {str(r): 1.0 for r in space.resolutions},
        "options": {"stages.0.0=3x2": 0.1, "stages.0.0=5x4": 0.3, "stages.1.0=3x4": 0.2},
        "pairs": {"stages.0.0=5x4": {"stages.1.0=3x4": -0.4, "stages.0.1=3x2": 0.25}},
        **changes,
    }
    path.write_text(PairwiseFile.model_validate(content).model_dump_json())
    return path


def test_a_pairwise_model_of_a_file_is_solved_exactly(tmp_path: Path) -> None:
    space = small()
    model = load_model(pairwise_file(tmp_path / "pairs.json", space), space)
    assert load_model(tmp_path, space).error == 0.01
    problem = build_problem(space, table_of(1), model)
    subnets = [problem.named(c, p) for c, p in every_path(problem)]
    assert len(set(subnets)) == space.count()
    for subnet in subnets[::5]:
        score = problem.score(problem.totals(subnet).score)
        assert score == pytest.approx(model.score(subnet), abs=1e-9)
    for budget in np.quantile([p.planned_ms for p in predict(problem, subnets)], [0.1, 0.5, 1.0]):
        best = select(problem, Budgets(latency_ms=float(budget) + 1e-6), prefer="accurate").best
        fits = [p for p in predict(problem, subnets) if p.planned_ms <= budget + 1e-6]
        assert best.value == pytest.approx(max(p.value for p in fits))
    # the pair decides: without it another option of the first layer would be taken
    assert model.score(space.parse("small@16/5x4/3x4")) == pytest.approx(1.0 + 0.3 + 0.2 - 0.4)


def test_models_of_other_spaces_and_other_files_are_refused(tmp_path: Path) -> None:
    space, other = small(), load_space("cifar_micro")
    file = pairwise_file(tmp_path / "pairs.json", space)
    with pytest.raises(UsageError, match="of space small") as caught:
        load_model(file, other)
    assert "--space small" in (caught.value.hint or "")
    with pytest.raises(FileFormatError, match=r"no option 'stages\.9=3x3'"):
        load_model(pairwise_file(tmp_path / "p.json", space, options={"stages.9=3x3": 1.0}), space)
    (tmp_path / "p.json").write_text(json.dumps({"kind": "pairwise", "space": 3}))
    with pytest.raises(FileFormatError, match="not a pairwise"):
        load_model(tmp_path / "p.json", space)
    (tmp_path / "p.json").write_text("[" * 100_000)
    with pytest.raises(FileFormatError, match="not JSON"):
        load_model(tmp_path / "p.json", space)
    with pytest.raises(MissingMaterial, match="2 files"):
        load_model(tmp_path, space)
    (tmp_path / "acc.pth").touch()
    with pytest.raises(UsageError) as caught:
        load_model(tmp_path / "acc.pth", space)
    assert "edgeofa import predictor" in (caught.value.hint or "")
    with pytest.raises(MissingMaterial):
        load_model(tmp_path / "none.json", space)


def test_a_network_predictor_is_searched_and_its_ceiling_proven() -> None:
    problem = small_problem(1)
    limits = half_budget(problem)
    budget = Budgets(latency_ms=problem.plan_ms(limits.sums[0] or 0) + 1e-6)
    inputs = Inputs(problem.space, problem.table, problem.accuracy, problem)
    record = solve([inputs], Question((budget,)), seconds=30.0)
    best = enumerated_best(problem, limits)
    assert record.selection.best.accuracy == pytest.approx(best, abs=1e-9)
    proof = record.network
    assert proof is not None
    assert proof.closed
    assert proof.ceiling >= best
    assert proof.gap == pytest.approx(0, abs=1e-6)
    assert record.selection.proven
    with pytest.raises(UsageError, match="only maximised"):
        solve([inputs], Question((budget,), Goal("latency"), 0.5))
    with pytest.raises(NoSubnetFits, match="the fastest"):
        solve([inputs], Question((Budgets(latency_ms=1e-3),)))


# ------------------------------------------------------------------------------ bad input


def test_lacking_blocks_are_named_with_the_command_that_profiles_them() -> None:
    table = noisy_table("cifar_micro", 0, (32,))
    lost = sorted(table.rows)[:3]
    holed = Table(table.header, {k: r for k, r in table.rows.items() if k not in lost})
    with pytest.raises(MissingMaterial, match="3 blocks have no usable row") as caught:
        build_problem(load_space("cifar_micro"), holed, noisy_scores("cifar_micro", 0))
    assert all(key in str(caught.value) for key in lost)
    hint = caught.value.hint or ""
    assert hint.startswith("edgeofa profile --target made-up --space cifar_micro")
    assert hint.endswith("--missing")


def test_names_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="no target 'nope'"):
        parse_goal("latency@nope", ("rpi4",))
    with pytest.raises(UsageError, match="cannot minimise 'speed'"):
        parse_goal("speed", ("rpi4",))
    assert parse_goal("weight@host", ("rpi4", "host")) == Goal("weight", 1)
    with pytest.raises(UsageError, match="no method"):
        parse_method("ilp")
    with pytest.raises(UsageError, match="cannot prefer"):
        parse_prefer("slow")
    with pytest.raises(UsageError, match="accuracy of 120%"):
        Question((Budgets(),), accuracy=1.2)


def test_a_goal_of_energy_without_energies_is_refused() -> None:
    table = make_table(small(), lambda b: (0.1 * b.kernel, None, 10, 10))
    problem = build_problem(small(), table, model_of(0))
    inputs = Inputs(small(), table, problem.accuracy, problem)
    with pytest.raises(UsageError, match="no energies"):
        answer([problem], Question((Budgets(),), Goal("energy"), 0.5))
    with pytest.raises(UsageError, match="no energies"):
        frontier_record([inputs], (Goal("energy"),))


def test_a_budget_beyond_every_network_changes_nothing() -> None:
    """Not even one that leaves 64 bits, alone or weighed against others."""
    problem = build_problem(
        load_space("cifar_micro"),
        noisy_table("cifar_micro", 0, (32,)),
        noisy_scores("cifar_micro", 0),
    )
    cheap = leanest(problem, 0)
    assert cheap is not None
    ms = 2 * problem.plan_ms(cheap.totals.latency_ns)
    alone = k_best(problem, problem.limits(Budgets(latency_ms=ms)), 5)
    beside = Budgets(ms, energy_mj=1e30, weight_bytes=10**30, peak_bytes=10**30)
    for huge in (beside, replace(beside, energy_mj=1e9, weight_bytes=10**15)):
        both = k_best(problem, problem.limits(huge), 5)
        assert both.proven
        assert [r.totals for r in both.best] == [r.totals for r in alone.best]
    free = k_best(problem, problem.limits(Budgets(latency_ms=1e30)), 1)
    assert free.best[0].totals == k_best(problem, Limits(()), 1).best[0].totals


def test_an_accuracy_that_is_reached_is_not_refused_because_floors_went_past_it() -> None:
    problem = build_problem(small(), table_of(5), model := model_of(3))
    every = sorted(model.accuracy(problem.named(c, p)) for c, p in every_path(problem))
    top, wanted = every[-1], every[len(every) // 2]
    # the better model trusts the most accurate subnet alone
    model.rerank = lambda subnets: np.array(  # type: ignore[method-assign]
        [a if (a := model.accuracy(s)) == top else a - 0.5 for s in subnets]
    )
    question = Question((Budgets(),), Goal("latency"), wanted, k=1)
    selection = answer([problem], question)[1]
    assert selection.best.value == top
    assert not selection.proven or selection.least is not None
    with pytest.raises(NoSubnetFits) as caught:
        answer([problem], Question((Budgets(),), Goal("latency"), (1 + top) / 2))
    # what the message offers is not refused again
    offered = re.search(r"ask for ([0-9.]+)%", caught.value.hint or "")
    assert offered is not None
    again = Question((Budgets(),), Goal("latency"), float(offered[1]) / 100)
    assert answer([problem], again)[1].best.value == top


def test_an_accuracy_that_only_the_better_model_sees_is_said_to_be_unproven() -> None:
    problem = build_problem(small(), table := table_of(5), model := model_of(3))
    top = max(model.accuracy(problem.named(c, p)) for c, p in every_path(problem))
    model.rerank = lambda subnets: np.array([model.accuracy(s) + 0.02 for s in subnets])  # type: ignore[method-assign]
    inputs = Inputs(small(), table, model, problem)
    found = solve([inputs], Question((Budgets(),), Goal("latency"), top + 0.01))
    assert found.selection.best.value >= top + 0.01
    assert found.selection.least is None
    assert not found.selection.proven
    assert "nothing is proven" in answer_text(found)


def test_a_raise_that_went_too_far_is_taken_back() -> None:
    """The pick is the cheapest that a better model allows, however far its scale is off."""
    problem = build_problem(small(), table_of(5), model := model_of(3))
    everything = predict(problem, [problem.named(c, p) for c, p in every_path(problem)])
    model.rerank = lambda subnets: np.array(  # type: ignore[method-assign]
        [model.accuracy(s) ** 2 for s in subnets]
    )
    for wanted in np.quantile([p.value**2 for p in everything], [0.2, 0.5, 0.8]):
        question = Question((Budgets(),), Goal("latency"), float(wanted), k=1)
        best = answer([problem], question)[1].best
        # floors are tried down to a small step; what reaches a little more costs no less
        surely = [p.planned_ms for p in everything if p.value**2 >= wanted + 0.01]
        assert best.value >= wanted
        assert best.planned_ms <= min(surely)


def test_frontiers_of_scores_in_any_unit_are_joined_alike() -> None:
    def points(unit: float) -> list[object]:
        rng = np.random.default_rng(0)
        worth: dict[Any, float] = {}
        model = Additive(lambda *k: worth.setdefault(k, unit * float(rng.integers(1, 9))))
        several = []
        for seed in (1, 2):
            table = table_of(seed)
            problem = build_problem(small(), table, model)
            several.append(Inputs(small(), table, model, problem))
        return [p.subnet for p in frontier_record(several).points]

    assert points(2.0**60) == points(1.0)


def test_random_weights_and_a_predictor_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave one of the two out"):
        load_named(("rpi4",), None, proxy=True, predictor=tmp_path)


def test_the_command_for_lacking_blocks_names_the_file_of_ones_own_space(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    shipped = Path(edgeofa.spaces.__file__).parent / "cifar_micro.toml"
    file.write_text(shipped.read_text())
    table = noisy_table("cifar_micro", 0, (32,))
    holed = Table(table.header, dict(list(table.rows.items())[1:]))
    with pytest.raises(MissingMaterial) as caught:
        build_problem(load_space(str(file)), holed, noisy_scores("cifar_micro", 0))
    assert f"--space {file} " in (caught.value.hint or "")
