"""Problems whose scores are a linear model of something that is not linear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeofa.accuracy.mlp import MlpAccuracy
from edgeofa.solver.choices import Choices, Floats, RowFeatures
from edgeofa.solver.problem import Ints, Problem

#: networks whose average a predictor is made linear at
_AVERAGED = 256
_UNIT = 2.0**-40
_RIDGE = 1.0


def linear_problem(
    choices: Choices, rows: Ints | None = None, values: Floats | None = None
) -> Problem:
    """The problem scored by a linear model of its objective.

    With ``rows`` and their ``values`` by ridge regression on them. Without, a predictor that is a
    network by its gradient at the average subnet of each resolution, any other model by its own
    scores. Scores compare networks of one context only.
    """
    if rows is not None and values is not None:
        return scored(choices, _regression(choices, rows, values))
    model = choices.problem.accuracy
    if isinstance(model, MlpAccuracy):
        return scored(choices, _gradient(choices, RowFeatures(choices, model)))
    return choices.problem


def scored(choices: Choices, scores: Floats) -> Problem:
    """The problem with (contexts, positions, options) scores, rounded to units of 2**-40."""
    units = np.rint(scores / _UNIT).astype(np.int64)
    arcs = []
    for arc in choices.problem.arcs:
        position = int(choices.position[arc.edge])
        given = np.zeros_like(arc.scores)
        if position >= 0:
            given = units[:, position][:, arc.options]
        arcs.append(replace(arc, scores=given))
    return replace(
        choices.problem,
        arcs=tuple(arcs),
        fixed_scores=np.zeros_like(choices.problem.fixed_scores),
        score_unit=_UNIT,
    )


def _gradient(choices: Choices, features: RowFeatures) -> Floats:
    sample = choices.sample(np.random.default_rng(0), _AVERAGED)
    x = np.repeat(features.encode(sample).mean(axis=0)[None], len(choices.costs), axis=0)
    x[:, features.resolution] = 0
    x[np.arange(len(x)), features.resolution] = 1
    slopes = features.model.network.single.gradient(x)
    padded = np.concatenate([slopes, np.zeros((len(x), 1))], axis=1)
    scores: Floats = padded[:, features.columns].sum(axis=-1)[:, :, :-1]
    return scores


def _regression(choices: Choices, rows: Ints, values: Floats) -> Floats:
    """One effect a context and one an option (all contexts alike), relative to the mean."""
    contexts, width = len(choices.costs), choices.costs.shape[2]
    x = np.zeros((len(rows), contexts + choices.positions * width))
    at = np.arange(len(rows))
    x[at, rows[:, 0]] = 1
    where = contexts + np.arange(choices.positions) * width + rows[:, 1:] % width
    x[at[:, None], where] = 1
    level = float(values.mean())
    slopes = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (values - level))
    effects = slopes[contexts:].reshape(choices.positions, width)
    # an option is worth what it gives over not being passed
    worth = effects[:, :-1] - effects[:, -1:]
    scores: Floats = np.broadcast_to(worth, (contexts, *worth.shape))
    return scores
