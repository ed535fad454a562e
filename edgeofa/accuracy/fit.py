"""Fits both accuracy models to measured subnets, and says how good they are.

The additive model is a ridge regression of ``-log(error)``. Its features come in two strengths:
effects that all layers share (a further layer, its expansion, its kernel, and how these change with
the resolution), barely penalised, and each layer's deviation from them, penalised more. So a few
hundred subnets are enough, and a layer that was rarely seen behaves like the average one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import log2

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.features import space_digest, summary
from edgeofa.accuracy.model import (
    AccuracyFile,
    Additive,
    CrossValidation,
    FittedAccuracy,
    Pair,
    Residual,
    rbf,
)
from edgeofa.errors import UsageError
from edgeofa.spaces.space import Layer, Space, Subnet

__all__ = [
    "Target",
    "check_enough",
    "cross_predict",
    "fit_accuracy",
    "folds_of",
    "kendall_tau",
    "ridge",
    "target_of",
]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_FOLDS = 10
_MIN_PAIRS = 40
_SHARED = (0.01, 0.1, 1.0)
_OWN = (1.0, 3.0, 10.0, 30.0, 100.0)
_LENGTHS = (2.0, 4.0, 8.0)
_NOISES = (0.3, 1.0, 3.0, 10.0)


class _Design:
    """Linear features of the additive model: per layer, shared over layers, per resolution."""

    def __init__(self, space: Space):
        self._space = space
        self._reference = sorted(space.resolutions)[len(space.resolutions) // 2]
        self._slots = {slot: n for n, slot in enumerate(space.slots)}
        self.resolutions = list(space.resolutions)
        #: presence, log2(expand), kernel; each also times log2(resolution / reference)
        self.shared = 6
        #: presence, log2(expand), kernel, presence * slope; and one number a choice of layer
        self.own = 4
        self._choices = {
            (slot, layer): n
            for n, (slot, layer) in enumerate(
                (slot, layer)
                for slot in space.slots
                for layer in space.stages[slot[0]].layers_at(slot[1])
            )
        }
        self.size = self.shared + self.own * len(self._slots) + len(self._choices)

    @property
    def reference(self) -> int:
        return self._reference

    def layer(self, stage: int, position: int, layer: Layer) -> tuple[Array, Array]:
        """(base, slope): the features are ``base + slope * log2(resolution / reference)``."""
        base, slope = np.zeros(self.size), np.zeros(self.size)
        values = (1.0, log2(layer.expand) - 2, (layer.kernel - 4) / 2)
        base[0:3] = values
        slope[3:6] = values
        at = self.shared + self.own * self._slots[stage, position]
        base[at : at + 3] = values
        slope[at + 3] = 1.0
        base[
            self.shared + self.own * len(self._slots) + self._choices[(stage, position), layer]
        ] = 1
        return base, slope

    def rows(self, subnets: Sequence[Subnet]) -> Array:
        """``[subnets, resolutions + size]``."""
        known = {
            (stage, position, layer): self.layer(stage, position, layer)
            for (stage, position), layer in self._choices
        }
        rows = np.zeros((len(subnets), len(self.resolutions) + self.size))
        for row, subnet in zip(rows, subnets, strict=True):
            row[self.resolutions.index(subnet.resolution)] = 1
            distance = log2(subnet.resolution / self._reference)
            for i, layers in enumerate(subnet.stages):
                for j, layer in enumerate(layers):
                    base, slope = known[i, j, layer]
                    row[len(self.resolutions) :] += base + slope * distance
        return rows

    def penalty(self, shared: float, own: float) -> Array:
        """Resolutions' intercepts are smoothed towards each other by their own small penalty."""
        return np.concatenate(
            [
                np.full(len(self.resolutions), 0.05),
                np.full(self.shared, shared),
                np.full(self.size - self.shared, own),
            ]
        )


def _solve(matrix: Array, right: Array) -> Array:
    return np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)


def ridge(rows: Array, target: Array, weight: Array, penalty: Array) -> tuple[Array, float]:
    """(coefficients, constant) of a weighted ridge regression around the weighted mean."""
    constant = float(np.average(target, weights=weight))
    weighted = rows * weight[:, None]
    normal = weighted.T @ rows + np.diag(penalty)
    return _solve(normal, weighted.T @ (target - constant)), constant


def _kernel_weights(points: Array, target: Array, length: float, noise: float) -> Array:
    return _solve(rbf(points, points, length) + noise * np.eye(len(points)), target)


@dataclass(frozen=True, eq=False)
class Target:
    """What is fitted: ``score`` is ``-log(error)``, with weights by how surely it was measured."""

    error: Array
    score: Array
    weight: Array


def target_of(accuracy: Array, images: int) -> Target:
    """Of accuracies measured on so many images; half an image keeps the logarithm finite."""
    error = np.clip(1 - accuracy, 0.5 / images, 1 - 0.5 / images)
    # the variance of log(error) from counting images, and what no such model can express
    variance = (1 - error) / (error * images) + 0.03**2
    return Target(error, -np.log(error), 1 / variance / np.mean(1 / variance))


