"""The accuracy model of a trained supernet, read from its ``accuracy.json``.

Two models of ``log(error)``, fitted to measured subnets (:mod:`edgeofa.accuracy.fit`):

- the additive one, which the solver optimises exactly: ``score = -log(error)`` is an intercept of
  the resolution plus one term a layer, linear in the logarithm of the resolution;
- the better one, for choosing among the K best: the additive prediction plus a kernel ridge
  regression of what it leaves over, on a summary of the subnet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import erfc, exp, isfinite, log, log2, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.accuracy.features import space_digest, summary
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces.space import Layer, Space, Subnet

__all__ = [
    "AccuracyFile",
    "Additive",
    "CrossValidation",
    "FittedAccuracy",
    "Pair",
    "Residual",
    "load_accuracy",
    "rbf",
]

_MAX_BYTES = 16 << 20


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pair(_Model):
    """A measured subnet and its accuracy, 0 to 1."""

    subnet: str
    accuracy: float = Field(ge=0, le=1)


class Additive(_Model):
    """``score = intercepts[resolution] + sum of base + slope * log2(resolution / reference)``.

    ``layers["stage.position"]["kernelxexpand"]`` is (base, slope).
    """

    reference: int = Field(gt=0)
    intercepts: dict[int, float]
    layers: dict[str, dict[str, tuple[float, float]]]


class Residual(_Model):
    """Kernel ridge over the standardised summary features: ``sum of weight * rbf``.

    One weight a pair. ``length`` is the kernel's length scale.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    length: float = Field(gt=0)
    weights: tuple[float, ...]


class CrossValidation(_Model):
    """Ten-fold, of both models; the folds also chose the regularisation.

    Mean absolute error in points (of 100) and Kendall's tau between prediction and measurement,
    whose own noise (``measurement_points``, one standard error) is part of the error.
    """

    additive_points: float
    additive_tau: float
    rerank_points: float
    rerank_tau: float
    measurement_points: float


class AccuracyFile(_Model):
    schema_version: Literal[1]
    space: str
    space_digest: str
    #: what the pairs were measured on
    evidence: str
    images: int = Field(gt=0)
    pairs: tuple[Pair, ...]
    additive: Additive
    residual: Residual
    cross_validation: CrossValidation


