"""Fits a pairwise accuracy model: options, and products of neighbouring layers' sizes.

A ridge regression of ``-log(error)`` like the additive model's (:mod:`edgeofa.accuracy.fit`), on
what a layer is (shared by all layers, its own, its very choice) and, for layers that follow one
another, on the products of their expansions and kernels. All of it is a sum over options and pairs
of options, so that the exact solver can take it; unlike in the additive model a layer is worth the
same at every resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.features import space_digest
from edgeofa.accuracy.fit import (
    check_enough,
    cross_predict,
    folds_of,
    kendall_tau,
    ridge,
    target_of,
)
from edgeofa.accuracy.pairwise import PairwiseAccuracy, PairwiseFile
from edgeofa.spaces.space import Layer, Space, Subnet

__all__ = ["FittedPairwise", "fit_pairwise"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Slot = tuple[int, int]

_OPTION = (0.1, 1.0, 10.0)
_PAIR = (1.0, 10.0, 100.0, 1000.0)
_SHARED = 3


@dataclass(frozen=True, eq=False)
class FittedPairwise:
    """``points`` (mean absolute error) and Kendall's ``tau`` are ten-fold cross-validated."""

    model: PairwiseAccuracy
    points: float
    tau: float


def _sizes(layer: Layer) -> tuple[float, float]:
    return log2(layer.expand) - 2, (layer.kernel - 4) / 2


class _Design:
    """Columns: resolutions; shared, own and chosen of options; shared and own of pairs."""

    def __init__(self, space: Space):
        self.space = space
        slots = list(space.slots)
        self._slot = {slot: n for n, slot in enumerate(slots)}
        self._choice = {
            (slot, layer): n
            for n, (slot, layer) in enumerate(
                (slot, layer)
                for slot in slots
                for layer in space.stages[slot[0]].layers_at(slot[1])
            )
        }
        self._pair = {pair: n for n, pair in enumerate(self._neighbours())}
        self.resolutions = list(space.resolutions)
        self._options = len(self.resolutions)
        self._pairs = self._options + _SHARED + 3 * len(slots) + len(self._choice)
        self.size = self._pairs + 4 + 4 * len(self._pair)

    def _neighbours(self) -> list[tuple[Slot, Slot]]:
        """Slots whose layers can follow one another."""
        found = []
        for i, stage in enumerate(self.space.stages):
            found += [((i, j), (i, j + 1)) for j in range(stage.depths[-1] - 1)]
            if i + 1 < len(self.space.stages):
                found += [((i, depth - 1), (i + 1, 0)) for depth in stage.depths]
        return found

    def option(self, slot: Slot, layer: Layer) -> Array:
        row = np.zeros(self.size)
        values = (1.0, *_sizes(layer))
        at = self._options
        row[at : at + _SHARED] = values
        at += _SHARED + 3 * self._slot[slot]
        row[at : at + 3] = values
        row[self._pairs - len(self._choice) + self._choice[slot, layer]] = 1
        return row

    def pair(self, before: tuple[Slot, Layer], after: tuple[Slot, Layer]) -> Array:
        row = np.zeros(self.size)
        values = [a * b for a, b in product(_sizes(before[1]), _sizes(after[1]))]
        row[self._pairs : self._pairs + 4] = values
        at = self._pairs + 4 + 4 * self._pair[before[0], after[0]]
        row[at : at + 4] = values
        return row

    def rows(self, subnets: Sequence[Subnet]) -> Array:
        rows = np.zeros((len(subnets), self.size))
        for row, subnet in zip(rows, subnets, strict=True):
            row[self.resolutions.index(subnet.resolution)] = 1
            placed = [
                ((i, j), layer)
                for i, layers in enumerate(subnet.stages)
                for j, layer in enumerate(layers)
            ]
            for slot, layer in placed:
                row += self.option(slot, layer)
            for before, after in pairwise(placed):
                row += self.pair(before, after)
        return rows

    def penalty(self, option: float, pair: float) -> Array:
        penalty = np.full(self.size, option)
        penalty[: self._options] = 0.05
        penalty[self._options : self._options + _SHARED] = 0.1
        penalty[self._pairs :] = pair
        return penalty

    def content(self, beta: Array, constant: float) -> dict[str, Any]:
        """Scores by option, and by pairs of options, as a pairwise file names them."""

        def name(slot: Slot, layer: Layer) -> str:
            return f"stages.{slot[0]}.{slot[1]}={layer.kernel}x{layer.expand}"

        options = {name(s, x): float(self.option(s, x) @ beta) for s, x in self._choice}
        pairs: dict[str, dict[str, float]] = {}
        for (first, second), _ in self._pair.items():
            for a, b in product(self._layers(first), self._layers(second)):
                worth = float(self.pair((first, a), (second, b)) @ beta)
                pairs.setdefault(name(first, a), {})[name(second, b)] = worth
        intercepts = {r: constant + float(b) for r, b in zip(self.resolutions, beta, strict=False)}
        return {"intercepts": intercepts, "options": options, "pairs": pairs}

    def _layers(self, slot: Slot) -> tuple[Layer, ...]:
        return self.space.stages[slot[0]].layers_at(slot[1])


def fit_pairwise(
    space: Space, pairs: Sequence[tuple[Subnet, float]], images: int, evidence: str, seed: int = 0
) -> FittedPairwise:
    """The model of measured (subnet, accuracy) pairs; penalties by ten-fold cross-validation.

    Args:
        images: how many images each accuracy was measured on.
        seed: of the folds, which are the additive model's.
    """
    check_enough(len(pairs))
    accuracy = np.array([a for _, a in pairs], dtype=np.float64)
    target, design = target_of(accuracy, images), _Design(space)
    rows, folds = design.rows([s for s, _ in pairs]), folds_of(len(pairs), seed)

    def predict(penalty: Array, train: Index, test: Index) -> Array:
        beta, constant = ridge(rows[train], target.score[train], target.weight[train], penalty)
        return rows[test] @ beta + constant

    def points_off(score: Array) -> float:
        return float(100 * np.abs(1 - np.exp(-score) - accuracy).mean())

    tried = {
        choice: cross_predict(len(pairs), folds, partial(predict, design.penalty(*choice)))
        for choice in product(_OPTION, _PAIR)
    }
    best = min(tried, key=lambda c: points_off(tried[c]))
    beta, constant = ridge(rows, target.score, target.weight, design.penalty(*best))
    points = points_off(tried[best])
    content = PairwiseFile(
        space=space.name,
        space_digest=space_digest(space),
        evidence=evidence[:400],
        scale="log_error",
        error=points / 100,
        **design.content(beta, constant),
    )
    tau = kendall_tau(tried[best], accuracy)
    return FittedPairwise(PairwiseAccuracy(space, content), points, tau)
