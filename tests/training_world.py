"""A training that takes seconds: a recipe, pictures, and the weights that come out."""

from __future__ import annotations

import torch

from edgeofa.training.data import Images
from edgeofa.training.recipe import Phase, Recipe
from edgeofa.training.trainer import Trainer

RECIPE = Recipe(
    optimiser="sgd",
    rate=0.05,
    weight_decay=1e-4,
    batch=16,
    phases=(Phase(1.0, {8: 1.0}),),
    alone=0.0,
    warmup_steps=2,
)


def coloured(count: int, seed: int) -> Images:
    """Images whose class is their colour: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    colours = torch.tensor([[60, 60, 60], [200, 60, 60], [60, 200, 60], [200, 200, 200]])
    noise = torch.randint(-25, 26, (count, 32, 32, 3), generator=generator)
    return Images((colours[labels][:, None, None] + noise).clamp(0, 255).byte(), labels)


def weights(t: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in t.average.parameters()])
