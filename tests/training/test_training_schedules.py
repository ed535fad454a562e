"""Schedules: what each trains when; each resumes bit-identically; costs; records (about 15 s)."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_space import tiny_space
from training_world import RECIPE, coloured, weights

from edgeofa.accuracy.features import subnet_macs
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Space, load_space
from edgeofa.training.recipe import Phase
from edgeofa.training.record import write_record
from edgeofa.training.schedules import Delayed, Progressive, Step, schedule_for
from edgeofa.training.session import train
from edgeofa.training.trainer import Budget, Trainer


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return tiny_space(tmp_path)


def trainer(space: Space, out: Path, schedule: str) -> Trainer:
    lines: list[str] = []
    return Trainer(
        space,
        replace(RECIPE, average=0.8),
        coloured(64, 1),
        coloured(32, 2),
        out,
        log=lines.append,
        schedule_name=schedule,
    )


def cost(space: Space, steps: int) -> float:
    """What so many steps of the full network cost."""
    return 3.0 * 16 * steps * subnet_macs(space, space.largest(8))


@pytest.mark.parametrize("schedule", ["sandwich", "progressive", "delayed"])
def test_each_resumes_bit_identically(space: Space, tmp_path: Path, schedule: str) -> None:
    budget = Budget(macs=cost(space, 16))
    whole = trainer(space, tmp_path / "whole", schedule)
    whole.run(budget)
    last = whole.progress.step
    assert whole.progress.phase == {"sandwich": 0, "progressive": 3, "delayed": 1}[schedule]
    for stop in (1, last // 3, last // 2, last - 2):
        part = trainer(space, tmp_path / "part", schedule)
        part.resume()
        part.run(replace(budget, stop_at_step=stop))
    again = trainer(space, tmp_path / "part", schedule)
    assert again.resume()
    again.run(budget)
    assert again.progress.step == last
    assert torch.equal(weights(again), weights(whole))
    assert again.progress.training_macs == whole.progress.training_macs
    assert [p["largest"] for p in again.curve] == [p["largest"] for p in whole.curve]
    assert again.curve[-1]["step"] == last


def test_a_state_belongs_to_its_schedule(space: Space, tmp_path: Path) -> None:
    trainer(space, tmp_path, "delayed").save()
    with pytest.raises(FileFormatError, match="its schedule is delayed"):
        trainer(space, tmp_path, "sandwich").resume()
    with pytest.raises(UsageError, match="no schedule 'eager'"):
        schedule_for("eager", space, RECIPE)


def test_costs_count_every_pass(space: Space, tmp_path: Path) -> None:
    t = trainer(space, tmp_path, "progressive")
    one = 16 * subnet_macs(space, space.largest(8))
    t.run(Budget(macs=1e12, stop_at_step=1))
    assert t.progress.training_macs == 3 * one
    assert t.progress.macs == one
    before = t.progress.training_macs
    drawn: list[Step] = []
    t.schedule = Watched(t.schedule, drawn, done=0.999)  # type: ignore[assignment]
    t.run(Budget(macs=1e12, stop_at_step=2))
    (step,) = drawn
    assert len(step.passes) == 4
    own = sum(3 * 16 * subnet_macs(space, p.subnet) for p in step.passes)
    # and the teacher's forward pass
    assert t.progress.training_macs - before == own + one


class Watched:
    """A schedule at one moment of its budget, whose steps are kept."""

    def __init__(self, inner: Progressive, drawn: list[Step], done: float):
        self._inner, self._drawn, self._done = inner, drawn, done
        self.text, self.entry = inner.text, inner.entry

    def step(self, done: float, number: int, rng: random.Random) -> Step:
        del done
        self._drawn.append(self._inner.step(self._done, number, rng))
        return self._drawn[-1]


def test_progressive_opens_kernels_then_depths_then_widths() -> None:
    space = load_space("cifar_micro")
    schedule = Progressive(space, RECIPE)
    _shape = [(p.subnets, p.kernels, p.depths, p.widths, p.sort) for p in schedule.phases]
    assert _shape == [
        (1, 1, 1, 1, None),
        (1, 3, 1, 1, None),
        (2, 3, 2, 1, None),
        (2, 3, 3, 1, None),
        (4, 3, 3, 2, 0),
        (4, 3, 3, 3, 1),
    ]
    assert list(schedule.ends) == sorted(schedule.ends)
    assert schedule.ends[-1] == 1.0
    mixed = Progressive(space, replace(RECIPE, phases=(Phase(1.0, {20: 1.0}),)))
    rng = random.Random(1)
    seen: dict[int, set[tuple[int, int, int]]] = {}
    for n in range(400):
        step = mixed.step(n / 400, n, rng)
        for p in step.passes:
            space.validate_subnet(p.subnet)
            last = p.subnet.stages[-1]
            seen.setdefault(step.phase, set()).update((x.kernel, len(last), x.expand) for x in last)
        assert (step.teacher is None) == (step.phase == 0)
    assert seen[0] == {(5, 3, 4)}
    assert seen[1] == {(3, 3, 4), (5, 3, 4)}
    assert {depth for _, depth, _ in seen[2]} == {2, 3}
    assert {depth for _, depth, _ in seen[3]} == {1, 2, 3}
    assert {width for _, _, width in seen[4]} == {3, 4}
    assert {width for _, _, width in seen[5]} == {2, 3, 4}


def test_delayed_ramps_the_subnets_learning_rate_linearly(space: Space) -> None:
    schedule = Delayed(space, replace(RECIPE, warmup_steps=1), start=0.4, ramp=0.1)
    rng = random.Random(0)
    effective = []
    for n in range(400, 500, 10):
        step = schedule.step(n / 1000, n, rng)
        scales = {p.scale for p in step.passes[1:]}
        effective.append(step.rate * (scales.pop() if scales else 0.0))
        assert not scales
    rises = [b - a for a, b in pairwise(effective)]
    assert effective[0] == 0.0
    assert rises == pytest.approx([rises[0]] * len(rises))
    assert len(schedule.step(0.39, 1, rng).passes) == 1
    assert [p.scale for p in schedule.step(0.7, 1, rng).passes] == [1.0] * 4


@pytest.mark.parametrize("schedule", ["progressive", "delayed"])
def test_shrinking_changes_the_full_network_as_little_as_its_update(
    space: Space, tmp_path: Path, schedule: str
) -> None:
    """Sorting channels leaves the weights' and their averages' full networks as they are."""
    t = trainer(space, tmp_path, schedule)
    t.run(Budget(macs=cost(space, 12), stop_at_step=4))
    x = torch.randn(4, 3, 8, 8)

    def outputs(network: Supernet) -> torch.Tensor:
        with torch.no_grad():
            return network(x, space.largest(8))

    plain, averaged = outputs(t.supernet), outputs(t.average)
    entry = t.schedule.entry(1 if schedule == "delayed" else len(t.schedule.phases) - 1)  # type: ignore[attr-defined]
    t._enter(1 if schedule == "delayed" else 3)
    assert entry.sort is not None
    assert torch.allclose(outputs(t.average), averaged, atol=1e-4)
    if not entry.restart:
        assert torch.allclose(outputs(t.supernet), plain, atol=1e-4)


def test_a_record_holds_costs_and_a_curve(space: Space, tmp_path: Path) -> None:
    t = trainer(space, tmp_path, "delayed")
    budget = Budget(macs=cost(space, 6))
    t.run(budget)
    write_record(t, budget)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["schedule"].startswith("delayed")
    assert record["budget"] == {"macs": budget.macs}
    assert record["cost"]["training_macs"] >= budget.macs
    assert record["curve"][-1]["training_macs"] == record["cost"]["training_macs"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_devices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    def on(device: str) -> None:
        train("tiny", tmp_path, tmp_path, None, None, 1, 0, print, device=device)

    with pytest.raises(UsageError, match="no device to train on: 'tpu'"):
        on("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(MissingMaterial, match="no CUDA device"):
            on("cuda")
