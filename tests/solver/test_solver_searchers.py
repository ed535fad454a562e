"""Searchers on other spaces and black boxes, killed and resumed, and from plugins. 10 s."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from network_world import half_budget, small_problem
from solver_world import Additive, make_table, noisy_scores, noisy_table
from tree_space import TREE

from edgeofa.accuracy.base import MacsProxy
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.solver import searchers
from edgeofa.solver.choices import Choices
from edgeofa.solver.crosscheck import every_path, fits
from edgeofa.solver.exact import k_best
from edgeofa.solver.problem import Limits, Problem, build_problem
from edgeofa.solver.searchers import get_searcher, searcher_names
from edgeofa.solver.searchers.base import Search, Searcher
from edgeofa.solver.searchers.moves import Moves
from edgeofa.solver.searchers.ofa import OfaEvolution
from edgeofa.spaces import Space, load_space
from edgeofa.spaces.blocks import block_macs


class _Killed(BaseException):
    """Nothing that a searcher could catch."""


def lite_problem() -> tuple[Problem, Limits]:
    space = load_space("cifar_lite")
    problem = build_problem(space, noisy_table("cifar_lite", 0), noisy_scores("cifar_lite", 1))
    middle = problem.totals(space.smallest(space.resolutions[0])).latency_ns * 3
    return problem, Limits((middle, None, None), None)


def score_of(problem: Problem) -> Any:
    return lambda subnets: [problem.score(problem.totals(s).score) for s in subnets]


# ------------------------------------------------------------------------------------ rows


def test_samples_are_drawn_depth_by_depth_and_rows_are_paths() -> None:
    problem, limits = lite_problem()
    choices = Choices(problem, limits)
    rows = choices.sample(np.random.default_rng(0), 4000)
    subnets = [choices.subnet(row) for row in rows]
    for row, subnet in list(zip(rows, subnets, strict=True))[:200]:
        assert (choices.row(subnet) == row).all()
        assert tuple(choices.sums(row[None])[0]) == problem.totals(subnet).sums
    for i, stage in enumerate(problem.space.stages):
        seen = np.bincount([len(s.stages[i]) for s in subnets], minlength=stage.depths[-1] + 1)
        # each depth as often as any other: five standard deviations
        wanted = len(subnets) / len(stage.depths)
        assert np.abs(seen[list(stage.depths)] - wanted).max() < 5 * wanted**0.5


def test_moves_are_networks_one_change_away() -> None:
    problem, limits = lite_problem()
    choices = Choices(problem, limits)
    moves, rng = Moves(choices), np.random.default_rng(3)
    for row in choices.sample(rng, 20):
        changed, spans = moves.singles(row)
        assert len(np.unique(changed, axis=0)) == len(changed)
        assert (spans[:, 0] < spans[:, 1]).all()
        for other in changed[:: max(1, len(changed) // 40)]:
            # whatever is no network of the space, or not this one, does not come back the same
            assert (choices.row(choices.subnet(other)) == other).all()
            assert not (other == row).all()
        depth = {len(s) for other in changed for s in [choices.path(other)]}
        assert len(depth) > 1
        mutant = moves.mutated(row, rng)
        assert (choices.row(choices.subnet(mutant)) == mutant).all()
        child = moves.crossed(row, mutant, rng)
        assert (choices.row(choices.subnet(child)) == child).all()


def test_changes_of_different_places_add_up() -> None:
    problem, limits = lite_problem()
    choices = Choices(problem, limits)
    moves, rng = Moves(choices), np.random.default_rng(4)
    row = choices.sample(rng, 1)[0]
    changed, spans = moves.singles(row)
    for _ in range(300):
        one, other = rng.integers(len(changed), size=2)
        if spans[one, 1] <= spans[other, 0] or spans[other, 1] <= spans[one, 0]:
            both = changed[one] + changed[other] - row
            assert (choices.row(choices.subnet(both)) == both).all()


# ------------------------------------------------------------------------------------ trees


def tree_problem() -> Problem:
    """A declared space with conditionals, ties and a choice that adds nothing."""
    space = Space.model_validate(tomllib.loads(TREE))
    table = make_table(space, lambda b: (round(0.02 + block_macs(b) / 1e5, 6), None, 1, 1))
    return build_problem(space, table, MacsProxy(space))


def test_moves_reach_every_network_of_a_tree() -> None:
    problem = tree_problem()
    choices = Choices(problem, Limits((None, None, None), None))
    moves = Moves(choices)
    everything = {tuple(choices.row_of(c, path)) for c, path in every_path(problem)}
    assert len(everything) == problem.space.count()
    drawn = choices.sample(np.random.default_rng(0), 3000)
    assert {tuple(row) for row in drawn} <= everything
    for row in drawn[:50]:
        assert (choices.row(choices.subnet(row)) == row).all()
        one, other = drawn[np.random.default_rng(1).integers(len(drawn), size=2)]
        assert tuple(moves.mutated(one, np.random.default_rng(2))) in everything
        if one[0] == other[0]:
            assert tuple(moves.crossed(one, other, np.random.default_rng(3))) in everything
    reached = {tuple(drawn[0])}
    edge = list(reached)
    while edge:
        found = {tuple(r) for row in edge for r in moves.singles(np.array(row))[0]}
        assert found <= everything
        edge = list(found - reached)
        reached |= found
    # contexts that share no path are apart; drawing one anew bridges them
    contexts = {row[0] for row in reached}
    assert reached == {row for row in everything if row[0] in contexts}


@pytest.mark.parametrize("name", searcher_names())
def test_searchers_work_on_a_tree(name: str) -> None:
    problem = tree_problem()
    totals = [problem.path_totals(c, path) for c, path in every_path(problem)]
    limits = Limits((sorted(t.latency_ns for t in totals)[len(totals) // 2], None, None), None)

    def objective(subnets: Any) -> Any:
        # more work is better up to a point, which no sum over options says
        return [-abs(problem.totals(s).latency_ns / limits.sums[0] - 0.8) for s in subnets]

    best = max(
        -abs(t.latency_ns / limits.sums[0] - 0.8)  # type: ignore[operator]
        for t in totals
        if fits(t, limits)
    )
    result = get_searcher(name).search(problem, limits, 400, 0, objective=objective)
    assert fits(problem.totals(result.best), limits)
    assert best - 0.1 <= result.value <= best
    again = get_searcher(name).search(problem, limits, 400, 0, objective=objective)
    assert (again.best, again.calls) == (result.best, result.calls)


# ------------------------------------------------------------------------------------ black boxes


@pytest.mark.parametrize("name", searcher_names())
def test_searchers_maximise_any_function_of_subnets(name: str) -> None:
    problem, limits = lite_problem()
    asked = 0

    def objective(subnets: Any) -> Any:
        nonlocal asked
        asked += len(subnets)
        # not additive: a stage counts by its widest layer
        return np.array([sum(max(x.expand for x in s) for s in n.stages) for n in subnets])

    result = get_searcher(name).search(problem, limits, 500, 3, objective=objective)
    assert result.calls == asked <= 500
    assert result.value == objective([result.best])[0]
    assert fits(problem.totals(result.best), limits)


def test_anytime_finds_the_optimum_of_a_black_box_that_is_additive() -> None:
    problem, limits = lite_problem()
    best = k_best(problem, limits, 1).best[0]
    score = score_of(problem)
    found = get_searcher("anytime").search(problem, limits, 6000, 0, objective=score)
    assert found.value >= problem.score(best.totals.score) * 0.995


def test_an_objective_that_is_no_number_is_refused() -> None:
    problem, limits = lite_problem()
    for bad in ([float("nan")], [1.0, 2.0]):
        with pytest.raises(UsageError, match="objective"):
            get_searcher("regularised").search(
                problem, limits, 1, 0, objective=lambda _, b=bad: np.array(b)
            )


# ------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("name", searcher_names())
def test_killed_and_resumed_is_the_same_as_never_interrupted(name: str, tmp_path: Path) -> None:
    problem, limits = lite_problem()
    score, state = score_of(problem), tmp_path / "state.json"
    whole = get_searcher(name).search(problem, limits, 400, 5, objective=score)
    asked = 0

    def killed(subnets: Any) -> Any:
        nonlocal asked
        if asked >= stop:
            raise _Killed
        asked += len(subnets)
        return score(subnets)

    stop = 0
    for stop in (90, 250):  # noqa: B007 - read by the objective
        with pytest.raises(_Killed):
            get_searcher(name).search(problem, limits, 400, 5, objective=killed, state=state)
    resumed = get_searcher(name).search(problem, limits, 400, 5, objective=score, state=state)
    assert (resumed.best, resumed.value, resumed.calls) == (whole.best, whole.value, whole.calls)
    assert [(s.calls, s.value) for s in resumed.trace] == [(s.calls, s.value) for s in whole.trace]
    # what was kept was not asked for again
    values = json.loads(state.read_text())["values"]
    assert asked < len(values) <= whole.calls

    def never(_: Any) -> Any:
        raise _Killed

    again = get_searcher(name).search(problem, limits, 400, 5, objective=never, state=state)
    assert (again.best, again.value) == (whole.best, whole.value)


@pytest.mark.parametrize("name", ["anytime", "ofa-evolution"])
def test_resumed_under_a_network_predictor(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = small_problem(3)
    limits = half_budget(problem)
    whole = get_searcher(name).search(problem, limits, 500, 1)
    state = tmp_path / "state.json"
    network = type(problem.accuracy.network)  # type: ignore[attr-defined]
    real, left = network.from_first, 4

    def dying(self: Any, z: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise _Killed
        return real(self, z)

    with monkeypatch.context() as patched:
        patched.setattr(network, "from_first", dying)
        with pytest.raises(_Killed):
            get_searcher(name).search(problem, limits, 500, 1, state=state)
    assert json.loads(state.read_text())["values"]
    resumed = get_searcher(name).search(problem, limits, 500, 1, state=state)
    assert (resumed.best, resumed.value, resumed.calls) == (whole.best, whole.value, whole.calls)


_DIES = """
import os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + '/solver']
from test_solver_searchers import get_searcher, lite_problem, score_of
import edgeofa.solver.searchers.state as state
state._SAVE_EVERY_S = 0.0
state.StateFile.__init__.__defaults__ = (0.0,)
problem, limits = lite_problem()
score, asked = score_of(problem), 0
def objective(subnets):
    global asked
    asked += len(subnets)
    if asked > 120:
        os._exit(9)
    return score(subnets)
