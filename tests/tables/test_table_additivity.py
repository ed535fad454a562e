from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgeofa.errors import UsageError
from edgeofa.tables.additivity import fit_additivity, spearman_correlation


def noisy(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(2, 100, n)
    return x, (0.5 + 1.1 * x) * (1 + noise * rng.standard_normal(n))


def test_an_exact_line_is_found() -> None:
    x, y = noisy(20, 0.0)
    fit = fit_additivity(x.tolist(), y.tolist())
    assert fit.a_ms == pytest.approx(0.5, abs=1e-6)
    assert fit.b == pytest.approx(1.1, abs=1e-8)
    assert fit.mape_percent == pytest.approx(0, abs=1e-6)
    assert fit.spearman == pytest.approx(1)
    assert (fit.within_10_percent, fit.subnets) == (1, 20)


def test_one_disturbed_network_does_not_bend_the_line() -> None:
    x, y = noisy(30, 0.005)
    y[np.argmax(x)] *= 1.8
    fit = fit_additivity(x.tolist(), y.tolist())
    assert fit.b == pytest.approx(1.1, rel=0.01)
    assert fit.a_ms == pytest.approx(0.5, abs=0.1)


def test_the_margin_covers_nineteen_of_twenty_new_networks() -> None:
    covered = []
    for seed in range(12):
        x, y = noisy(30, 0.03, seed)
        fit = fit_additivity(x.tolist(), y.tolist())
        new_x, new_y = noisy(200, 0.03, 1000 + seed)
        covered.append(np.mean([fit.plan_ms(a) >= b for a, b in zip(new_x, new_y, strict=True)]))
    assert 0.88 < np.mean(covered) < 0.99


def test_plan_and_budget_are_inverse() -> None:
    x, y = noisy(30, 0.03)
    fit = fit_additivity(x.tolist(), y.tolist())
    assert fit.q95_percent > 0
    assert fit.plan_ms(fit.sum_budget_ms(20.0)) == pytest.approx(20.0)


def test_equal_sums_fit_a_scale_only() -> None:
    fit = fit_additivity([10.0] * 6, [11.0, 11.1, 10.9, 11.0, 11.0, 11.0])
    assert fit.a_ms == 0
    assert fit.b == pytest.approx(1.1, rel=0.01)


def test_spearman_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 8, 25).astype(float), rng.integers(0, 8, 25).astype(float)
        assert spearman_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman_correlation(np.ones(5), np.arange(5.0)) == 0


@pytest.mark.parametrize(
    ("sums", "whole"),
    [([1.0] * 4, [1.0] * 4), ([1.0] * 5, [1.0] * 4 + [0.0]), ([float("nan")] * 5, [1.0] * 5)],
)
def test_nonsense_is_refused(sums: list[float], whole: list[float]) -> None:
    with pytest.raises(UsageError):
        fit_additivity(sums, whole)
