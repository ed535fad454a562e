"""Small problems whose accuracy model is a made-up network, for tests of searches and proofs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from solver_world import make_table, small_space

from edgeofa.accuracy.base import block_macs
from edgeofa.accuracy.features import space_digest
from edgeofa.accuracy.mlp import Description, Encoder, MlpAccuracy, Network
from edgeofa.solver.crosscheck import every_subnet, fits
from edgeofa.solver.problem import Limits, Problem, build_problem
from edgeofa.spaces import Space

RESOLUTIONS = (128, 160)
STAGES = [
    {"depths": [1, 2], "kernels": [3, 5], "expands": [3, 4]},
    {"depths": [1, 2], "kernels": [3, 5], "expands": [3, 6]},
]


def network_model(space: Space, widths: tuple[int, ...], seed: int) -> MlpAccuracy:
    rng = np.random.default_rng(seed)
    sizes = [Encoder(space).features, *widths, 1]
    weights = tuple(rng.normal(size=(n, m)) * (2 / m) ** 0.5 for m, n in pairwise(sizes))
    biases = tuple(rng.normal(size=n) * 0.1 for n in sizes[1:])
    description = Description(space=space.name, space_digest=space_digest(space), source="made up")
    return MlpAccuracy(space, Network(weights, biases), description)


def small_problem(seed: int, widths: tuple[int, ...] = (12, 12)) -> Problem:
    space = small_space(STAGES, RESOLUTIONS)
    rng = np.random.default_rng(seed)

    def row(block: object) -> tuple[float, None, int, int]:
        ms = 0.1 + block_macs(block) / 1e6 * rng.uniform(0.5, 1.5)  # type: ignore[arg-type]
        return round(ms, 6), None, 10, 10

    return build_problem(space, make_table(space, row), network_model(space, widths, seed))


def half_budget(problem: Problem) -> Limits:
    """A latency that about half of all subnets are within."""
    sums = sorted(problem.totals(s).latency_ns for s in every_subnet(problem))
    return Limits((sums[len(sums) // 2], None, None), None)


def enumerated_best(problem: Problem, limits: Limits) -> float:
    subnets = [s for s in every_subnet(problem) if fits(problem.totals(s), limits)]
    return float(problem.accuracy.rerank(subnets).max())