def check_enough(pairs: int) -> None:
    """Raises ``UsageError`` for fewer pairs than a model can be fitted to."""
    if pairs < _MIN_PAIRS:
        raise UsageError(f"{pairs} measured subnets", hint=f"at least {_MIN_PAIRS}")


def kendall_tau(a: Array, b: Array) -> float:
    """Kendall's tau-b of two equally long vectors."""
    x = np.sign(a[:, None] - a[None])
    y = np.sign(b[:, None] - b[None])
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / norm) if norm else 0.0


def folds_of(count: int, seed: int) -> list[Index]:
    """Ten parts of ``range(count)``, shuffled."""
    order = np.random.default_rng(seed).permutation(count)
    return [order[i::_FOLDS] for i in range(_FOLDS)]


def cross_predict(
    count: int, folds: list[Index], predict: Callable[[Index, Index], Array]
) -> Array:
    """Out-of-fold predictions; ``predict(train indices, test indices)``."""
    result = np.empty(count)
    for fold in folds:
        rest = np.setdiff1d(np.arange(count), fold)
        result[fold] = predict(rest, fold)
    return result


def fit_accuracy(
    space: Space, pairs: Sequence[tuple[Subnet, float]], images: int, evidence: str, seed: int = 0
) -> FittedAccuracy:
    """Both models from measured (subnet, accuracy) pairs, at least 40.

    Args:
        images: how many images each accuracy was measured on.
        evidence: one sentence on what the pairs were measured on.
        seed: of the folds.
    """
    check_enough(len(pairs))
    subnets = [s for s, _ in pairs]
    accuracy = np.array([a for _, a in pairs], dtype=np.float64)
    goal = target_of(accuracy, images)
    error, target, weight = goal.error, goal.score, goal.weight
    design, folds = _Design(space), folds_of(len(pairs), seed)
    rows = design.rows(subnets)

    def additive(shared: float, own: float) -> Array:
        def predict(train: Index, test: Index) -> Array:
            beta, constant = ridge(
                rows[train], target[train], weight[train], design.penalty(shared, own)
            )
            return rows[test] @ beta + constant

        return cross_predict(len(pairs), folds, predict)

    def points_off(score: Array) -> float:
        return float(100 * np.abs(1 - np.exp(-score) - accuracy).mean())

    tried = {choice: additive(*choice) for choice in product(_SHARED, _OWN)}
    shared, own = min(tried, key=lambda c: points_off(tried[c]))
    out_of_fold = tried[shared, own]

    features = summary(space, subnets)
    mean, std = features.mean(0), features.std(0)
    std[std < 1e-9] = 1.0
    points = (features - mean) / std
    left = target - out_of_fold

    def residual(length: float, noise: float) -> Array:
        def predict(train: Index, test: Index) -> Array:
            alpha = _kernel_weights(points[train], left[train], length, noise)
            return rbf(points[test], points[train], length) @ alpha

        return out_of_fold + cross_predict(len(pairs), folds, predict)

    ranked = {choice: residual(*choice) for choice in product(_LENGTHS, _NOISES)}
    length, noise = min(ranked, key=lambda c: points_off(ranked[c]))

    beta, constant = ridge(rows, target, weight, design.penalty(shared, own))
    content = AccuracyFile(
        schema_version=1,
        space=space.name,
        space_digest=space_digest(space),
        evidence=evidence,
        images=images,
        pairs=tuple(Pair(subnet=str(s), accuracy=a) for s, a in pairs),
        additive=_additive(space, design, beta, constant),
        residual=Residual(
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            length=length,
            weights=tuple(_kernel_weights(points, left, length, noise).tolist()),
        ),
        cross_validation=CrossValidation(
            additive_points=points_off(out_of_fold),
            additive_tau=kendall_tau(out_of_fold, accuracy),
            rerank_points=points_off(ranked[length, noise]),
            rerank_tau=kendall_tau(ranked[length, noise], accuracy),
            measurement_points=float(100 * np.sqrt(error * (1 - error) / images).mean()),
        ),
    )
    return FittedAccuracy(space, content)


def _additive(space: Space, design: _Design, beta: Array, constant: float) -> Additive:
    count = len(design.resolutions)
    layers: dict[str, dict[str, tuple[float, float]]] = {}
    for stage, position in space.slots:
        terms = {}
        for layer in space.stages[stage].layers_at(position):
            base, slope = design.layer(stage, position, layer)
            value = (float(base @ beta[count:]), float(slope @ beta[count:]))
            terms[f"{layer.kernel}x{layer.expand}"] = value
        layers[f"{stage}.{position}"] = terms
    return Additive(
        reference=design.reference,
        intercepts={
            r: constant + float(b) for r, b in zip(design.resolutions, beta[:count], strict=True)
        },
        layers=layers,
    )
