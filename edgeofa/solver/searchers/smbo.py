"""Sequential model-based optimisation: guess by a surrogate, look at the best guess, learn.

The surrogate is Bayesian linear regression on which option each position has (one weight an option,
one a context), whose posterior gives a mean and a variance; candidates, some of them random and
most neighbours of the best, are ranked by expected improvement (Jones et al. 1998). DeepArchitect's
SMBO ranks by ridge regression, which is this one's mean. Sums are updated with every batch, so that
the cost of a step does not grow with the number of calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, pi, sqrt
from typing import ClassVar

import numpy as np

from edgeofa.solver.choices import Choices, Floats
from edgeofa.solver.problem import Ints
from edgeofa.solver.searchers.base import Search, Searcher

_ERF = np.vectorize(erf, otypes=[np.float64])


@dataclass(frozen=True)
class ModelBasedSearch(Searcher):
    """Expected improvement over a Bayesian linear surrogate.

    Args:
        first: random subnets before the first guess.
        candidates: guesses that each step chooses from (DeepArchitect draws 50).
        random_share: of them, drawn anew; the others are a change away from one of the best.
        batch: how many of them are looked at before the surrogate learns.
        ridge: prior precision of the weights relative to the noise.
    """

    name: ClassVar[str] = "smbo"
    first: int = 100
    candidates: int = 100
    random_share: float = 0.1
    batch: int = 20
    ridge: float = 1.0

    def run(self, search: Search) -> None:
        surrogate = _Surrogate(search.choices, self.ridge)
        rows = search.random_rows(min(self.first, search.left))
        values = search.evaluate(rows)
        surrogate.learn(rows, values)
        elite = [rows[n] for n in np.argsort(-values)[: self.batch]]
        scores = sorted(values.tolist(), reverse=True)[: self.batch]
        seen = {row.tobytes() for row in rows}
        drawn_each = round(self.random_share * self.candidates)
        while search.left:
            near = [
                search.mutant(elite[int(search.rng.integers(len(elite)))])
                for _ in range(self.candidates - drawn_each)
            ]
            drawn = search.random_rows(drawn_each)
            guesses = np.concatenate([np.array(near), drawn])
            fresh = np.array([row.tobytes() not in seen for row in guesses])
            guesses = guesses[fresh] if fresh.any() else guesses
            promise = surrogate.expected_improvement(guesses, scores[0])
            rows = guesses[np.argsort(-promise, kind="stable")[: self.batch]]
            values = search.evaluate(rows)
            rows = rows[: len(values)]
            surrogate.learn(rows, values)
            seen.update(row.tobytes() for row in rows)
            pool = sorted(
                [*zip(scores, elite, strict=True), *zip(values.tolist(), rows, strict=True)],
                key=lambda pair: -pair[0],
            )[: self.batch]
            scores, elite = [s for s, _ in pool], [row for _, row in pool]


class _Surrogate:
    """Bayesian linear regression from sums that are kept up to date."""

    def __init__(self, choices: Choices, ridge: float):
        self._width = choices.costs.shape[2]
        self._positions = choices.positions
        contexts = len(choices.costs)
        self._features = 1 + contexts + self._positions * self._width
        self._gram = ridge * np.eye(self._features)
        self._moment = np.zeros(self._features)
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        self._first = 1 + contexts

    def _encode(self, rows: Ints) -> Floats:
        x = np.zeros((len(rows), self._features))
        x[:, 0] = 1
        at = np.arange(len(rows))
        x[at, 1 + rows[:, 0]] = 1
        picks = rows[:, 1:] % self._width  # "not passed" is the last option
        x[at[:, None], self._first + np.arange(self._positions) * self._width + picks] = 1
        return x

    def learn(self, rows: Ints, values: Floats) -> None:
        x = self._encode(rows)
        self._gram += x.T @ x
        self._moment += x.T @ values
        self._count += len(values)
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())

    def expected_improvement(self, rows: Ints, best: float) -> Floats:
        """How much each row is expected to exceed ``best``."""
        x = self._encode(rows)
        inverse = np.linalg.inv(self._gram)
        weights = inverse @ self._moment
        explained = float(self._moment @ weights)
        noise = max(self._squares - explained, 1e-12) / max(self._count - 1, 1)
        mean = x @ weights
        deviation = np.sqrt(noise * (1 + np.einsum("nf,fg,ng->n", x, inverse, x, optimize=True)))
        z = (mean - best) / deviation
        density = np.exp(-(z**2) / 2) / sqrt(2 * pi)
        below = (1 + _ERF(z / sqrt(2))) / 2
        result: Floats = deviation * (z * below + density)
        return result
