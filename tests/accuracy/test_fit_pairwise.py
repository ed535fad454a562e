"""Fitting pairwise models (about 3 s): what is a sum over pairs is found, and the file holds it."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log2
from pathlib import Path

import numpy as np
import pytest
from tiny_space import tiny_space

from edgeofa.accuracy.fit import fit_accuracy
from edgeofa.accuracy.fit_pairwise import fit_pairwise
from edgeofa.accuracy.load import load_model
from edgeofa.accuracy.measure import sample_subnets
from edgeofa.accuracy.refit import refit
from edgeofa.errors import UsageError
from edgeofa.spaces import load_space
from edgeofa.spaces.space import Subnet


def truth(subnet: Subnet) -> float:
    """A pair of wide neighbours is worth less than each by itself."""
    layers = [layer for stage in subnet.stages for layer in stage]
    score = 1.5 + 0.02 * subnet.resolution
    score += sum(0.1 * log2(x.expand) + 0.02 * x.kernel for x in layers)
    score -= sum(0.5 * (log2(a.expand) - 2) * (log2(b.expand) - 2) for a, b in pairwise(layers))
    return 1 - exp(-score)


def test_pairs_are_found_that_an_additive_model_misses(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    pairs = [(s, truth(s)) for s in sample_subnets(space, 160, 0)]
    fitted = fit_pairwise(space, pairs, 5000, "made up")
    additive = fit_accuracy(space, pairs, 5000, "made up").content.cross_validation
    assert fitted.points < 0.5 * additive.additive_points
    assert fitted.tau > 0.97
    assert fitted.model.error == fitted.points / 100
    file = tmp_path / "pairwise.json"
    file.write_text(fitted.model.content.model_dump_json())
    fresh = sample_subnets(space, 60, 9)
    predicted = load_model(file, space).rerank(fresh)
    assert np.abs(predicted - np.array([truth(s) for s in fresh])).mean() < 0.01


def test_a_bundle_is_fitted_again(tmp_path: Path) -> None:
    space = load_space("cifar_micro")
    found = refit(space, "pairwise", tmp_path / "pairwise.json", None, None)
    assert found.pairs >= 200
    assert 0 < found.points < 2
    assert found.tau > 0.6
    model = load_model(found.file, space)
    assert 0.5 < model.accuracy(space.smallest(20)) < model.accuracy(space.largest(32)) < 1
    with pytest.raises(UsageError, match="no kind of accuracy model: 'cubic'"):
        refit(space, "cubic", tmp_path / "x.json", None, None)
    with pytest.raises(UsageError, match="on how many images"):
        refit(space, "additive", tmp_path / "x.json", tmp_path / "journal.jsonl", None)
    with pytest.raises(UsageError, match="0 measured subnets"):
        refit(space, "pairwise", tmp_path / "x.json", tmp_path / "journal.jsonl", 100)
