"""From a question to one subnet: the exact K best of every table, re-ranked, and what is proven.

A question can be put to several problems at once (one a precision and back end): the answer is the
best over all of them, with one bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from edgeofa.accuracy.base import AccuracyScale
from edgeofa.errors import UsageError
from edgeofa.solver.budgets import AXES, Budgets, Limits
from edgeofa.solver.core import Problem
from edgeofa.solver.exact import Ranking
from edgeofa.solver.methods import ranked
from edgeofa.solver.objective import k_leanest, least_peak, with_peak
from edgeofa.solver.prediction import Prediction, predict
from edgeofa.solver.question import Goal, Prefer, Question
from edgeofa.solver.refusal import nothing_fits, too_inaccurate
from edgeofa.solver.ties import Ties, fastest_tied, tolerance

#: so many floors are tried until the better accuracy model reaches the wanted accuracy too, and
#: how far apart they are at least
_FLOORS = 12
_FINEST = 1e-4


@dataclass(frozen=True)
class Selection:
    """The pick, the other candidates in order, and what is proven about them.

    ``bound`` is the highest additive score that any subnet within the budgets reaches; ``proven``
    says that the candidates are exactly the K best by that score. With a ``goal`` they are in order
    of that cost instead, and ``least`` is the least that any subnet costs (ms and mJ as planned,
    bytes) whose additive prediction reaches the wanted accuracy, None where none does and only the
    better model lets the pick in; ``bound`` is the pick's score.

    ``ties``: the pick is the fastest of several that the accuracy model cannot tell apart.
    """

    budgets: tuple[Budgets, ...]
    best: Prediction
    runners_up: tuple[Prediction, ...]
    bound: float
    proven: bool
    goal: Goal | None = None
    least: float | None = None
    ties: Ties | None = None


@dataclass(frozen=True, eq=False)
class _Found:
    """A candidate and the problem that it comes from."""

    problem: int
    prediction: Prediction


def select(
    problem: Problem, *budgets: Budgets, k: int = 64, prefer: Prefer = "fastest"
) -> Selection:
    """The most accurate subnet of one problem within the budgets (one a board).

    Raises:
        NoSubnetFits: names the subnet that comes nearest and what it costs.
    """
    return answer([problem], Question(budgets, k=k, prefer=prefer))[1]


def answer(problems: Sequence[Problem], question: Question) -> tuple[int, Selection]:
    """The best subnet over all problems, and which problem it is of.

    All are of one space and one accuracy model. Raises ``NoSubnetFits`` where none has one.
    """
    if question.goal is not None:
        return _leanest(problems, question, question.goal)
    return _most_accurate(problems, question)


# ------------------------------------------------------------------------ the most accurate


def _most_accurate(problems: Sequence[Problem], question: Question) -> tuple[int, Selection]:
    """The ``k`` best by the exact model, ordered by ``rerank``; of equal ones the faster first."""
    limits = [p.limits(*question.budgets) for p in problems]
    rankings = [
        ranked(p, most, question.k, question.method)
        for p, most in zip(problems, limits, strict=True)
    ]
    if not any(r.best for r in rankings):
        raise nothing_fits(problems[0], question.budgets, limits[0], proven=rankings[0].proven)
    found = _distinct(_predicted(problems, rankings))
    # of many tables' K best only K are the best of all
    found.sort(key=lambda f: -f.prediction.score)
    found = found[: question.k]
    found.sort(key=lambda f: -f.prediction.value)
    ties = None
    gap = tolerance(problems[0].accuracy) if question.prefer == "fastest" else 0.0
    if gap > 0:
        found, ties = _fastest_first(problems, limits, question, found, gap)
    # each step's score was rounded by at most half a unit; outwards, so that the bound holds
    bound = max(
        p.score(r.bound + p.nodes)
        for p, r in zip(problems, rankings, strict=True)
        if r.best or not r.proven
    )
    best, *others = found
    return best.problem, Selection(
        question.budgets,
        best.prediction,
        tuple(f.prediction for f in others),
        bound,
        all(r.proven for r in rankings),
        ties=ties,
    )


def _fastest_first(
    problems: Sequence[Problem],
    limits: Sequence[Limits],
    question: Question,
    found: list[_Found],
    gap: float,
) -> tuple[list[_Found], Ties | None]:
    """The candidates with the fastest of those first that nothing tells from the best.

    The fastest are looked for in the whole space: the exactly fastest whose additive prediction is
    within the gap, of which the better model has to agree.
    """
    model = problems[0].accuracy
    best = found[0].prediction
    pool = list(found)
    if isinstance(model, AccuracyScale):
        level = model.score_at(min(max(model.accuracy(best.subnet) - gap, 0.0), 1 - 1e-12))
        rankings = [
            k_leanest(p, most, 0, _units(p, level), question.k, question.method)
            for p, most in zip(problems, limits, strict=True)
        ]
        pool = _distinct([*found, *_predicted(problems, rankings)])
    pick, ties = fastest_tied([f.prediction for f in pool], gap)
    if ties.count == 1:
        return found, None
    first = next(f for f in pool if f.prediction is pick)
    return [first, *(f for f in found if f.prediction.subnet != pick.subnet)], ties


# ------------------------------------------------------------------------ the leanest


def _leanest(problems: Sequence[Problem], question: Question, goal: Goal) -> tuple[int, Selection]:
    """The subnet of least cost within the budgets whose predicted accuracy is enough."""
    limits = [p.limits(*question.budgets) for p in problems]
    model, wanted = problems[0].accuracy, question.accuracy
    if wanted is not None and not isinstance(model, AccuracyScale):
        raise UsageError(
            "this accuracy model predicts no accuracy that could be asked for",
            where=f"space {problems[0].space.name}",
            hint="leave --accuracy out, or use a trained supernet's model or --predictor",
        )
    if goal.board >= len(problems[0].boards):
        raise UsageError(f"there is no board {goal.board} to minimise on")
    if goal.cost == "energy":
        for problem in problems:
            problem.boards[goal.board].need_energies()
    tried = _tried_floors(problems, limits, question, goal)
    if not tried.found and wanted is None:
        raise nothing_fits(problems[0], question.budgets, limits[0], proven=tried.proven)
    good, proven = _enough(tried.found, wanted), tried.proven
    if not good and wanted is not None:
        # the floors went past it, or nothing reaches it: the most accurate decide
        most = Question(question.budgets, k=question.k, prefer="accurate", method=question.method)
        number, accurate = _most_accurate(problems, most)
        if accurate.best.value < wanted:
            raise too_inaccurate(problems[0], wanted, accurate.best)
        good, proven = [_Found(number, accurate.best)], False
    good.sort(key=lambda f: (_cost(f.prediction, goal), -f.prediction.value))
    best, *others = good[: question.k]
    return best.problem, Selection(
        question.budgets,
        best.prediction,
        tuple(f.prediction for f in others),
        best.prediction.score,
        proven,
        goal,
        tried.least,
    )


@dataclass(frozen=True, eq=False)
class _Tried:
    """What the cheapest networks above several floors are, and the least cost above the first."""

    found: list[_Found]
    least: float | None
    proven: bool


def _tried_floors(
    problems: Sequence[Problem], limits: Sequence[Limits], question: Question, goal: Goal
) -> _Tried:
    """The cheapest above the wanted accuracy, and above higher floors until the better model finds
    one of them accurate enough; then lower ones again, since a raise may have gone too far."""
    wanted = question.accuracy
    pool: list[_Found] = []
    least, proven = None, True
    floor, failed, enough, raised = wanted, wanted or 0.0, 1.0, 0.0
    for _ in range(_FLOORS):
        rankings = [
            _rank_leanest(p, most, question, goal, floor)
            for p, most in zip(problems, limits, strict=True)
        ]
        proven = proven and all(r.proven for r in rankings)
        found = _distinct(_predicted(problems, rankings))
        pool = _distinct([*pool, *found])
        if found and least is None:
            least = min(
                _cost_of(p, goal, r) for p, r in zip(problems, rankings, strict=True) if r.best
            )
        good = _enough(found, wanted)
        if wanted is None or floor is None or (good and floor == wanted):
            break
        if good or not found:
            enough = floor
        else:
            failed = floor
        if enough - failed < _FINEST:
            break
        if enough < 1.0:
            floor = (failed + enough) / 2
        else:
            short = wanted - max(f.prediction.value for f in found)
            raised = max(short, 2 * raised, _FINEST)
            floor = min(failed + raised, 1 - 1e-9)
    return _Tried(pool, least, proven)


def _enough(found: Sequence[_Found], wanted: float | None) -> list[_Found]:
    return [f for f in found if wanted is None or f.prediction.value >= wanted]


def _rank_leanest(
    problem: Problem, limits: Limits, question: Question, goal: Goal, wanted: float | None
) -> Ranking:
    model = problem.accuracy
    floor = None
    if wanted is not None and isinstance(model, AccuracyScale):
        floor = _units(problem, model.score_at(wanted))
    if goal.cost != "peak":
        column = len(AXES) * goal.board + AXES.index(goal.cost)
        return k_leanest(problem, limits, column, floor, question.k, question.method)
    peak = least_peak(problem, limits, goal.board, floor)
    if peak is None:
        return Ranking((), 0, proven=True)
    # of equal peaks the fastest
    at_peak = with_peak(limits, goal.board, peak)
    return k_leanest(problem, at_peak, 0, floor, question.k, question.method)


def _cost_of(problem: Problem, goal: Goal, ranking: Ranking) -> float:
    """The least cost that a ranking proves, in the unit of its budget."""
    if goal.cost == "peak":
        return float(ranking.best[0].totals.peaks[goal.board])
    return problem.boards[goal.board].planned(goal.cost, -ranking.bound)


def _cost(prediction: Prediction, goal: Goal) -> float:
    on = prediction.on(goal.board)
    if goal.cost == "latency":
        return on.planned_ms
    if goal.cost == "energy":
        return on.energy_mj or 0.0
    return float(on.flash_bytes if goal.cost == "weight" else on.peak_bytes)


# ------------------------------------------------------------------------ helpers


def _units(problem: Problem, score: float) -> int:
    """A score in the problem's units, lowered by what rounding may have taken from a network."""
    return floor(score / problem.score_unit) - problem.nodes


def _predicted(problems: Sequence[Problem], rankings: Sequence[Ranking]) -> list[_Found]:
    return [
        _Found(n, prediction)
        for n, (problem, ranking) in enumerate(zip(problems, rankings, strict=True))
        for prediction in predict(problem, [r.subnet for r in ranking.best])
    ]


def _distinct(found: Sequence[_Found]) -> list[_Found]:
    """One candidate a subnet: where it is fastest."""
    best: dict[object, _Found] = {}
    for one in found:
        known = best.get(one.prediction.subnet)
        if known is None or one.prediction.planned_ms < known.prediction.planned_ms:
            best[one.prediction.subnet] = one
    return list(best.values())
