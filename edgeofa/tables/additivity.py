"""How well a sum of blocks predicts a whole network.

``whole = a + b * sum`` by least squares on relative residuals, ``(a + b * sum - y) / y``, with
Huber weights so that one disturbed network does not bend the line (Huber 1964, threshold 1.345
standard deviations, the usual 95% efficiency). Every error figure is leave-one-out: the network
that is predicted took no part in the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import UsageError
from edgeofa.tables.table import Additivity

#: below this many networks a line has no error figure worth the name
MIN_SUBNETS = 5
_HUBER = 1.345
_ITERATIONS = 20

Vector = NDArray[np.float64]


def fit_additivity(sums_ms: Sequence[float], whole_ms: Sequence[float]) -> Additivity:
    """Fit on pairs (sum of the blocks' latencies, latency of the whole network), in ms.

    ``UsageError`` for fewer than ``MIN_SUBNETS`` pairs or latencies that are not positive.
    """
    x, y = np.asarray(sums_ms, np.float64), np.asarray(whole_ms, np.float64)
    if x.shape != y.shape or len(x) < MIN_SUBNETS:
        raise UsageError(
            f"{len(x)} whole subnets are too few for an additivity fit",
            hint=f"--subnets {MIN_SUBNETS} or more",
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        raise UsageError("additivity fit: latencies must be positive and finite")
    a, b = _line(x, y)
    keep = ~np.eye(len(x), dtype=bool)
    predicted = np.array([_at(_line(x[k], y[k]), x[i]) for i, k in enumerate(keep)])
    mape, spearman, within = error_figures(predicted, y)
    residual = y - predicted
    return Additivity(
        a_ms=a,
        b=b,
        q95_ms=max(0.0, float(np.quantile(residual, 0.95))),
        subnets=len(x),
        mape_percent=mape,
        spearman=spearman,
        within_10_percent=within,
        q95_percent=max(0.0, 100 * float(np.quantile(residual / predicted, 0.95))),
    )


def error_figures(predicted_ms: Vector, whole_ms: Vector) -> tuple[float, float, float]:
    """MAPE in percent, Spearman's rank correlation, and the share within 10% (0 to 1)."""
    error = np.abs(predicted_ms / whole_ms - 1)
    return (
        float(100 * error.mean()),
        spearman_correlation(predicted_ms, whole_ms),
        float((error <= 0.10).mean()),
    )


def spearman_correlation(x: Vector, y: Vector) -> float:
    """Rank correlation, ties given their mean rank; 0 where one side is constant."""
    ranks = [_ranks(v) - (len(v) - 1) / 2 for v in (x, y)]
    norm = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return float(ranks[0] @ ranks[1]) / norm if norm else 0.0


def _ranks(values: Vector) -> Vector:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    return np.asarray((first + (counts - 1) / 2)[place], np.float64)


def _at(line: tuple[float, float], x: float) -> float:
    return line[0] + line[1] * x


def _line(x: Vector, y: Vector) -> tuple[float, float]:
    """(a, b); only b is fitted where the sums are too alike, or where a line would fall."""
    columns = np.stack([1 / y, x / y], axis=1)
    if np.ptp(x) > 0.05 * x.mean():
        a, b = _huber(columns)
        if b > 0:
            return float(a), float(b)
    (b,) = _huber(columns[:, 1:])
    return 0.0, float(b)


def _huber(columns: Vector) -> Vector:
    """Solve ``columns @ p = 1`` by iteratively reweighted least squares."""
    weights = np.ones(len(columns))
    for _ in range(_ITERATIONS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(columns * root[:, None], root, rcond=None)[0]
        residual = np.abs(columns @ solution - 1)
        # the median absolute deviation of a normal distribution is 0.6745 standard deviations
        limit = _HUBER * float(np.median(residual)) / 0.6745
        if limit < 1e-9:
            break
        weights = np.minimum(1.0, limit / np.maximum(residual, 1e-12))
    return np.asarray(solution, np.float64)
