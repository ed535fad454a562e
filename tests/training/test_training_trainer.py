"""Training: it learns, stops and resumes exactly; what it writes is checked; bundles come out."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_space import tiny_space
from training_world import RECIPE, coloured, weights

from edgeofa.accuracy.fit import fit_accuracy
from edgeofa.accuracy.measure import sample_subnets
from edgeofa.elastic.checkpoint import load_supernet
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Space, load_space
from edgeofa.training.card import make_card, write_card
from edgeofa.training.fast import fast_path
from edgeofa.training.imagenet import load_lite0
from edgeofa.training.publish import CalibrationCost, Facts, SubnetResult, export_weights, judge
from edgeofa.training.recalibrate import subnet_accuracy
from edgeofa.training.recipe import recipe_for
from edgeofa.training.session import alone, seconds_until
from edgeofa.training.state import Progress, read_progress
from edgeofa.training.synthesize import Nearness, nearness, synthesize
from edgeofa.training.trainer import Budget, Trainer


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return tiny_space(tmp_path)


def trainer(space: Space, out: Path, **changes: object) -> Trainer:
    torch.manual_seed(0)
    recipe = dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]
    lines: list[str] = []
    return Trainer(space, recipe, coloured(128, 1), coloured(64, 2), out, log=lines.append)


def test_a_resumed_training_equals_an_uninterrupted_one(space: Space, tmp_path: Path) -> None:
    whole = trainer(space, tmp_path / "whole")
    whole.run(Budget(steps=4))
    part = trainer(space, tmp_path / "part")
    part.run(Budget(steps=4, seconds=1e9, stop_at_step=2))
    assert part.progress.step == 2
    again = trainer(space, tmp_path / "part")
    assert again.resume()
    again.run(Budget(steps=4))
    assert again.progress.step == 4
    assert torch.equal(weights(again), weights(whole))
    assert again.progress.passes == whole.progress.passes == 4 * 16 * 3


def test_training_learns(space: Space, tmp_path: Path) -> None:
    t = trainer(space, tmp_path, average=0.8, batch=32)
    t.run(Budget(steps=24))
    subnet = space.largest(8)
    images = coloured(100, 3)
    accuracy = subnet_accuracy(t.average, subnet, t.train.pixels, images)
    assert accuracy > 0.6  # four classes: chance is 0.25


def test_weights_are_exported_and_read_back(tmp_path: Path) -> None:
    space = load_space("cifar_micro")
    if fast_path(space) is None:
        pytest.skip("the kernels cannot be built here (no C compiler, or no AVX2)")
    t = trainer(space, tmp_path)
    t.save()
    path = tmp_path / "bundle" / "weights.safetensors"
    assert export_weights(t.state_path, space, t.train.pixels[:16], path) == t.progress
    supernet = load_supernet(path)
    assert torch.allclose(supernet.head.weight, t.average.head.weight, atol=1e-3)
    # the largest subnet's statistics, not those of the initialisation
    assert (supernet.head.norm.get_buffer("running_var") - 1).abs().min() > 0.01


def test_a_supernet_is_judged(space: Space, tmp_path: Path) -> None:
    t = trainer(space, Path("unused"))
    made = coloured(16, 9).pixels
    facts = judge(t.supernet, made, t.train, coloured(24, 3), tmp_path, recalibration_images=24)
    assert facts == judge(t.supernet, made, t.train, coloured(24, 3), tmp_path, 24)
    roles = [r.role for r in facts.results]
    assert roles[:3] == ["largest", "smallest", "random 0"]
    assert len(roles) == 22
    assert all(0 <= r.accuracy <= 1 for r in facts.results)
    assert sum(r.accuracy_synthetic is not None for r in facts.results) == 10
    assert (facts.calibration.real_images, facts.calibration.synthetic_images) == (24, 16)
    assert facts.calibration.mean_points <= facts.calibration.worst_points
    assert facts.nearness.smallest_distance > 0


def test_synthetic_statistics_come_closer_to_the_real_ones(space: Space) -> None:
    if fast_path(space) is None:
        pytest.skip("the kernels cannot be built here (no C compiler, or no AVX2)")
    t = trainer(space, Path("unused"))
    lines: list[str] = []
    images = coloured(24, 5).pixels
    synthesize(t.supernet, images, count=16, steps=240, log=lines.append)
    found = [float(line.rsplit(" ", 1)[1]) for line in lines if "mismatch" in line]
    assert len(found) >= 2
    assert found[-1] < 0.7 * found[0]


def test_nearness_finds_a_copy_and_a_mirrored_one() -> None:
    training = coloured(50, 7).pixels
    assert nearness(training[7:9], training).smallest_distance < 0.1
    mirrored = nearness(training[3:4].flip(2), training)
    assert mirrored.largest_correlation > 0.999
    far = nearness(255 - training[:4], training)
    assert far.smallest_distance > 5


def test_a_refinement_starts_from_the_average_and_carries_the_costs(
    space: Space, tmp_path: Path
) -> None:
    first = trainer(space, tmp_path / "first", average=0.5)
    first.run(Budget(steps=3))
    second = trainer(space, tmp_path / "second")
    second.start_from(first.state_path)
    assert torch.equal(weights(second), weights(first))
    assert (second.progress.step, second.progress.images) == (0, first.progress.images)
    assert second.progress.earlier_s == first.progress.elapsed_s
    second.run(Budget(steps=1))
    assert second.progress.images == first.progress.images + 16
    assert second.progress.cpu_s > first.progress.cpu_s


def test_a_card_states_the_figures(space: Space, tmp_path: Path) -> None:
    facts = Facts(
        test_images=400,
        results=(
            SubnetResult("largest", str(space.largest()), 3_000_000, 0.9, None),
            SubnetResult("random 0", str(space.smallest()), 1_000_000, 0.64, 0.62),
        ),
        calibration=CalibrationCost(1, 2000, 256, 2.0, 2.0),
        nearness=Nearness(30.0, 50.0, 0.8, 0.5),
        nearness_test=Nearness(17.0, 41.0, 0.97, 0.7),
    )
    rng = np.random.default_rng(0)
    pairs = [(s, float(rng.uniform(0.5, 0.9))) for s in sample_subnets(space, 60, 0)]
    accuracy = fit_accuracy(space, pairs, 500, "made up")
    progress = Progress(step=7, images=90_000, cpu_s=10, passes=270_000, macs=2e12)
    recipes = [RECIPE, dataclasses.replace(RECIPE, rate=0.01)]
    write_card(make_card(space, recipes, progress, facts, accuracy, 45_000), accuracy, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["training"]["epochs"] == 2
    assert [r["rate"] for r in card["training"]["recipes"]] == [0.05, 0.01]
    assert card["accuracy"][1]["accuracy_synthetic"] == 0.62
    text = (tmp_path / "card.md").read_text()
    for figure in ("90,000 images", "(2.0 epochs)", "| 64.00% | 62.00% |", "2.00 points", "30.0"):
        assert figure in text
    assert "then refined" in text


def test_broken_states_are_refused(space: Space, tmp_path: Path) -> None:
    t = trainer(space, tmp_path)
    assert not t.resume()
    with pytest.raises(MissingMaterial):
        read_progress(t.state_path, space.name)
    t.save()
    with pytest.raises(FileFormatError, match="cifar_lite"):
        read_progress(t.state_path, "cifar_lite")
    t.state_path.write_bytes(t.state_path.read_bytes()[:2000])
    with pytest.raises(FileFormatError, match="not a training state"):
        t.resume()


def test_the_state_of_another_training_is_refused(space: Space, tmp_path: Path) -> None:
    t = trainer(space, tmp_path)
    t.save()
    assert trainer(space, tmp_path).resume()
    with pytest.raises(FileFormatError, match="its recipe is"):
        trainer(space, tmp_path, rate=0.06).resume()
    seeded = trainer(space, tmp_path)
    seeded.seed = 1
    with pytest.raises(FileFormatError, match="its seed is 0, not 1"):
        seeded.resume()
    other = trainer(space, tmp_path)
    other.train = coloured(128, 3)
    with pytest.raises(FileFormatError, match="its data is"):
        other.resume()
    # the states of the first trainings do not say it: they are taken, with a line that says so
    content = torch.load(t.state_path, weights_only=True)
    del content["run"]
    torch.save(content, t.state_path)
    lines: list[str] = []
    old = trainer(space, tmp_path)
    old.log = lines.append
    assert old.resume()
    assert "does not say which recipe" in lines[0]


def test_one_training_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path / "out"):
        with pytest.raises(UsageError, match="another training"), alone(tmp_path / "out"):
            pass
        with alone(tmp_path / "other"):
            pass
    with alone(tmp_path / "out"):
        pass


def test_foreign_imagenet_weights_are_refused(tmp_path: Path) -> None:
    from edgeofa.elastic.supernet import Supernet

    path = tmp_path / "weights.pth"
    torch.save({"_conv_stem.weight": torch.zeros(3)}, path)
    with pytest.raises(FileFormatError, match=r"_conv_stem\.weight is of shape \[3\]"):
        load_lite0(Supernet(load_space("cifar_lite")), path)


def test_recipes_cover_their_spaces() -> None:
    for name in ("cifar_lite", "cifar_micro", "ofa_mbv3"):
        space = load_space(name)
        recipe = recipe_for(space)
        assert [p.until for p in recipe.phases] == sorted(p.until for p in recipe.phases)
        assert recipe.phases[-1].until == 1.0
        assert set(recipe.resolutions_at(1.0)) == set(space.resolutions)
        for phase in recipe.phases:
            assert sum(phase.resolutions.values()) == pytest.approx(1)
    refinement = recipe_for(load_space("ofa_mbv3"), refine=True)
    assert refinement.alone == 0


@pytest.mark.parametrize(
    ("clock", "expected"), [("23:30", 1800.0), ("22:00", 23 * 3600.0), ("23:00", 24 * 3600.0)]
)
def test_until_is_the_next_such_time(clock: str, expected: float) -> None:
    assert seconds_until(clock, datetime(2026, 1, 31, 23, 0)) == expected


def test_until_refuses_nonsense() -> None:
    with pytest.raises(UsageError, match="not a time of day"):
        seconds_until("25:99", datetime(2026, 1, 31, 23, 0))
