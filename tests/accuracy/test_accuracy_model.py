"""Accuracy models: they recover a known world, add up, and refuse what does not fit."""

from __future__ import annotations

import json
import random
from math import exp, log2
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny_space import tiny_space
from torch import Tensor

from edgeofa.accuracy.features import space_digest, subnet_macs, summary
from edgeofa.accuracy.fit import fit_accuracy, kendall_tau
from edgeofa.accuracy.measure import measure_subnets, read_journal, sample_subnets
from edgeofa.accuracy.model import FittedAccuracy, load_accuracy
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Space, Subnet, load_space
from edgeofa.training.data import Images

_SPACE = load_space("cifar_micro")


def world(subnet: Subnet) -> float:
    """A smooth accuracy with saturation, so that no additive model is exact."""
    work = sum(
        (1 + 0.3 * i) * (log2(x.expand) + 0.2 * x.kernel)
        for i, layers in enumerate(subnet.stages)
        for x in layers
    )
    return 1 - exp(-(0.4 + 0.5 * log2(subnet.resolution / 20) + 0.9 * (1 - exp(-work / 12))))


def noisy(count: int, images: int, seed: int = 0) -> list[tuple[Subnet, float]]:
    rng = np.random.default_rng(seed)
    return [
        (s, float(rng.binomial(images, world(s)) / images))
        for s in sample_subnets(_SPACE, count, seed)
    ]


@pytest.fixture(scope="module")
def model() -> FittedAccuracy:
    return fit_accuracy(_SPACE, noisy(220, 1500), 1500, "a made-up world")


def fresh(count: int) -> list[Subnet]:
    rng = random.Random(99)
    return [_SPACE.sample_by_choice(rng) for _ in range(count)]


def test_both_models_predict_unseen_subnets(model: FittedAccuracy) -> None:
    subnets = fresh(100)
    truth = np.array([world(s) for s in subnets])
    additive = np.array([model.accuracy(s) for s in subnets])
    better = model.rerank(subnets)
    assert np.abs(additive - truth).mean() < 0.012
    assert np.abs(better - truth).mean() < 0.010
    assert kendall_tau(better, truth) > 0.8
    quality = model.content.cross_validation
    assert quality.rerank_points <= quality.additive_points + 0.1
    assert 0.5 < quality.rerank_points < 1.5
    assert 0.8 < quality.measurement_points < 1.4
    assert model.error == quality.rerank_points / 100


def test_the_score_is_a_plain_sum(model: FittedAccuracy) -> None:
    for subnet in fresh(20):
        terms = [
            model.layer_score(subnet.resolution, i, j, layer)
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        ]
        assert model.score(subnet) == model.intercept(subnet.resolution) + sum(terms)
        assert model.accuracy(subnet) == pytest.approx(1 - exp(-model.score(subnet)))


def test_a_file_reads_back(model: FittedAccuracy, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    path.write_text(model.content.model_dump_json())
    again = load_accuracy(path, _SPACE)
    assert again.content == model.content
    assert np.array_equal(again.rerank(fresh(9)), model.rerank(fresh(9)))
    assert again.rerank([]).shape == (0,)
    with pytest.raises(FileFormatError, match="another space"):
        load_accuracy(path, load_space("cifar_lite"))
    with pytest.raises(MissingMaterial):
        load_accuracy(tmp_path / "absent.json", _SPACE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=2), "schema_version"),
        (lambda c: c.update(zebra=1), "zebra"),
        (lambda c: c["additive"]["intercepts"].pop("28"), "no intercept for resolution 28"),
        (lambda c: c["additive"]["layers"]["1.0"].pop("7x3"), r"no term for layer 7x3 at 1\.0"),
        (lambda c: c["residual"]["weights"].pop(), "219 weights for 220 pairs"),
        (lambda c: c["residual"]["std"].__setitem__(0, 0.0), "standard deviation"),
        (lambda c: c["residual"]["mean"].pop(), "features"),
        (lambda c: c["pairs"][0].update(subnet="cifar_micro@21/x"), "a pair is not a subnet"),
        (lambda c: c["pairs"][0].update(accuracy=1.5), "accuracy"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    model: FittedAccuracy,
    tmp_path: Path,
    change: object,
    message: str,
) -> None:
    content = json.loads(model.content.model_dump_json())
    assert callable(change)
    change(content)
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=message):
        load_accuracy(path, _SPACE)


def test_unknown_choices_are_refused(model: FittedAccuracy) -> None:
    with pytest.raises(UsageError, match="no accuracy at 21 px"):
        model.intercept(21)
    with pytest.raises(UsageError, match="at least 40"):
        fit_accuracy(_SPACE, noisy(10, 100), 100, "too few")