def rbf(a: NDArray[np.float64], b: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """``exp(-|a - b|^2 / (2 * length^2))`` of every pair of rows."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    kernel: NDArray[np.float64] = np.exp(np.maximum(squares, 0) / (-2 * length**2))
    return kernel


class FittedAccuracy:
    """An :class:`edgeofa.accuracy.base.AccuracyModel` of one trained supernet."""

    claims_accuracy = True

    def __init__(self, space: Space, content: AccuracyFile, where: Path | None = None):
        self.space = space
        self.content = content
        _check(space, content, where)

    @property
    def error(self) -> float:
        """Mean absolute error of :meth:`rerank`, cross-validated, as a fraction."""
        return self.content.cross_validation.rerank_points / 100

    @cached_property
    def difference_error(self) -> float:
        """Standard error of the difference of two predictions, as a fraction.

        Kendall's tau says that cross-validation put a share ``(1 - tau) / 2`` of the pairs in the
        wrong order. With normal errors a pair whose predictions are ``gap`` apart is in the wrong
        order with probability ``Phi(-gap / s)``; the ``s`` is taken whose mean over all pairs is
        that share. It holds the noise of the measurements too.
        """
        predicted = self.rerank([self.space.parse(p.subnet) for p in self.content.pairs])
        gaps = np.abs(predicted[:, None] - predicted)[np.triu_indices(len(predicted), 1)]
        wrong = min(max((1 - self.content.cross_validation.rerank_tau) / 2, 1e-6), 0.49)
        low, high = 1e-6, 10.0
        for _ in range(30):
            middle = sqrt(low * high)
            share = float(np.mean([erfc(x) for x in gaps / (middle * sqrt(2))])) / 2
            low, high = (middle, high) if share < wrong else (low, middle)
        return sqrt(low * high)

    @staticmethod
    def score_at(accuracy: float) -> float:
        """The score at which the additive model predicts ``accuracy``."""
        return -log(1 - accuracy)

    def intercept(self, resolution: int) -> float:
        try:
            return self.content.additive.intercepts[resolution]
        except KeyError:
            known = sorted(self.content.additive.intercepts)
            raise UsageError(f"no accuracy at {resolution} px", hint=f"one of {known}") from None

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float:
        additive = self.content.additive
        try:
            base, slope = additive.layers[f"{stage}.{position}"][f"{layer.kernel}x{layer.expand}"]
        except KeyError:
            raise UsageError(
                f"no accuracy of layer {layer.kernel}x{layer.expand}", where=f"{stage}.{position}"
            ) from None
        return base + slope * log2(resolution / additive.reference)

    def score(self, subnet: Subnet) -> float:
        return self.intercept(subnet.resolution) + sum(
            self.layer_score(subnet.resolution, i, j, layer)
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        )

    def accuracy(self, subnet: Subnet) -> float:
        """Of the additive model, 0 to 1."""
        return 1 - min(1.0, exp(-self.score(subnet)))

    def rerank(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        """Accuracies of the better model, 0 to 1, in the order given."""
        if not subnets:
            return np.zeros(0)
        score = np.array([self.score(s) for s in subnets])
        residual = self.content.residual
        kernel = rbf(self._standardised(subnets), self._points, residual.length)
        result: NDArray[np.float64] = 1 - np.minimum(
            1.0, np.exp(-(score + kernel @ np.array(residual.weights)))
        )
        return result

    def _standardised(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        residual = self.content.residual
        features = summary(self.space, subnets) - np.array(residual.mean)
        standardised: NDArray[np.float64] = features / np.array(residual.std)
        return standardised

    @cached_property
    def _points(self) -> NDArray[np.float64]:
        return self._standardised([self.space.parse(p.subnet) for p in self.content.pairs])


def load_accuracy(path: Path, space: Space) -> FittedAccuracy:
    """The model of a file, refused whole where it is corrupt or of another space."""
    if not path.is_file():
        raise MissingMaterial("no accuracy model here", where=path)
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError("an accuracy model is at most 16 MiB", where=path)
    try:
        content = AccuracyFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = " ".join(str(error).splitlines()[:3])
        raise FileFormatError(
            f"not an accuracy model: {first}",
            where=path,
            hint='a pairwise model\'s file says so by "kind": "pairwise"',
        ) from error
    return FittedAccuracy(space, content, path)


def _check(space: Space, content: AccuracyFile, where: Path | None) -> None:
    def refuse(what: str, hint: str | None = None) -> FileFormatError:
        return FileFormatError(what, where=where, hint=hint)

    if (content.space, content.space_digest) != (space.name, space_digest(space)):
        raise refuse(
            f"an accuracy model of another space ({content.space}) or of another version",
            f"use it with --space {content.space}, or fit one: edgeofa train measure",
        )
    missing = set(space.resolutions) - content.additive.intercepts.keys()
    if missing:
        raise refuse(f"no intercept for resolution {min(missing)}")
    for i, j in space.slots:
        known = content.additive.layers.get(f"{i}.{j}", {})
        for layer in space.stages[i].layers_at(j):
            if f"{layer.kernel}x{layer.expand}" not in known:
                raise refuse(f"no term for layer {layer.kernel}x{layer.expand} at {i}.{j}")
    residual, features = content.residual, 2 + 3 * len(space.stages)
    if not len(residual.mean) == len(residual.std) == features:
        raise refuse(f"{len(residual.mean)} features, not {features}")
    if not all(isfinite(x) and x > 0 for x in residual.std):
        raise refuse("a feature's standard deviation is not positive")
    if len(residual.weights) != len(content.pairs):
        raise refuse(f"{len(residual.weights)} weights for {len(content.pairs)} pairs")
    for pair in content.pairs:
        try:
            space.parse(pair.subnet)
        except UsageError as error:
            raise refuse(f"a pair is not a subnet: {error.what}") from error
