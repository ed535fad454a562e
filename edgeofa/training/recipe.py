"""How a supernet is trained, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edgeofa.spaces.space import Space

__all__ = ["Phase", "Recipe", "recipe_for"]


@dataclass(frozen=True)
class Phase:
    """Resolutions and their weights, in force until this fraction of the training."""

    until: float
    resolutions: dict[int, float]


@dataclass(frozen=True)
class Recipe:
    """Sandwich training with in-place distillation (Yu and Huang 2019).

    Each step trains the largest subnet on the labels, and ``others`` smaller ones on its soft
    outputs; with probability ``smallest`` one of these is the smallest subnet, the rest are random.
    In the first ``alone`` of the training only the largest is trained. The learning rate rises for
    ``warmup_steps`` and then falls as a cosine to ``final_rate`` of itself.
    """

    optimiser: Literal["sgd", "adamw"]
    rate: float
    weight_decay: float
    batch: int
    phases: tuple[Phase, ...]
    alone: float
    others: int = 2
    smallest: float = 0.35
    label_smoothing: float = 0.1
    clip: float = 5.0
    warmup_steps: int = 150
    final_rate: float = 0.005
    average: float = 0.998
    #: start from EfficientNet-Lite0's ImageNet weights
    imagenet: bool = False

    def resolutions_at(self, progress: float) -> dict[int, float]:
        return next((p for p in self.phases if progress <= p.until), self.phases[-1]).resolutions


_RECIPES = {
    "cifar_lite": Recipe(
        optimiser="adamw",
        rate=1e-3,
        weight_decay=0.02,
        batch=64,
        phases=(
            Phase(0.25, {64: 0.6, 96: 0.4}),
            Phase(0.60, {64: 0.55, 96: 0.33, 128: 0.12}),
            Phase(1.00, {64: 0.40, 96: 0.32, 128: 0.17, 160: 0.06, 192: 0.025, 224: 0.025}),
        ),
        alone=0.06,
        label_smoothing=0.05,
        clip=10.0,
        imagenet=True,
    ),
    "cifar_micro": Recipe(
        optimiser="sgd",
        rate=0.2,
        weight_decay=2e-4,
        batch=128,
        phases=(
            Phase(0.10, {24: 1.0}),
            Phase(0.40, {20: 0.3, 24: 0.4, 28: 0.3}),
            Phase(0.75, {20: 0.2, 24: 0.25, 28: 0.3, 32: 0.2, 40: 0.05}),
            Phase(1.00, {20: 0.16, 24: 0.2, 28: 0.22, 32: 0.26, 40: 0.11, 48: 0.05}),
        ),
        alone=0.10,
    ),
}


#: what a trained supernet is continued with: most time goes to the resolutions that budgets pick
_REFINEMENTS = {
    "cifar_lite": replace(
        _RECIPES["cifar_lite"],
        rate=8e-4,
        phases=(
            Phase(0.60, {64: 0.20, 96: 0.42, 128: 0.26, 160: 0.08, 192: 0.02, 224: 0.02}),
            Phase(1.00, {64: 0.10, 96: 0.30, 128: 0.33, 160: 0.17, 192: 0.05, 224: 0.05}),
        ),
        alone=0.0,
        smallest=0.25,
        warmup_steps=100,
        imagenet=False,
    ),
    "cifar_micro": replace(
        _RECIPES["cifar_micro"],
        rate=0.1,
        phases=(
            Phase(0.70, {20: 0.16, 24: 0.24, 28: 0.26, 32: 0.24, 40: 0.08, 48: 0.02}),
            Phase(1.00, {20: 0.14, 24: 0.20, 28: 0.22, 32: 0.26, 40: 0.12, 48: 0.06}),
        ),
        alone=0.0,
    ),
}


def recipe_for(space: Space, *, refine: bool = False) -> Recipe:
    """The recipe that the shipped supernet of a space was trained, or then refined, with; for any
    other space a general one."""
    recipes = _REFINEMENTS if refine else _RECIPES
    if space.name in recipes:
        return recipes[space.name]
    general = _general(space)
    return replace(general, alone=0.0, rate=general.rate / 2) if refine else general


def _general(space: Space) -> Recipe:
    """Small resolutions first, all in the end; a small batch, since few pictures are the rule."""
    sizes = sorted(space.resolutions)
    third = -(-len(sizes) // 3)

    def evenly(count: int) -> dict[int, float]:
        return dict.fromkeys(sizes[:count], 1 / count)

    return Recipe(
        optimiser="adamw",
        rate=2e-3,
        weight_decay=0.02,
        batch=32,
        phases=(
            Phase(0.25, evenly(third)),
            Phase(0.60, evenly(min(2 * third, len(sizes)))),
            Phase(1.00, evenly(len(sizes))),
        ),
        alone=0.1,
        warmup_steps=50,
    )
