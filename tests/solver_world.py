"""Made-up spaces, tables and scores for the solver's tests; nothing here was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeofa.spaces import Layer, Space, Subnet, load_space
from edgeofa.spaces.blocks import block_macs
from edgeofa.spaces.space import Block
from edgeofa.tables.table import Additivity, Header, Row, Table


class Additive:
    """An accuracy model from a function of (resolution, stage, position, layer)."""

    claims_accuracy = True
    error = None

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
