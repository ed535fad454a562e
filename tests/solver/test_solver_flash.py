"""A flash budget is for weights and, where the table knows it, code. About 2 s."""

from __future__ import annotations

import dataclasses

from solver_world import Additive, make_table, small_space

from edgeofa.report.solution import answer_text
from edgeofa.solver.budgets import Budgets
from edgeofa.solver.frontier import frontier_point
from edgeofa.solver.inputs import Inputs, solve
from edgeofa.solver.prediction import OnBoard
from edgeofa.solver.problem import build_problem
from edgeofa.solver.question import Question
from edgeofa.solver.select import select
from edgeofa.spaces import Space
from edgeofa.tables.table import Table

STAGES = [{"depths": [1, 2], "kernels": [3, 5], "expands": [2, 4]}] * 2
CODE = 3000


def world(*, code: bool) -> tuple[Space, Table, Additive]:
    space = small_space(STAGES, (16,))
    table = make_table(space, lambda b: (1.0 + b.mid / 64, None, 100 * b.mid, 1000))
    if code:
        rows = {k: dataclasses.replace(r, code_bytes=CODE) for k, r in table.rows.items()}
        table = dataclasses.replace(table, rows=rows)
    return space, table, Additive(lambda *at: 1.0 + at[-1].expand)


def largest(budget: int, *, code: bool) -> OnBoard:
    problem = build_problem(*world(code=code))
    return select(problem, Budgets(weight_bytes=budget), k=1).best


def test_a_budget_is_for_weights_and_code() -> None:
    free = largest(10**9, code=False)
    assert free.code_bytes is None
    assert free.flash_bytes == free.weight_bytes
    budget = free.flash_bytes
    assert largest(budget, code=False).weight_bytes == budget
    within = largest(budget, code=True)
    assert within.code_bytes is not None
    assert within.code_bytes % CODE == 0
    assert within.weight_bytes + within.code_bytes == within.flash_bytes <= budget
    assert within.weight_bytes < free.weight_bytes


def test_points_tell_weights_and_code_apart() -> None:
    space, table, model = world(code=True)
    problem = build_problem(space, table, model)
    subnet = space.smallest()
    context, path = problem.place(subnet)
    point = frontier_point(problem, context, path)
    blocks = space.blocks(subnet)
    assert point.code_bytes == CODE * len(blocks)
    assert point.weight_bytes == sum(table.row(b).weight_bytes for b in blocks)


def test_answers_name_the_code() -> None:
    for code in (False, True):
        space, table, model = world(code=code)
        inputs = Inputs(space, table, model, build_problem(space, table, model))
        found = solve([inputs], Question((Budgets(latency_ms=100.0),)))
        assert (" KB code" in answer_text(found)) == code
