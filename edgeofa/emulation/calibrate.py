"""Fits a core's latency model to published measurements of a real board, and judges it.

The measurements are FBNet's blocks on a Raspberry Pi 4: float32, TFLite's own kernels, one
thread, 32x32 images, each relative to its layer's skip. A block is a 1x1 convolution to ``expand``
times the channels, a depthwise convolution, and a 1x1 convolution, with ReLU after the first two
and an addition where stride and channels allow. Used are the layers whose skip is the identity:
there the row is the block's own time. In the others it is a difference of two times, one of them
not published, and grouped rows contain splits and shuffles that the graph does not have.

Two constants are fitted, by weighted least squares on the relative error, and judged on shapes
(layers) that the fit did not see: each layer's blocks are predicted by a fit to all other layers.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeofa.emulation.model import CoreModel, latency, region_cost
from edgeofa.emulation.trace import Region
from edgeofa.errors import FileFormatError
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph

_MAX_FILE_BYTES = 1 << 20
_MAX_ROWS = 10_000
_INTEGERS = ("height", "cin", "cout", "expand", "kernel", "stride", "groups", "macs")
_MS = "rpi4_ms_minus_skip"
_PIPELINES = tuple(round(0.8 + 0.02 * step, 2) for step in range(41))

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class FbnetBlock:
    """One row: shape, multiply-accumulates, and the measured milliseconds."""

    height: int
    cin: int
    cout: int
    expand: int
    kernel: int
    stride: int
    groups: int
    macs: int
    ms: float

    @property
    def layer(self) -> tuple[int, int, int, int]:
        """The shape that a layer's alternatives share."""
        return self.height, self.cin, self.cout, self.stride

    @property
    def is_usable(self) -> bool:
        return self.groups == 1 and self.stride == 1 and self.cin == self.cout

    @property
    def name(self) -> str:
        return f"{self.height}x{self.height}x{self.cin}-e{self.expand}-k{self.kernel}"

    @property
    def tensor_bytes(self) -> float:
        """Float32 bytes of weights and of every activation written or read."""
        middle = self.cin * self.expand
        weights = middle * (self.cin + self.cout + self.kernel**2)
        pixels = self.height**2
        return 4.0 * (weights + pixels * (2 * self.cin + 4 * middle + 3 * self.cout))


@dataclass(frozen=True)
class Sample:
    """A measured block and what its emulation executed."""

    block: FbnetBlock
    region: Region
    operators: int


@dataclass(frozen=True)
class Score:
    """Errors of one way to predict: mean absolute relative error, Spearman's rank correlation,
    and the 95% quantile of the absolute relative error."""

    name: str
    fitted: int
    mape: float
    spearman: float
    q95: float


@dataclass(frozen=True)
class Calibration:
    """The fitted model and how it and the alternatives do; ``predicted_ms`` are the predictions
    of unseen layers in the order of ``samples``."""

    model: CoreModel
    scores: tuple[Score, ...]
    blocks: tuple[str, ...]
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]