get_searcher("regularised").search(
    problem, limits, 300, 5, objective=objective, state=Path({state!r})
)
"""


def test_a_process_that_dies_leaves_a_whole_file(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    script = _DIES.format(tests=str(Path(__file__).parents[1]), state=str(state))
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 9, done.stderr.decode()
    problem, limits = lite_problem()
    values = json.loads(state.read_text())["values"]
    assert 100 < len(values) <= 120
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]
    score = score_of(problem)
    resumed = get_searcher("regularised").search(
        problem, limits, 300, 5, objective=score, state=state
    )
    whole = get_searcher("regularised").search(problem, limits, 300, 5, objective=score)
    assert (resumed.best, resumed.value) == (whole.best, whole.value)


def test_the_state_of_another_search_is_refused(tmp_path: Path) -> None:
    problem, limits = lite_problem()
    state = tmp_path / "state.json"

    def run(
        searcher: Searcher, calls: int = 50, seed: int = 0, limits: Limits = limits, **more: Any
    ) -> None:
        searcher.search(more.pop("problem", problem), limits, calls, seed, state=state, **more)

    run(OfaEvolution(generations=2))
    wider = Limits((limits.sums[0] + 1, None, None), None)  # type: ignore[operator]
    other = build_problem(
        problem.space, noisy_table("cifar_lite", 7), noisy_scores("cifar_lite", 1)
    )
    score = score_of(problem)
    for what, change in {
        "settings": lambda: run(OfaEvolution(generations=3)),
        "searcher": lambda: run(get_searcher("random")),
        "budget calls": lambda: run(OfaEvolution(generations=2), calls=51),
        "seed": lambda: run(OfaEvolution(generations=2), seed=1),
        "limits": lambda: run(OfaEvolution(generations=2), limits=wider),
        "problem": lambda: run(OfaEvolution(generations=2), problem=other),
        "objective": lambda: run(OfaEvolution(generations=2), objective=score),
    }.items():
        with pytest.raises(FileFormatError, match=f"its {what} differs"):
            change()
    run(OfaEvolution(generations=2))


def test_a_corrupt_state_is_refused(tmp_path: Path) -> None:
    problem, limits = lite_problem()
    state = tmp_path / "state.json"
    searcher = get_searcher("random")
    searcher.search(problem, limits, 40, 0, state=state)
    good = json.loads(state.read_text())
    for bad, match in (
        (b"{", "not the state"),
        (b"\x80", "not the state"),
        (json.dumps({**good, "format": "other"}).encode(), "not the state"),
        (json.dumps({**good, "values": ["NaN"]}).encode(), "not the state"),
        (json.dumps({**good, "values": good["values"] * 2}).encode(), "80 values of at most 40"),
        (json.dumps({**good, "rows_sha256": "0" * 64}).encode(), "other subnets"),
    ):
        state.write_bytes(bad)
        with pytest.raises(FileFormatError, match=match):
            searcher.search(problem, limits, 40, 0, state=state)
        assert state.read_bytes() == bad


# ------------------------------------------------------------------------------------ plugins


class Smallest(Searcher):
    """A plugin: it looks at one random subnet."""

    name: ClassVar[str] = "one"

    def run(self, search: Search) -> None:
        search.evaluate(search.random_rows(1))


class NeedsArguments(Smallest):
    def __init__(self, what: int):
        self.what = what


def test_plugins_are_found_and_broken_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = __name__
    found = [
        EntryPoint("one", f"{here}:Smallest", searchers.GROUP),
        EntryPoint("missing", "no_such_module:x", searchers.GROUP),
        EntryPoint("foreign", f"{here}:Additive", searchers.GROUP),
        EntryPoint("needy", f"{here}:NeedsArguments", searchers.GROUP),
    ]
    monkeypatch.setattr(
        searchers,
        "entry_points",
        lambda name=None, **_: [e for e in found if name in (None, e.name)],
    )
    assert {"one", "random"} <= set(searcher_names())
    problem, limits = lite_problem()
    result = get_searcher("one").search(problem, limits, 5, 0)
    assert (result.calls, result.searcher) == (1, "one")
    for name, said in (("missing", "does not load"), ("foreign", "no"), ("needy", "does not load")):
        with pytest.warns(UserWarning, match=f"'{name}'.*{said}"), pytest.raises(UsageError):
            get_searcher(name)
    assert Additive  # the foreign plugin
