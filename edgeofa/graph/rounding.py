"""Rounding of weights that looks at what the weights are multiplied with.

Rounding each weight to the nearest step is best only where inputs are independent. Those of a
trained network are not, least of all on smooth images, where neighbouring pixels are nearly equal
and errors of the same sign add up. Here the weights of an output are rounded one after the other,
and the error of each is made up for by those still to come, as well as the inputs' covariance
allows: the optimal brain quantiser in the blocked form of Frantar et al. 2022, "GPTQ". What stays
is orthogonal to the inputs as far as possible; its mean goes into the bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgeofa.graph.calibration import batches
from edgeofa.graph.ir import Array, Graph, Op
from edgeofa.graph.ops import window_size
from edgeofa.graph.reference import steps
from edgeofa.graph.windows import pad_image, windows

#: share of the mean variance that is added to each input's own, for what the samples do not show
_DAMPING = 0.01
_BLOCK = 32
#: input rows that an operator's covariance is taken from, in all and for each of its inputs
_LEAST_ROWS, _ROWS_PER_INPUT = 1024, 2
_DEPTHWISE_ROWS = 512


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Mean and covariance of what one output of an operator is summed from.

    ``mean`` is (groups, inputs), ``covariance`` (groups, inputs, inputs): one group for a dense
    operator, one per channel for a depthwise convolution.
    """

    mean: Array
    covariance: Array


class _Sums:
    """Running moments of one operator."""

    def __init__(self, op: Op):
        weight, _ = op.linear
        depthwise = op.kind == "depthwise_conv2d"
        self.op = op
        self.groups = weight.shape[3] if depthwise else 1
        self.inputs = weight.size // weight.shape[3 if depthwise else 0]
        self.rows = 0
        self.first: Array = np.zeros((self.groups, self.inputs))
        self.second: Array = np.zeros((self.groups, self.inputs, self.inputs))
        self.wanted = (
            _DEPTHWISE_ROWS if depthwise else max(_LEAST_ROWS, _ROWS_PER_INPUT * self.inputs)
        )

    def add(self, x: Array, share: float, rng: np.random.Generator) -> None:
        """Take random rows of one batch, its share of those wanted."""
        rows = self._rows(x, max(1, round(self.wanted * share)), rng)
        self.rows += rows.shape[1]
        self.first += rows.sum(axis=1, dtype=np.float64)
        self.second += rows.transpose(0, 2, 1) @ rows

    def _rows(self, x: Array, count: int, rng: np.random.Generator) -> Array:
        """(groups, rows, inputs)."""
        if self.op.kind == "fully_connected":
            return x.reshape(1, len(x), -1)
        view = windows(pad_image(x, self.op.pads), window_size(self.op), self.op.stride)
        places = view.shape[:3]
        chosen = np.unravel_index(rng.integers(0, np.prod(places), count), places)
        picked = view[chosen].reshape(count, view.shape[3], -1)
        if self.groups > 1 or self.op.kind == "depthwise_conv2d":
            return picked.transpose(1, 0, 2)
        # OHWI weights: channels last
        return picked.transpose(0, 2, 1).reshape(1, count, -1)

    def moments(self) -> InputMoments:
        mean = self.first / self.rows
        outer = mean[:, :, np.newaxis] * mean[:, np.newaxis, :]
        return InputMoments(mean, self.second / self.rows - outer)


def input_moments(graph: Graph, images: Iterable[Array], seed: int = 0) -> dict[int, InputMoments]:
    """Moments of the inputs of every operator with weights, by the operator's output tensor.

    Args:
        images: NHWC float32 arrays, each one image or a batch.
    """
    rng = np.random.default_rng(seed)
    readers: dict[int, list[_Sums]] = {}
    sums = {op.output: _Sums(op) for op in graph.ops if op.weight is not None}
    for entry in sums.values():
        readers.setdefault(entry.op.inputs[0], []).append(entry)
    blocks = list(batches(graph, images))
    total = sum(len(block) for block in blocks)
    for block in blocks:
        for number, value in steps(graph, block):
            for entry in readers.get(number, []):
                entry.add(value, len(block) / total, rng)
    return {output: entry.moments() for output, entry in sums.items()}


def round_weights(weight: Array, scale: Array, moments: InputMoments) -> tuple[Array, Array]:
    """Integer weights in [-127, 127], and what the bias has to take up.

    Args:
        weight: (outputs, inputs), real.
        scale: one per output.
        moments: of one group (all outputs have the same inputs), or of one group per output.
    """
    if len(moments.mean) == 1:
        stored = _round_dense(weight, scale, moments.covariance[0])
        mean = np.broadcast_to(moments.mean, weight.shape)
    else:
        stored = _round_grouped(weight, scale, moments.covariance)
        mean = moments.mean
    error = weight - stored * scale[:, np.newaxis]
    return stored, (error * mean).sum(axis=1)


def _feedback(covariance: Array) -> Array:
    """Unit upper factor A of the damped covariance, ``A D A^T``; batched.

    How much of the error in an earlier weight a later one has to take over: GPTQ's update written
    without an inverse, as Chee et al. 2023, "QuIP", show it to be.
    """
    size = covariance.shape[-1]
    diagonal = np.diagonal(covariance, axis1=-2, axis2=-1)
    damping = _DAMPING * diagonal.mean(axis=-1) + 1e-12
    damped = covariance + damping[..., np.newaxis, np.newaxis] * np.eye(size)
    # an upper factor is the lower one of the reversed matrix
    upper: Array = np.linalg.cholesky(damped[..., ::-1, ::-1])[..., ::-1, ::-1]
    return np.asarray(upper / np.diagonal(upper, axis1=-2, axis2=-1)[..., np.newaxis, :])


def _nearest(weight: Array, scale: Array) -> Array:
    return np.asarray(np.clip(np.rint(weight / scale), -127, 127))


def _round_dense(weight: Array, scale: Array, covariance: Array) -> Array:
    # inputs that matter most first: the others make up for them
    order = np.argsort(-np.diagonal(covariance), kind="stable")
    feedback = _feedback(covariance[np.ix_(order, order)])
    sorted_weight = weight[:, order]
    errors, stored = np.zeros_like(sorted_weight), np.zeros_like(sorted_weight)
    count = sorted_weight.shape[1]
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        target = sorted_weight[:, start:stop] + errors[:, :start] @ feedback[:start, start:stop]
        for j in range(start, stop):
            owed = errors[:, start:j] @ feedback[start:j, j]
            stored[:, j] = _nearest(target[:, j - start] + owed, scale)
            errors[:, j] = sorted_weight[:, j] - stored[:, j] * scale
    out = np.empty_like(stored)
    out[:, order] = stored
    return out


def _round_grouped(weight: Array, scale: Array, covariance: Array) -> Array:
    feedback = _feedback(covariance)
    errors, stored = np.zeros_like(weight), np.zeros_like(weight)
    for j in range(weight.shape[1]):
        owed = (errors[:, :j] * feedback[:, :j, j]).sum(axis=1)
        stored[:, j] = _nearest(weight[:, j] + owed, scale)
        errors[:, j] = weight[:, j] - stored[:, j] * scale
    return stored
