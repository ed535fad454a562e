"""Two other ways to the optimum, slow and independent, that the solver is checked against.

Plain enumeration for small spaces, and a mixed-integer program for HiGHS (through scipy, the extra
``solvers``) for large ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeofa.solver.budgets import Limits, Totals
from edgeofa.solver.core import Path, Problem
from edgeofa.spaces.space import Subnet


def every_path(problem: Problem) -> Iterator[tuple[int, Path]]:
    """All networks of a problem, whatever they cost; for spaces small enough to count."""

    def onwards(context: int, node: int, path: Path) -> Iterator[tuple[int, Path]]:
        if node == problem.nodes - 1:
            yield context, path
            return
        for arc in problem.leaving[node]:
            for n in np.flatnonzero(arc.allowed[context]):
                step = (arc.edge, int(arc.options[n]))
                yield from onwards(context, arc.target, (*path, step))

    for context in np.flatnonzero(problem.allowed).tolist():
        yield from onwards(context, 0, ())


def every_subnet(problem: Problem) -> Iterator[Subnet]:
    """All subnets of a problem; for spaces small enough to count."""
    return (problem.named(*network) for network in every_path(problem))


def fits(totals: Totals, limits: Limits) -> bool:
    """Whether a subnet is within every limit."""
    pairs = [*zip(totals.sums, limits.sums, strict=False)]
    pairs += zip(totals.peaks, limits.peaks, strict=False)
    return all(limit is None or cost <= limit for cost, limit in pairs)


def enumerated_scores(problem: Problem, limits: Limits) -> list[int]:
    """The scores of all networks within the limits, best first."""
    everything = (problem.path_totals(*network) for network in every_path(problem))
    return sorted((t.score for t in everything if fits(t, limits)), reverse=True)


def highs_optimum(problem: Problem, limits: Limits) -> int | None:
    """The best score within the limits by HiGHS, None where it finds that nothing fits.

    A context at a time. One binary variable is one option of one arc; what flows into a node flows
    out of it, and one network leaves the start.
    """
    within = problem.within(limits)
    scores = (_highs_context(within, limits, int(c)) for c in np.flatnonzero(within.allowed))
    return max((s for s in scores if s is not None), default=None)


def _highs_context(problem: Problem, limits: Limits, c: int) -> int | None:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    counts = [len(arc.options) for arc in problem.arcs]
    sources = np.repeat([arc.source for arc in problem.arcs], counts)
    targets = np.repeat([arc.target for arc in problem.arcs], counts)
    variables = np.arange(len(sources))
    inner = targets < problem.nodes - 1
    flow = csr_array(
        (
            np.concatenate([np.ones(len(variables)), -np.ones(int(inner.sum()))]),
            (
                np.concatenate([sources, targets[inner]]),
                np.concatenate([variables, variables[inner]]),
            ),
        ),
        shape=(problem.nodes - 1, len(variables)),
    )
    start = np.zeros(problem.nodes - 1)
    start[0] = 1.0
    constraints = [LinearConstraint(flow, start, start)]
    for column, limit in enumerate(limits.sums):
        if limit is not None:
            costs = np.concatenate([arc.costs[c, :, column] for arc in problem.arcs])
            scale = max(abs(limit), 1)
            room = limit - int(problem.fixed_costs[c, column])
            constraints.append(LinearConstraint(costs[None] / scale, -np.inf, room / scale))
    scores = np.concatenate([arc.scores[c] for arc in problem.arcs])
    allowed = np.concatenate([arc.allowed[c] for arc in problem.arcs])
    answer = milp(
        -scores / max(float(np.abs(scores).max()), 1.0),
        constraints=constraints,
        integrality=np.ones(len(scores)),
        bounds=Bounds(0, allowed.astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        return None
    return int(problem.fixed_scores[c] + scores[answer.x > 0.5].sum())
