"""Frontiers of accuracy and two costs against enumeration, and as files. About 8 s."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest
from automaton_world import random_problem
from solver_world import noisy_scores, noisy_table

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.budgets import AXES, Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.crosscheck import every_path, fits
from edgeofa.solver.inputs import pose_candidates
from edgeofa.solver.question import Goal
from edgeofa.solver.record import frontier_csv, frontier_record, parse_goals, write_frontier
from edgeofa.solver.surface import non_dominated, surface
from edgeofa.spaces import load_space


def enumerated(problem: Problem, goals: list[Goal], limits: Limits) -> list[tuple[int, int, int]]:
    points = set()
    for c, path in every_path(problem):
        totals = problem.path_totals(c, path)
        if fits(totals, limits):
            first, second = (
                totals.peaks[g.board]
                if g.cost == "peak"
                else totals.sums[len(AXES) * g.board + AXES.index(g.cost)]
                for g in goals
            )
            points.add((first, second, totals.score))
    return sorted(
        a
        for a in points
        if not any(b != a and b[0] <= a[0] and b[1] <= a[1] and b[2] >= a[2] for b in points)
    )


def test_surface_equals_enumeration_and_a_thinned_one_keeps_its_word() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        boards = 1 + seed % 2
        steps = rng.choice([2, 9, 500])
        problem = random_problem(rng, boards=boards, paired=seed % 4 >= 2, steps=steps)
        every = [Goal(c, b) for c in ("latency", "energy", "weight", "peak") for b in range(boards)]
        goals = rng.sample(every, 2)
        limits = Limits((), rng.choice([None, 9]))
        wanted = enumerated(problem, goals, limits)
        if not wanted:
            with pytest.raises(NoSubnetFits):
                surface(problem, goals, limits=limits)
            continue
        found = surface(problem, goals, limits=limits)
        assert found.exact
        got = [(*map(int, c), int(s)) for c, s in zip(found.costs, found.scores, strict=True)]
        assert got == wanted, seed
        for c, path, score in zip(found.contexts, found.paths, found.scores, strict=True):
            assert problem.path_totals(int(c), path).score == score
        thin = surface(problem, goals, limits=limits, max_points=4)
        assert len(thin) <= len(found)
        for a in wanted:
            reached = (thin.costs <= np.array(a[:2]) + thin.slack).all(axis=1)
            assert (reached & (thin.scores >= a[2])).any(), seed


def test_non_dominated_of_many_points() -> None:
    rng = np.random.default_rng(0)
    for span in (3, 30, 10**6):
        costs, scores = rng.integers(0, span, (2000, 2)), rng.integers(0, span, 2000)
        kept = non_dominated(costs, scores)
        points = {tuple(p) for p in np.column_stack([costs, scores])[kept].tolist()}
        assert len(points) == len(kept)
        better = (costs[:, None] <= costs).all(axis=2) & (scores[:, None] >= scores)
        equal = (costs[:, None] == costs).all(axis=2) & (scores[:, None] == scores)
        dominated = (better & ~equal).any(axis=0)
        rest = np.column_stack([costs, scores])[~dominated].tolist()
        assert points == {tuple(p) for p in rest}


def test_records_join_tables_and_targets(tmp_path: Path) -> None:
    space, model = load_space("cifar_micro"), noisy_scores("cifar_micro", 1)
    tables = [
        [noisy_table("cifar_micro", 0, (20, 24)), noisy_table("cifar_micro", 1, (20, 24))],
        [noisy_table("cifar_micro", 2, (20, 24))],
    ]
    candidates = pose_candidates(tables, space, model)
    goals = parse_goals("latency@made-up,weight", ("made-up", "other"))
    assert goals == (Goal("latency"), Goal("weight"))
    record = frontier_record(candidates, goals)
    each = [surface(c.problem, goals) for c in candidates]
    assert {p.plan for p in record.points} == {0, 1}
    assert not any(record.slack)
    assert len(record.points) <= sum(map(len, each))
    costs = [(record.cost(p, 0), record.cost(p, 1), p.score) for p in record.points]
    assert costs == sorted(costs, key=lambda x: x[:2])
    rows = list(csv.DictReader(io.StringIO(frontier_csv(record))))
    assert [r["subnet"] for r in rows] == [str(p.subnet) for p in record.points]
    assert float(rows[0]["latency_ms@made-up"]) == pytest.approx(
        record.points[0].others[0].latency_ms, abs=1e-6
    )
    paths = write_frontier(record, tmp_path)
    assert [p.suffix for p in paths] == [".csv", ".png", ".svg"]
    assert "weights" in paths[2].read_text()
    # one cost is the plain frontier over both tables; peak alone keeps the fastest of each peak
    plain = frontier_record(candidates, (Goal("latency"),))
    assert {p.subnet for p in plain.points} <= {p.subnet for p in record.points}
    peaks = frontier_record(candidates[:1], (Goal("peak"),))
    values = [(p.peak_bytes, p.score) for p in peaks.points]
    assert values == sorted(set(values))
    with pytest.raises(UsageError, match="one cost or two"):
        frontier_record(candidates, (Goal("peak"), Goal("peak")))