def read_blocks(path: Path) -> tuple[FbnetBlock, ...]:
    """The distinct usable rows of the CSV file, in its order; ``FileFormatError`` if foreign."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise FileFormatError("larger than a table of blocks can be", where=path)
    blocks: dict[FbnetBlock, None] = {}
    with path.open(encoding="utf-8", newline="") as file:
        try:
            for number, row in enumerate(csv.DictReader(file), 2):
                if number > _MAX_ROWS:
                    raise FileFormatError("too many rows", where=path)
                block = FbnetBlock(**{k: int(row[k]) for k in _INTEGERS}, ms=float(row[_MS]))
                if not (0 < block.ms < 1e6 and min(block.layer) > 0 and block.macs > 0):
                    raise FileFormatError(f"line {number}: values out of range", where=path)
                if block.is_usable:
                    blocks[block] = None
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise FileFormatError(f"not the table of FBNet blocks: {error}", where=path) from error
    if len({block.layer for block in blocks}) < 3:
        raise FileFormatError("fewer than three layers that can be used", where=path)
    return tuple(blocks)


def block_graph(block: FbnetBlock) -> Graph:
    """The block as a graph with fixed pseudo-random weights, checked against the row's MACs."""
    random = np.random.default_rng(0)
    middle, kernel = block.cin * block.expand, block.kernel

    def weight(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    builder = GraphBuilder(block.name, (1, block.height, block.height, block.cin))
    x = builder.input
    y = builder.conv2d(x, weight(middle, 1, 1, block.cin), weight(middle), activation="relu")
    y = builder.depthwise_conv2d(
        y, weight(1, kernel, kernel, middle), weight(middle), activation="relu"
    )
    y = builder.conv2d(y, weight(block.cout, 1, 1, middle), weight(block.cout))
    y = builder.add(y, x)
    macs = block.height**2 * middle * (block.cin + block.cout + kernel**2)
    if macs != block.macs:
        raise FileFormatError(f"{block.name} has {macs} MACs, its row says {block.macs}")
    return builder.build(y)


def calibrate(
    model: CoreModel, clock_hz: float, samples: Sequence[Sample], prices: Mapping[str, float]
) -> Calibration:
    """Fit ``pipeline`` and ``operator_ms`` of ``model`` and set its ``error``.

    ``prices`` are llvm-mca's for every block of the samples.
    """
    measured = np.array([s.block.ms for s in samples])
    layers = [s.block.layer for s in samples]
    operators = np.array([float(s.operators) for s in samples])
    work = {p: _milliseconds(model, p, clock_hz, samples, prices) for p in _PIPELINES}

    def fitted(seen: NDArray[np.bool_]) -> tuple[float, float]:
        return _fit(work, operators, measured, seen)

    def unseen(seen: NDArray[np.bool_]) -> Vector:
        pipeline, operator_ms = fitted(seen)
        return work[pipeline] + operator_ms * operators

    predicted = _leave_one_out(layers, unseen)
    nothing = work[1.0]
    scores = [_score("llvm-mca and caches", 0, nothing, measured)]
    for name, columns in _baselines(model, clock_hz, samples, prices).items():

        def baseline(seen: NDArray[np.bool_], columns: Vector = columns) -> Vector:
            scaled = columns[seen] / measured[seen, None]
            constants = np.linalg.lstsq(scaled, np.ones(len(scaled)), rcond=None)[0]
            return np.asarray(columns @ constants)

        scores.append(_score(name, columns.shape[1], _leave_one_out(layers, baseline), measured))
    best = _score("llvm-mca and caches, fitted", 2, predicted, measured)
    pipeline, operator_ms = fitted(np.ones(len(measured), dtype=bool))
    return Calibration(
        model=dataclasses.replace(
            model, pipeline=pipeline, operator_ms=round(operator_ms, 4), error=round(best.q95, 2)
        ),
        scores=(*scores, best),
        blocks=tuple(s.block.name for s in samples),
        measured_ms=tuple(measured.tolist()),
        predicted_ms=tuple(predicted.tolist()),
    )


def _milliseconds(
    model: CoreModel,
    pipeline: float,
    clock_hz: float,
    samples: Sequence[Sample],
    prices: Mapping[str, float],
) -> Vector:
    """Everything but the operators' own cost."""
    trial = dataclasses.replace(model, pipeline=pipeline)
    costs = [region_cost(s.region, prices, trial) for s in samples]
    return np.array([latency(trial, cost, clock_hz, 0).ms for cost in costs])


def _fit(
    work: Mapping[float, Vector], operators: Vector, measured: Vector, seen: NDArray[np.bool_]
) -> tuple[float, float]:
    """(pipeline, operator_ms) of the least squared relative error over the blocks ``seen``."""
    best: tuple[float, float, float] | None = None
    column = operators[seen] / measured[seen]
    for pipeline, milliseconds in work.items():
        rest = 1 - milliseconds[seen] / measured[seen]
        operator_ms = max(float(column @ rest) / float(column @ column), 0.0)
        loss = float(np.sum((rest - operator_ms * column) ** 2))
        if best is None or loss < best[0]:
            best = loss, pipeline, operator_ms
    if best is None:
        raise ValueError("no pipeline factors to choose from")
    return best[1], best[2]


def _baselines(
    model: CoreModel, clock_hz: float, samples: Sequence[Sample], prices: Mapping[str, float]
) -> dict[str, Vector]:
    """Columns of the simpler models that the chosen one has to beat."""
    macs = np.array([float(s.block.macs) for s in samples])
    tensor_bytes = np.array([s.block.tensor_bytes for s in samples])
    # one 128-bit multiply-accumulate a cycle; the model's own DRAM bandwidth
    roofline = np.maximum(macs / 4, tensor_bytes / 64 * model.lines.dram_stream) * 1e3 / clock_hz
    instructions = np.array([float(s.region.instructions) for s in samples]) * 1e3 / clock_hz
    costs = [region_cost(s.region, prices, model) for s in samples]
    waiting = np.array([c.l2 + c.dram for c in costs]) * 1e3 / clock_hz
    operators = np.array([float(s.operators) for s in samples])
    return {
        "roofline": roofline[:, None],
        "MACs and bytes": np.stack([macs, tensor_bytes], axis=1),
        "instructions and caches": np.stack([instructions, waiting, operators], axis=1),
    }


def _leave_one_out(
    layers: Sequence[tuple[int, int, int, int]], predict: Callable[[NDArray[np.bool_]], Vector]
) -> Vector:
    """Predictions for each layer by ``predict(mask of the other layers)``."""
    predicted = np.zeros(len(layers))
    for layer in dict.fromkeys(layers):
        seen = np.array([other != layer for other in layers])
        predicted[~seen] = predict(seen)[~seen]
    return predicted


def _score(name: str, fitted: int, predicted: Vector, measured: Vector) -> Score:
    error = np.abs(predicted / measured - 1)
    ranks = np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1]
    return Score(name, fitted, float(error.mean()), float(ranks), float(np.quantile(error, 0.95)))


def _ranks(values: Vector) -> Vector:
    """Ranks from 0, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])
