"""Calibration images made without shipping data: optimised noise with the right statistics.

Batch norms are recalibrated, and int8 ranges found, on a few images. These are made from 1/f noise
so that, in many random subnets at once, the batch statistics of every layer match those of real
images. Nothing of a single real image enters but means and variances over a thousand of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeofa.accuracy.features import subnet_macs
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import UsageError
from edgeofa.spaces.space import Space, Subnet
from edgeofa.training.data import preprocess
from edgeofa.training.fast import FastPath, Statistics, fast_path
from edgeofa.training.recalibrate import subnet_statistics

__all__ = ["Nearness", "nearness", "synthesize"]

_POOL = 48
_RATE = 8.0  # in pixel steps of 0 to 255; at 3 the mismatch ends twice as high
_MIN_BATCH = 64
_MOST_TIMES_USUAL = 3


def _pool(space: Space, seed: int) -> list[Subnet]:
    """Random subnets with largest and smallest; every resolution, the costly ones less often."""
    rng = random.Random(f"synthesize {seed}")
    resolutions = space.resolutions
    weights = [1 / r**2 for r in resolutions]
    low = resolutions[0]
    middle = resolutions[len(resolutions) // 3]
    pool = [space.largest(middle), space.smallest(middle), space.largest(low), space.smallest(low)]
    while len(pool) < _POOL:
        pool.append(space.sample_by_choice(rng, rng.choices(resolutions, weights)[0]))
    return pool


def _noise(count: int, size: int, space: Space, generator: torch.Generator) -> Tensor:
    """1/f noise with correlated channels, as pixels ``[count, size, size, 3]`` of 0 to 255.

    The mean and spread are those that the space's preprocessing declares.
    """
    frequency = torch.fft.fftfreq(size)
    radius = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt()
    radius[0, 0] = 1 / size
    white = torch.randn(count, 3, size, size, generator=generator)
    # natural images have mostly grey contrast
    white = 0.85 * math.sqrt(3) * white.mean(1, keepdim=True) + 0.5 * white
    noise = torch.fft.ifft2(torch.fft.fft2(white) / radius).real
    noise = (noise / noise.std()).permute(0, 2, 3, 1)
    mean, std = torch.tensor(space.preprocess.mean), torch.tensor(space.preprocess.std)
    pixels: Tensor = (noise * std * 0.8 + mean).clamp(0, 255)
    return pixels.contiguous()


def _mismatch(collected: Statistics, target: Statistics) -> Tensor:
    """Mean over layers of ``(difference of means)^2 / variance + (ratio of deviations - 1)^2``."""
    total = torch.zeros(())
    for name, (mean, var) in target.items():
        found_mean, found_var = collected[name]
        floor = 0.02 * var.mean() + 1e-8
        ratio = ((found_var + floor) / (var + floor)).sqrt()
        total = (
            total + ((found_mean - mean) ** 2 / (var + floor)).mean() + ((ratio - 1) ** 2).mean()
        )
    return total / len(target)


def synthesize(
    supernet: Supernet,
    pixels: Tensor,
    count: int = 256,
    steps: int = 600,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """``count`` images uint8 ``[count, h, w, 3]`` of the size of ``pixels``.

    Args:
        pixels: real images uint8 ``[N, h, w, 3]`` whose statistics are matched; about 1,000.
        steps: of optimisation, each on one of 48 subnets.
        start: images of an earlier checkpoint to go on from, instead of noise.

    Errors: ``UsageError`` where the compiled kernels cannot be built, which the plain path would
    take an hour for.
    """
    space = supernet.space
    forward = fast_path(space)
    if forward is None:
        raise UsageError("needs the compiled kernels", hint="install a C compiler (x86-64, AVX2)")
    frozen = [p.requires_grad for p in supernet.parameters()]
    supernet.requires_grad_(False)
    try:
        pool = _pool(space, seed)
        targets = [(s, subnet_statistics(forward, supernet, pixels, s)) for s in pool]
        if log is not None:
            log(f"statistics of {len(pool)} subnets on {len(pixels)} real images")
        if start is None:
            start = _noise(count, pixels.shape[1], space, torch.Generator().manual_seed(seed))
        return _optimise(forward, supernet, start.float(), targets, steps, seed, log)
    finally:
        for parameter, wanted in zip(supernet.parameters(), frozen, strict=True):
            parameter.requires_grad_(wanted)


def _optimise(
    forward: FastPath,
    supernet: Supernet,
    images: Tensor,
    targets: Sequence[tuple[Subnet, Statistics]],
    steps: int,
    seed: int,
    log: Callable[[str], None] | None,
) -> Tensor:
    """Adam on the pixels, one subnet of the pool a step, in random order."""
    space, count = supernet.space, len(images)
    rng = random.Random(f"order {seed}")
    generator = torch.Generator().manual_seed(seed + 1)
    images.requires_grad_()
    optimiser = torch.optim.Adam([images], lr=_RATE, betas=(0.9, 0.99))
    costs = [subnet_macs(space, s) for s, _ in targets]
    usual = sorted(costs)[len(costs) // 2]
    order: list[int] = []
    losses: list[float] = []
    for step in range(steps):
        if not order:
            order = list(range(len(targets)))
            rng.shuffle(order)
            if log is not None and losses:
                log(f"step {step}: mismatch {sum(losses) / len(losses):.4f}")
                losses = []
        number = order.pop()
        subnet, target = targets[number]
        rate = min(1.0, (step + 1) / 10) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.02)
        optimiser.param_groups[0]["lr"] = _RATE * rate
        # a very costly subnet sees a part of the images, so that no step takes long; a part's
        # statistics are noisy, and matching noise would make the images alike
        share = min(1.0, _MOST_TIMES_USUAL * usual / costs[number])
        size = max(min(count, _MIN_BATCH), int(count * share))
        part = torch.randperm(count, generator=generator)[:size] if size < count else None
        chosen = images if part is None else images[part]
        collected: Statistics = {}
        x = preprocess(chosen.clamp(0, 255), subnet.resolution, space)
        forward(supernet, x, subnet, collect=collected)
        loss = _mismatch(collected, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            images.clamp_(0, 255)
        losses.append(loss.item())
    return images.detach().round().to(torch.uint8)


@dataclass(frozen=True)
class Nearness:
    """How close images come to a training set.

    Root mean square distance in pixel steps (of 255) to the nearest training image, and the
    largest correlation with any of them (after removing each image's mean and contrast): over all
    images the extreme, and the median.
    """

    smallest_distance: float
    median_distance: float
    largest_correlation: float
    median_correlation: float


@torch.no_grad()
def nearness(images: Tensor, training: Tensor) -> Nearness:
    """Of images uint8 ``[N, h, w, 3]`` to training images and their mirror images."""
    flat = images.flatten(1).float()
    distance = torch.full((len(flat),), math.inf)
    correlation = torch.full((len(flat),), -1.0)
    unit = _unit(flat)
    for part in torch.split(training, 5000):
        for version in (part, part.flip(2)):
            other = version.flatten(1).float()
            distance = torch.minimum(distance, torch.cdist(flat, other).amin(1))
            correlation = torch.maximum(correlation, (unit @ _unit(other).t()).amax(1))
    distance = distance / math.sqrt(flat.shape[1])
    return Nearness(
        smallest_distance=float(distance.min()),
        median_distance=float(distance.median()),
        largest_correlation=float(correlation.max()),
        median_correlation=float(correlation.median()),
    )


def _unit(flat: Tensor) -> Tensor:
    centred = flat - flat.mean(1, keepdim=True)
    unit: Tensor = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit
