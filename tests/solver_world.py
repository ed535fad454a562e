"""Made-up spaces, tables and scores for the solver's tests; nothing here was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from edgeofa.accuracy.base import block_macs
from edgeofa.solver.problem import Limits, Problem
from edgeofa.spaces import Layer, Space, Subnet, load_space
from edgeofa.spaces.space import Block
from edgeofa.tables.table import Additivity, Header, Row, Table


class Additive:
    """An accuracy model from a function of (resolution, stage, position, layer)."""

    claims_accuracy = True

    def __init__(
        self,
        layer: Callable[[int, int, int, Layer], float],
        intercept: Callable[[int], float] = lambda _: 0.0,
    ):
        self._layer, self._intercept = layer, intercept

    def intercept(self, resolution: int) -> float:
        return self._intercept(resolution)

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float:
        return self._layer(resolution, stage, position, layer)

    def score(self, subnet: Subnet) -> float:
        return self.intercept(subnet.resolution) + sum(
            self.layer_score(subnet.resolution, i, j, layer)
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        )

    def accuracy(self, subnet: Subnet) -> float:
        return float(1 / (1 + np.exp(-self.score(subnet))))

    def rerank(self, subnets: Any) -> Any:
        return np.array([self.accuracy(s) for s in subnets])


def small_space(stages: list[dict[str, Any]], resolutions: tuple[int, ...]) -> Space:
    """A space of the given stages (``depths``, ``kernels``, ``expands``)."""
    return Space.model_validate(
        {
            "schema_version": 1,
            "name": "small",
            "description": "made for a test",
            "classes": 10,
            "resolutions": resolutions,
            "padding": "same",
            "batch_norm_epsilon": 1e-5,
            "kernel_transform": False,
            "preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1]},
            "stem": {"out": 8, "kernel": 3, "stride": 2, "activation": "relu"},
            "stages": [
                {"out": 8 * (i + 2), "stride": 1, "activation": "relu", **stage}
                for i, stage in enumerate(stages)
            ],
            "head": {"expand": 64, "activation": "relu"},
        }
    )


def make_table(
    space: Space,
    row_of: Callable[[Block], tuple[float, float | None, int, int]],
    *,
    resolutions: tuple[int, ...] | None = None,
    fit: Additivity | None = None,
) -> Table:
    """A table whose rows are ``(latency_ms, energy_mj, weight_bytes, peak_bytes)`` of a block."""
    covered = resolutions or space.resolutions
    rows = {}
    for block in space.all_blocks(covered):
        ms, mj, weight, peak = row_of(block)
        rows[block.key] = Row(
            block.key, ms, ms, ms, mj, mj, mj, peak, weight, 1, 1, "estimated", "ok"
        )
    header = Header(
        target="made-up",
        target_digest="0" * 16,
        space=space.name,
        backend="litert",
        precision="int8",
        threads=1,
        evidence="estimated",
        runtime="none",
        runtime_version="0",
        runtime_digest="0",
        device={},
        protocol_version=1,
        seed=0,
        date="2026-01-01",
        edgeofa_version="0",
        resolutions=tuple(covered),
        additivity=fit,
    )
    return Table(header, rows)


def noisy_table(name: str, seed: int, resolutions: tuple[int, ...] | None = None) -> Table:
    """A shipped space with costs that follow the MACs, each with noise of its own."""
    space = load_space(name)
    rng = np.random.default_rng(seed)

    def row(block: Block) -> tuple[float, float, int, int]:
        mega = block_macs(block) / 1e6
        ms = round((0.05 + mega / 4 * (1 + 0.05 * block.kernel)) * rng.uniform(0.9, 1.1), 6)
        weight = block.cin * block.mid + block.mid * (block.kernel**2 + block.cout)
        peak = block.size**2 * (block.cin + block.mid) + block.size_out**2 * block.cout
        return ms, round(ms * 3 * rng.uniform(0.8, 1.2), 6), weight, peak

    return make_table(space, row, resolutions=resolutions)


def noisy_scores(name: str, seed: int) -> Additive:
    """Diminishing returns of kernel, expansion, depth and resolution, with noise."""
    space = load_space(name)
    rng = np.random.default_rng(seed)
    values = {
        (i, j, layer): (0.5 * np.log(layer.expand) + 0.2 * np.log(layer.kernel) + 0.3)
        / (1 + j)
        * rng.uniform(0.3, 1.0)
        for i, stage in enumerate(space.stages)
        for j in range(stage.depths[-1])
        for layer in stage.layers_at(j)
    }
    return Additive(lambda _, i, j, layer: values[i, j, layer], lambda r: 3 * np.log(r / 100))


def every_subnet(space: Space, resolutions: tuple[int, ...] | None = None) -> Iterator[Subnet]:
    """All subnets of a small space, by plain enumeration."""
    ends = [
        [c for d in stage.depths for c in product(*(stage.layers_at(j) for j in range(d)))]
        for stage in space.stages
    ]
    for r in resolutions or space.resolutions:
        for stages in product(*ends):
            yield Subnet(space.name, r, stages)


def milp_optimum(problem: Problem, limits: Limits) -> int | None:
    """The best score within the limits by HiGHS (scipy), None when it finds the model infeasible.

    A resolution at a time: one binary a layer option; a layer exists only after the one before it,
    and the depths that a stage does not allow tie neighbouring layers together.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    within = problem.within_peak(limits.peak)
    best: int | None = None
    for r in np.flatnonzero(within.allowed):
        slots = [slot for stage in within.stages for slot in stage.slots]
        starts = np.cumsum([0] + [len(slot.layers) for slot in slots])
        rows, low, high = [], [], []

        def constrain(row: Any, least: float, most: float) -> None:
            rows.append(row)  # noqa: B023 - used within this turn only
            low.append(least)  # noqa: B023
            high.append(most)  # noqa: B023

        n = 0
        for stage in within.stages:
            for j in range(len(stage.slots)):
                here = np.zeros(starts[-1])
                here[starts[n] : starts[n + 1]] = 1
                if j == 0:
                    constrain(here, 1, 1)
                else:
                    before = np.zeros(starts[-1])
                    before[starts[n - 1] : starts[n]] = 1
                    # exists only after the one before; equal to it where one may not stop there
                    constrain(before - here, 0, 1 if j in stage.depths else 0)
                n += 1
        for axis, limit in enumerate(limits.sums):
            if limit is not None:
                costs = np.concatenate([slot.costs[r, :, axis] for slot in slots])
                room = limit - within.fixed_costs[r, axis]
                # scaled so that the solver's tolerance is below one unit
                constrain(costs / limit, -np.inf, room / limit + 1e-12)
        score = np.concatenate([slot.scores[r] for slot in slots]).astype(float)
        allowed = np.concatenate([slot.allowed[r] for slot in slots]).astype(float)
        scale = np.abs(score).max()
        answer = milp(
            -score / scale,
            constraints=LinearConstraint(np.array(rows), low, high),
            integrality=np.ones(starts[-1]),
            bounds=Bounds(0, allowed),
            options={"mip_rel_gap": 0.0},
        )
        if answer.x is None:
            continue
        chosen = np.flatnonzero(answer.x > 0.5)
        total = int(within.fixed_scores[r] + sum(int(score[c]) for c in chosen))
        best = total if best is None else max(best, total)
    return best
