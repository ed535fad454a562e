"""The K best networks by OR-Tools CP-SAT (extra ``solvers``), for many contradictory budgets.

One model a context: a 0/1 variable for each option of each arc, one unit that flows from the start
to the end, one linear limit a budget, integers throughout, so that optimum and bound are exact.
Contexts wait with an upper bound from the dynamic program and are solved when they come first; of
the one that is best its network is taken, forbidden (a no-good cut), and it is solved again, until
there are K.
"""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeofa.errors import MissingMaterial
from edgeofa.solver.budgets import Limits
from edgeofa.solver.core import Path, Problem
from edgeofa.solver.exact import Ranked, Ranking, upper_bounds
from edgeofa.solver.fronts import IMPOSSIBLE

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, IntVar

_UNKNOWN = (IMPOSSIBLE, -IMPOSSIBLE, ())


def available() -> bool:
    """Whether OR-Tools is installed."""
    from importlib.util import find_spec

    return find_spec("ortools") is not None


def cp_sat_best(
    problem: Problem, limits: Limits, k: int, *, seconds: float = 60.0, least: int = IMPOSSIBLE
) -> Ranking:
    """Like :func:`edgeofa.solver.exact.k_best`, which it agrees with.

    Args:
        seconds: after these what is found is returned, with the bound that holds then.
        least: only networks that score more than this.

    Raises:
        MissingMaterial: OR-Tools is not installed.
    """
    if not available():
        raise MissingMaterial(
            "CP-SAT needs OR-Tools", hint="pip install 'edgeofa[solvers]', or --method dp"
        )
    end = time.perf_counter() + seconds
    within = problem.within(limits)
    bounds = upper_bounds(within, limits)
    # (minus score or bound, context, solved, path): a solved one before an equal bound
    waiting: list[tuple[int, int, int, Path]] = [
        (-int(bounds[c]), 1, int(c), ()) for c in np.flatnonzero(bounds > least)
    ]
    heapq.heapify(waiting)
    models: dict[int, _Context] = {}
    found: list[Ranked] = []
    bound: int | None = None
    proven = True
    while waiting and len(found) < k:
        best, unsolved, context, path = heapq.heappop(waiting)
        bound = -best if bound is None else bound
        if not unsolved:
            found.append(Ranked(problem, context, path, problem.path_totals(context, path)))
            models[context].forbid(path)
        left = end - time.perf_counter()
        if left <= 0:
            proven = False
            heapq.heappush(waiting, (best, 1, context, path))
            break
        if context not in models:
            models[context] = _Context(within, limits, context)
        answer = models[context].solve(left, least)
        if answer is None:
            continue
        if answer is _UNKNOWN:
            # out of time without a network: the context's bound is all that is known of it
            proven = False
            heapq.heappush(waiting, (best, 1, context, ()))
            break
        score, ceiling, path = answer
        heapq.heappush(waiting, (-score, 0, context, path))
        if ceiling > score:
            proven = False
            bound = max(bound, ceiling)
            break
    if not proven:
        # what was found in time, though better ones may be left
        rest = [(-s, c, p) for s, unsolved, c, p in waiting if not unsolved]
        for _, context, path in sorted(rest, reverse=True)[: k - len(found)]:
            found.append(Ranked(problem, context, path, problem.path_totals(context, path)))
        bound = max([bound or IMPOSSIBLE, *(-w[0] for w in waiting)])
    elif found:
        bound = found[0].totals.score
    ordered = sorted(found, key=lambda r: (-r.totals.score, r.totals.sums[:1]))
    nothing = IMPOSSIBLE if bound is None or (proven and not found) else bound
    return Ranking(tuple(ordered), nothing, proven)


class _Context:
    """The model of one context; it remembers what was forbidden."""

    def __init__(self, problem: Problem, limits: Limits, context: int):
        from ortools.sat.python import cp_model

        self._context = context
        self._fixed = int(problem.fixed_scores[context])
        model = self._model = cp_model.CpModel()
        self._variables: dict[tuple[int, int, int], IntVar] = {}
        into: list[list[IntVar]] = [[] for _ in range(problem.nodes)]
        out: list[list[IntVar]] = [[] for _ in range(problem.nodes)]
        costs: list[list[tuple[IntVar, int]]] = [[] for _ in limits.sums]
        scores: list[tuple[IntVar, int]] = []
        self._steps: list[tuple[int, int, int, int, IntVar]] = []
        for arc in problem.arcs:
            for n in np.flatnonzero(arc.allowed[context]).tolist():
                variable = model.new_bool_var("")
                out[arc.source].append(variable)
                into[arc.target].append(variable)
                self._steps.append(
                    (arc.source, arc.target, arc.edge, int(arc.options[n]), variable)
                )
                scores.append((variable, int(arc.scores[context, n])))
                for column, terms in enumerate(costs):
                    terms.append((variable, int(arc.costs[context, n, column])))
        model.add_exactly_one(out[0])
        for node in range(1, problem.nodes - 1):
            model.add(sum(into[node]) == sum(out[node]))
        for column, limit in enumerate(limits.sums):
            if limit is not None:
                room = limit - int(problem.fixed_costs[context, column])
                model.add(_sum(costs[column]) <= room)
        self._score = _sum(scores)
        model.maximize(self._score)

    def forbid(self, path: Path) -> None:
        """No later answer is this network."""
        wanted = set(path)
        node, literals = 0, []
        for source, target, edge, option, variable in self._steps:
            if source == node and (edge, option) in wanted:
                literals.append(~variable)
                node = target
        self._model.add_bool_or(literals)

    def solve(self, seconds: float, least: int) -> tuple[int, int, Path] | None:
        """Score, ceiling and path of the best network that is left; None where none is, and
        ``_UNKNOWN`` where the time was too short to find any."""
        from ortools.sat.python import cp_model

        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 0
        solver.parameters.max_time_in_seconds = max(seconds, 0.1)
        model: CpModel = self._model
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            return None
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return _UNKNOWN
        path = []
        node = 0
        for source, target, edge, option, variable in self._steps:
            if source == node and solver.boolean_value(variable):
                path.append((edge, option))
                node = target
        score = self._fixed + round(solver.objective_value)
        ceiling = self._fixed + round(solver.best_objective_bound)
        if score <= least and status == cp_model.OPTIMAL:
            return None
        return score, score if status == cp_model.OPTIMAL else ceiling, tuple(path)


def _sum(terms: list[tuple[IntVar, int]]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum([v for v, _ in terms], [w for _, w in terms])
