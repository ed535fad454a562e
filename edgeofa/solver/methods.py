"""Which exact method answers: the dynamic program, or CP-SAT where that one proves nothing.

The dynamic program is exact in one pass under one or two sums, and proves more of them as long as
they do not contradict each other beyond its width; it is the faster one there. CP-SAT takes over
where it is installed and the dynamic program ends without a proof.
"""

from __future__ import annotations

from typing import Literal, get_args

from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.cpsat import available, cp_sat_best
from edgeofa.solver.exact import Ranking, k_best
from edgeofa.solver.fronts import IMPOSSIBLE

Method = Literal["auto", "dp", "cp-sat"]


def parse_method(text: str) -> Method:
    """The method of that name, or a ``UsageError`` with those that there are."""
    for method in get_args(Method):
        if text == method:
            known: Method = method
            return known
    raise UsageError(f"no method {text!r}", hint=f"one of {', '.join(get_args(Method))}")


def ranked(problem: Problem, limits: Limits, k: int, method: Method = "auto") -> Ranking:
    """The ``k`` best networks within the limits, with bound and proof, by the method asked for."""
    if method == "cp-sat":
        return cp_sat_best(problem, limits, k)
    by_program = k_best(problem, limits, k)
    if by_program.proven or method == "dp" or not available():
        return by_program
    by_cp_sat = cp_sat_best(problem, limits, k)
    if by_cp_sat.proven:
        return by_cp_sat
    better = max(by_program, by_cp_sat, key=_first_score)
    return Ranking(better.best, min(by_program.bound, by_cp_sat.bound), proven=False)


def _first_score(ranking: Ranking) -> int:
    return ranking.best[0].totals.score if ranking.best else IMPOSSIBLE
