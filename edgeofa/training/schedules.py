"""What a supernet's training does at each step: which subnets, from which teacher, how fast.

Schedules are interchangeable; the trainer carries out what :meth:`Schedule.step` says. ``done`` is
the fraction of the budget that is spent, whatever the budget counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import cos, pi
from typing import Protocol

from edgeofa.accuracy.features import subnet_macs
from edgeofa.errors import UsageError
from edgeofa.spaces.space import Layer, Space, Subnet
from edgeofa.training.recipe import Recipe

__all__ = [
    "BACKWARD",
    "SCHEDULES",
    "Delayed",
    "Entry",
    "Pass",
    "Progressive",
    "Sandwich",
    "Schedule",
    "Step",
    "schedule_for",
]

#: a backward pass costs two forward ones: gradients for the inputs, and for the weights
BACKWARD = 2


@dataclass(frozen=True)
class Pass:
    """A subnet's forward and backward pass within a step.

    It learns from the ``labels``, from a teacher's soft outputs (``soft``), or from both; its loss
    is multiplied by ``scale``. The teacher is the frozen one where the step has one, else the
    step's first subnet.
    """

    subnet: Subnet
    labels: bool
    soft: bool
    scale: float = 1.0


@dataclass(frozen=True)
class Step:
    """One update: gradients of all passes are summed."""

    rate: float
    passes: tuple[Pass, ...]
    phase: int = 0
    #: what the frozen teacher is run as, without gradients
    teacher: Subnet | None = None


@dataclass(frozen=True)
class Entry:
    """What happens as a phase begins."""

    #: from the averaged weights, with a new optimiser and a new average
    restart: bool = False
    #: sort channels by importance; the number of widths that are open beside the largest
    sort: int | None = None
    #: keep the network as it is now as the teacher
    freeze: bool = False


class Schedule(Protocol):
    @property
    def text(self) -> str:
        """Its name and settings: a state belongs to the schedule that wrote it."""
        ...

    def entry(self, phase: int) -> Entry: ...

    def step(self, done: float, number: int, rng: random.Random) -> Step:
        """``number`` counts updates since the phase before last began anew (``Entry.restart``)."""
        ...


def _cosine(recipe: Recipe, done: float) -> float:
    """From 1 to ``recipe.final_rate``."""
    return 0.5 * (1 + cos(pi * done)) * (1 - recipe.final_rate) + recipe.final_rate


def _rate(recipe: Recipe, done: float, number: int) -> float:
    rise = min(1.0, (number + 1) / recipe.warmup_steps)
    return recipe.rate * rise * _cosine(recipe, done)


def _resolution(recipe: Recipe, done: float, rng: random.Random) -> int:
    weights = recipe.resolutions_at(done)
    return rng.choices(list(weights), list(weights.values()))[0]


@dataclass(frozen=True)
class Sandwich:
    """The largest subnet and some others at every step, these distilled from it (Yu and Huang
    2019; Yu et al. 2020, "BigNAS"); the recipe says how many."""

    space: Space
    recipe: Recipe

    @property
    def text(self) -> str:
        return "sandwich"

    def entry(self, phase: int) -> Entry:
        raise UsageError(f"sandwich has no phase {phase}")

    def step(self, done: float, number: int, rng: random.Random) -> Step:
        recipe, space = self.recipe, self.space
        passes = [Pass(space.largest(_resolution(recipe, done, rng)), labels=True, soft=False)]
        if done >= recipe.alone:
            first_small = rng.random() < recipe.smallest
            for i in range(recipe.others):
                resolution = _resolution(recipe, done, rng)
                small = i == 0 and first_small
                other = (
                    space.smallest(resolution) if small else space.sample_by_choice(rng, resolution)
                )
                passes.append(Pass(other, labels=False, soft=True))
        return Step(_rate(recipe, done, number), tuple(passes))


@dataclass(frozen=True)
class Delayed:
    """Delayed shrinking (Annavajjala et al. 2024, arXiv:2407.06167, "DepS").

    The largest subnet alone for the fraction ``start`` of the budget; then channels are sorted, and
    the smallest and ``others`` random subnets join, distilled from the largest as it is at that
    step. Their effective learning rate rises linearly from 0 to that of the largest within
    ``ramp`` of the budget: gradients are weighted by its ratio to the learning rate in force.

    ``start`` counts cost. A step that shrinks costs about twice a step of the largest alone, so 0.4
    of the cost is some 57% of the updates; the authors begin at 54% of the epochs.
    """

    space: Space
    recipe: Recipe
    start: float = 0.4
    ramp: float = 0.03
    others: int = 2

    @property
    def text(self) -> str:
        return f"delayed: start {self.start}, ramp {self.ramp}, others {self.others}"

    def entry(self, phase: int) -> Entry:  # noqa: ARG002 - there is but one
        return Entry(sort=0)

    def weight(self, done: float) -> float:
        """Of the subnets' gradients, 0 to 1."""
        if done < self.start:
            return 0.0
        end = min(self.start + self.ramp, 1.0)
        rise = min(1.0, (done - self.start) / max(self.ramp, 1e-9))
        if rise >= 1.0:
            return 1.0
        return min(1.0, rise * _cosine(self.recipe, end) / _cosine(self.recipe, done))

    def step(self, done: float, number: int, rng: random.Random) -> Step:
        recipe, space, weight = self.recipe, self.space, self.weight(done)
        passes = [Pass(space.largest(_resolution(recipe, done, rng)), labels=True, soft=False)]
        if weight > 0:
            small = [space.smallest(_resolution(recipe, done, rng))]
            small += [
                space.sample_by_choice(rng, _resolution(recipe, done, rng))
                for _ in range(self.others)
            ]
            passes += [Pass(s, labels=False, soft=True, scale=weight) for s in small]
        phase = int(weight > 0)
        return Step(_rate(recipe, done, number), tuple(passes), phase)


