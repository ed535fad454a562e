"""Ranges of activations over calibration images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.reference import steps

Method = Literal["minmax", "percentile", "mse"]
#: (low, high) of each tensor, by number
Ranges = tuple[tuple[float, float], ...]

_BATCH = 8
_BINS = 2048
#: a histogram looks at no more than about this many values of a tensor in a batch
_SAMPLE = 1 << 17
_TAIL = 1e-4
#: fractions of the full range that the MSE search tries
_SHRINK = np.geomspace(0.02, 1.0, 100)


def batches(graph: Graph, images: Iterable[Array]) -> Iterator[Array]:
    """Images, or batches of any size, as small NHWC float32 batches."""
    for image in images:
        block = np.asarray(image, dtype=np.float32)
        if block.ndim == len(graph.input_tensor.shape) - 1:
            block = block[np.newaxis]
        for i in range(0, len(block), _BATCH):
            yield block[i : i + _BATCH]


def calibrate(graph: Graph, images: Iterable[Array], method: Method = "minmax") -> Ranges:
    """Range of every tensor of a float32 graph.

    ``minmax`` is the plain minimum and maximum. ``percentile`` cuts 0.01% of the values from each
    end. ``mse`` picks, among 100 shrunken ranges, the one whose int8 rounding and clipping error
    is least. The latter two build histograms in a second pass over the images.

    Args:
        images: NHWC float32 arrays, each one image or a batch, preprocessed.
    """
    if method not in get_args(Method):
        raise UsageError(f"unknown method {method!r}", hint=f"one of {get_args(Method)}")
    if graph.precision != "float32":
        raise UsageError("only a float32 graph can be calibrated", where=graph.name)
    blocks = list(batches(graph, images))
    if not blocks:
        raise UsageError("no calibration images", where=graph.name)
    low = np.full(len(graph.tensors), np.inf)
    high = np.full(len(graph.tensors), -np.inf)
    for batch in blocks:
        for number, value in steps(graph, batch):
            low[number] = min(low[number], float(value.min()))
            high[number] = max(high[number], float(value.max()))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        worst = int(np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))[0])
        raise UsageError(
            f"activations of {graph.tensors[worst].name} are not finite", where=graph.name
        )
    full = tuple(zip(low.tolist(), high.tolist(), strict=True))
    if method == "minmax":
        return full
    counts = _histograms(graph, blocks, full)
    pick = _percentile if method == "percentile" else _least_error
    return tuple(
        bounds if bounds[1] <= bounds[0] else pick(row, bounds)
        for row, bounds in zip(counts, full, strict=True)
    )


def _histograms(graph: Graph, blocks: list[Array], full: Ranges) -> Array:
    counts = np.zeros((len(full), _BINS), dtype=np.int64)
    for batch in blocks:
        for number, value in steps(graph, batch):
            low, high = full[number]
            if high <= low:
                continue
            # an odd step never falls in with an even number of channels
            stride = (value.size // _SAMPLE) | 1
            flat = value.reshape(-1)[::stride]
            bins = ((flat - low) * (_BINS / (high - low))).astype(np.int64)
            counts[number] += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
    return counts


def _percentile(counts: Array, bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    width = (high - low) / _BINS
    cumulative = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(cumulative, _TAIL, side="right"))
    last = int(np.searchsorted(cumulative, 1 - _TAIL, side="left"))
    return low + first * width, low + (last + 1) * width


def _least_error(counts: Array, bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    centres = bounds[0] + (np.arange(_BINS) + 0.5) * ((bounds[1] - bounds[0]) / _BINS)
    best, least = bounds, np.inf
    for shrink in _SHRINK:
        a, b = low * shrink, high * shrink
        scale = (b - a) / 255
        rounded = np.clip(np.rint((centres - a) / scale), 0, 255) * scale + a
        error = float((counts * np.square(rounded - centres)).sum())
        if error < least:
            best, least = (float(a), float(b)), error
    return best