def test_kendall_tau_counts_pairs() -> None:
    a = np.array([1.0, 2, 3, 4])
    assert kendall_tau(a, a) == 1
    assert kendall_tau(a, -a) == -1
    assert kendall_tau(a, np.array([1.0, 2, 4, 3])) == pytest.approx(4 / 6)
    assert kendall_tau(a, np.ones(4)) == 0


def test_samples_are_distinct_valid_and_reach_the_ends() -> None:
    subnets = sample_subnets(_SPACE, 200, 1)
    assert len(set(subnets)) == 200
    assert subnets == sample_subnets(_SPACE, 200, 1)
    for subnet in subnets:
        _SPACE.validate_subnet(subnet)
    work = sorted(subnet_macs(_SPACE, s) for s in subnets)
    assert work[0] < 1.5e6
    assert work[-1] > 15e6
    assert {s.resolution for s in subnets} == set(_SPACE.resolutions)
    features = summary(_SPACE, subnets)
    assert np.isfinite(features).all()
    assert (features.std(0) > 0).all()


def test_the_digest_follows_the_space_and_not_its_description() -> None:
    other = _SPACE.model_copy(update={"description": "other words"})
    assert space_digest(other) == space_digest(_SPACE)
    other = _SPACE.model_copy(update={"padding": "symmetric"})
    assert space_digest(other) != space_digest(_SPACE)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Space, Supernet, Images]:
    space = tiny_space(tmp_path)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (20, 12, 12, 3), dtype=torch.uint8)
    return space, Supernet(space), Images(pixels, torch.arange(20) % 4)


def test_measuring_goes_on_where_it_stopped(
    small: tuple[Space, Supernet, Images], tmp_path: Path
) -> None:
    space, supernet, images = small
    journal = tmp_path / "journal.jsonl"
    subnets = sample_subnets(space, 6, 0)
    done: list[int] = []
    first = measure_subnets(supernet, subnets[:4], images.pixels, images, journal)
    # as if the process had died while writing
    journal.write_text(journal.read_text() + '{"subnet": "tiny@8/3x')
    again = measure_subnets(
        supernet, subnets, images.pixels, images, journal, lambda n, *_: done.append(n)
    )
    assert done == [4, 5]
    assert again[:4] == first
    assert read_journal(journal, space) == dict(again)


def test_a_corrupt_journal_is_refused(
    small: tuple[Space, Supernet, Images], tmp_path: Path
) -> None:
    space, supernet, images = small
    journal = tmp_path / "journal.jsonl"
    measure_subnets(supernet, [], images.pixels, images, journal)
    identity = journal.read_text()
    good = json.dumps({"subnet": str(space.smallest()), "accuracy": 0.5})
    bad = json.dumps({"subnet": str(space.smallest()), "accuracy": 7})
    journal.write_text(f"{identity}{bad}\n{good}\n")
    with pytest.raises(FileFormatError, match="line 2"):
        read_journal(journal, space)
    # a whole last line that is wrong was not cut off: it is not dropped
    journal.write_text(f"{identity}{good}\n{bad}\n")
    with pytest.raises(FileFormatError, match="line 3"):
        read_journal(journal, space)


def test_a_journal_of_other_weights_or_images_is_refused(
    small: tuple[Space, Supernet, Images], tmp_path: Path
) -> None:
    space, supernet, images = small
    journal = tmp_path / "journal.jsonl"
    subnet = space.smallest()
    measure_subnets(supernet, [subnet], images.pixels, images, journal)
    before = journal.read_bytes()

    def refused(says: str, supernet: Supernet, recalibration: Tensor, images: Images) -> None:
        with pytest.raises(FileFormatError, match=says):
            measure_subnets(supernet, [subnet], recalibration, images, journal)

    other = Images(images.pixels, images.labels.flip(0))
    refused("other images", supernet, images.pixels, other)
    refused("other recalibration", supernet, images.pixels[:10], images)
    refused("other weights", Supernet(space), images.pixels, images)
    journal.write_text(before.decode().split("\n", 1)[1])
    refused("does not say which weights", supernet, images.pixels, images)
    journal.write_bytes(before)
    lock = FileLock(tmp_path / ".journal.jsonl.lock")
    with lock, pytest.raises(UsageError, match="another process"):
        measure_subnets(supernet, [subnet], images.pixels, images, journal)
    assert journal.read_bytes() == before


def test_what_was_measured_is_never_written_again(
    small: tuple[Space, Supernet, Images], tmp_path: Path
) -> None:
    """A full disk in the middle leaves every finished subnet."""
    space, supernet, images = small
    journal = tmp_path / "journal.jsonl"
    subnets = sample_subnets(space, 3, 0)
    measure_subnets(supernet, subnets[:2], images.pixels, images, journal)
    before = journal.read_bytes()

    def stop(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        measure_subnets(supernet, subnets, images.pixels, images, journal, stop)
    assert journal.read_bytes().startswith(before)
    assert len(read_journal(journal, space)) == 3