@dataclass(frozen=True)
class _Phase:
    """How many options of each kind are open, from the largest; and how it is trained."""

    epochs: float
    rate: float
    subnets: int
    kernels: int = 1
    depths: int = 1
    widths: int = 1
    sort: int | None = None


#: warm-up of a later phase: 5 of 125 epochs
_WARM = 0.04
#: (epochs, learning rate relative to the full network's) as published: the full network, kernels,
#: and of depths and widths each option but the last, and the last
_FULL, _KERNELS, _MORE, _LAST = (180, 1.0), (125, 0.03 / 0.081), (25, 0.031), (125, 0.0925)


@dataclass(frozen=True)
class Progressive:
    """Progressive shrinking (Cai et al. 2020, "Once-for-All").

    The full network first; a frozen copy of it then teaches, beside the labels, subnets with more
    and more kernels, depths and widths: 1, 2 and 4 at a step. Channels are sorted before each width
    is opened. Every phase has an optimiser, warm-up and cosine of its own; epochs of the phases and
    their learning rates are to each other as the authors' are (180, 125, 25, 125, 25, 125 epochs),
    and shares of the budget follow from the epochs' costs. All subnets of a step have one
    resolution, of the mix that the recipe ends with.
    """

    space: Space
    recipe: Recipe

    @property
    def text(self) -> str:
        return "progressive"

    @cached_property
    def phases(self) -> tuple[_Phase, ...]:
        stages = self.space.stages
        kernels = max(len(s.kernels) for s in stages)
        depths = max(len(s.depths) for s in stages)
        slots = self.space.slots
        widths = max(len(stages[i].expands_at(j)) for i, j in slots)
        phases = [_Phase(*_FULL, subnets=1)]
        if kernels > 1:
            phases.append(_Phase(*_KERNELS, subnets=1, kernels=kernels))
        for n in range(2, depths + 1):
            how = _LAST if n == depths else _MORE
            phases.append(_Phase(*how, subnets=2, kernels=kernels, depths=n))
        for n in range(2, widths + 1):
            how = _LAST if n == widths else _MORE
            opened = _Phase(*how, 4, kernels=kernels, depths=depths, widths=n, sort=n - 2)
            phases.append(opened)
        return tuple(phases)

    @cached_property
    def ends(self) -> tuple[float, ...]:
        """The fraction of the budget at which each phase ends."""
        rng = random.Random("cost of phases")
        resolution = self.space.resolutions[0]
        full = (1 + BACKWARD) * subnet_macs(self.space, self.space.largest(resolution))
        costs = []
        for number, phase in enumerate(self.phases):
            drawn = [self._sample(rng, phase, resolution) for _ in range(100)]
            mean = sum(subnet_macs(self.space, s) for s in drawn) / len(drawn)
            each = (1 + BACKWARD) * mean * phase.subnets + (full / 3 if number else 0)
            costs.append(phase.epochs * each)
        whole = sum(costs)
        return (*(sum(costs[: n + 1]) / whole for n in range(len(costs) - 1)), 1.0)

    def entry(self, phase: int) -> Entry:
        return Entry(restart=True, sort=self.phases[phase].sort, freeze=phase == 1)

    def _sample(self, rng: random.Random, phase: _Phase, resolution: int) -> Subnet:
        def layers(i: int) -> tuple[Layer, ...]:
            stage = self.space.stages[i]
            depth = rng.choice(stage.depths[-phase.depths :])
            return tuple(
                Layer(
                    rng.choice(stage.kernels[-phase.kernels :]),
                    rng.choice(stage.expands_at(j)[-phase.widths :]),
                )
                for j in range(depth)
            )

        stages = tuple(layers(i) for i in range(len(self.space.stages)))
        return Subnet(self.space.name, resolution, stages)

    def step(self, done: float, number: int, rng: random.Random) -> Step:
        recipe, ends = self.recipe, self.ends
        at = next((n for n, end in enumerate(ends) if done < end), len(ends) - 1)
        phase, begin = self.phases[at], ends[at - 1] if at else 0.0
        within = min(1.0, (done - begin) / max(ends[at] - begin, 1e-12))
        resolution = _resolution(recipe, 1.0, rng)
        if at == 0:
            full = Pass(self.space.largest(resolution), labels=True, soft=False)
            return Step(_rate(recipe, within, number), (full,))
        rate = recipe.rate * phase.rate * min(1.0, within / _WARM) * _cosine(recipe, within)
        drawn = [self._sample(rng, phase, resolution) for _ in range(phase.subnets)]
        passes = tuple(Pass(s, labels=True, soft=True) for s in drawn)
        return Step(rate, passes, at, self.space.largest(resolution))


SCHEDULES: dict[str, Callable[[Space, Recipe], Schedule]] = {
    "sandwich": Sandwich,
    "progressive": Progressive,
    "delayed": Delayed,
}


def schedule_for(name: str, space: Space, recipe: Recipe) -> Schedule:
    """Raises ``UsageError`` for a name that is none."""
    if name not in SCHEDULES:
        raise UsageError(f"no schedule {name[:40]!r}", hint=", ".join(SCHEDULES))
    return SCHEDULES[name](space, recipe)
