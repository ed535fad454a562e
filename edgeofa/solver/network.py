"""The answer under a predictor that is a network: the best found, and the ceiling that is proven.

The search is in :mod:`edgeofa.solver.anytime`, the ceiling in :mod:`edgeofa.solver.bound`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.budgets import Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.prediction import predict
from edgeofa.solver.question import Question
from edgeofa.solver.refusal import nothing_fits
from edgeofa.solver.searchers.base import SearchResult
from edgeofa.solver.select import Selection


@dataclass(frozen=True)
class NetworkProof:
    """No subnet within the budgets is predicted above ``ceiling``; ``gap`` is what that leaves.

    Both are fractions. ``calls`` predictions found the best in ``search_seconds``; the ceiling was
    lowered for ``bound_seconds``.
    """

    ceiling: float
    gap: float
    closed: bool
    calls: int
    search_seconds: float
    bound_seconds: float


def best_by_network(
    problems: Sequence[Problem], question: Question, seconds: float, seed: int
) -> tuple[int, Selection, NetworkProof]:
    """The best subnet found over all problems, which one it is of, and the proof.

    Raises:
        UsageError: the question has a goal; a network's accuracy is not exact enough to hold it.
        NoSubnetFits: no subnet is within the budgets.
    """
    from edgeofa.solver.bound import bound

    found = _searched(problems, question, seed)
    ceilings = [
        bound(f.problem, f.limits, best=f.result.value, seconds=seconds / len(found)) for f in found
    ]
    ceiling = max(c.value for c in ceilings)
    closed = all(c.closed for c in ceilings)
    number, selection = _selected(found, question, ceiling, proven=closed)
    proof = NetworkProof(
        ceiling,
        max(ceiling - selection.best.value, 0.0),
        closed,
        sum(f.result.calls for f in found),
        sum(f.result.seconds for f in found),
        sum(c.seconds for c in ceilings),
    )
    return number, selection, proof


def found_by_network(
    problems: Sequence[Problem], question: Question, seed: int
) -> tuple[int, Selection]:
    """The same subnet without a proof: nothing is known of any other (its bound is infinite)."""
    return _selected(_searched(problems, question, seed), question, inf, proven=False)


@dataclass(frozen=True, eq=False)
class _Searched:
    number: int
    problem: Problem
    limits: Limits
    result: SearchResult


def _searched(problems: Sequence[Problem], question: Question, seed: int) -> list[_Searched]:
    """The search of every problem that has a subnet within the budgets, at least one."""
    from edgeofa.solver.anytime import anytime

    if question.goal is not None:
        raise UsageError(
            "a predictor that is a network is only maximised",
            hint="leave --minimize and --accuracy out, or use an additive or pairwise model",
        )
    found = []
    refusal: NoSubnetFits | None = None
    for n, problem in enumerate(problems):
        limits = problem.limits(*question.budgets)
        try:
            found.append(_Searched(n, problem, limits, anytime(problem, limits, seed=seed)))
        except NoSubnetFits:
            refusal = refusal or nothing_fits(problem, question.budgets, limits, proven=True)
    if not found:
        raise refusal or UsageError("no candidates to choose from")
    return found


def _selected(
    found: Sequence[_Searched], question: Question, bound: float, *, proven: bool
) -> tuple[int, Selection]:
    top = max(found, key=lambda f: f.result.value)
    (best,) = predict(top.problem, [top.result.best])
    return top.number, Selection(question.budgets, best, (), bound, proven)
