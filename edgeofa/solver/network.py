"""The answer under a predictor that is a network: the best found, and the ceiling that is proven.

The search is in :mod:`edgeofa.solver.anytime`, the ceiling in :mod:`edgeofa.solver.bound`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.core import Problem
from edgeofa.solver.prediction import predict
from edgeofa.solver.question import Question
from edgeofa.solver.refusal import nothing_fits
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
    from edgeofa.solver.anytime import anytime
    from edgeofa.solver.bound import bound

    if question.goal is not None:
        raise UsageError(
            "a predictor that is a network is only maximised",
            hint="leave --minimize and --accuracy out, or use an additive or pairwise model",
        )
    limits = [p.limits(*question.budgets) for p in problems]
    found = []
    refusal: NoSubnetFits | None = None
    for n, (problem, most) in enumerate(zip(problems, limits, strict=True)):
        try:
            found.append((n, anytime(problem, most, seed=seed)))
        except NoSubnetFits:
            refusal = refusal or nothing_fits(problem, question.budgets, most, proven=True)
    if not found:
        raise refusal or UsageError("no candidates to choose from")
    number, result = max(found, key=lambda f: f[1].value)
    ceilings = [
        bound(problems[n], limits[n], best=r.value, seconds=seconds / len(found)) for n, r in found
    ]
    ceiling = max(c.value for c in ceilings)
    closed = all(c.closed for c in ceilings)
    (best,) = predict(problems[number], [result.best])
    selection = Selection(question.budgets, best, (), ceiling, closed)
    proof = NetworkProof(
        ceiling,
        max(ceiling - best.value, 0.0),
        closed,
        sum(r.calls for _, r in found),
        sum(r.seconds for _, r in found),
        sum(c.seconds for c in ceilings),
    )
    return number, selection, proof
