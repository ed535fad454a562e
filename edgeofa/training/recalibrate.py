"""Batch-norm recalibration: the statistics of a subnet, measured on a few images.

A supernet's running statistics mix all its subnets and fit none, so every subnet gets its own: the
mean over batches of each batch's mean and biased variance (divided by the count), as once-for-all
does it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeofa.elastic.extract import extract
from edgeofa.elastic.supernet import Supernet
from edgeofa.spaces.space import Space, Subnet
from edgeofa.training.data import Images, preprocess
from edgeofa.training.fast import FastPath, Statistics, fast_path

__all__ = ["module_accuracy", "recalibrate", "subnet_accuracy", "subnet_statistics"]

_BATCH = 250


@torch.no_grad()
def recalibrate(module: nn.Module, images: Tensor, batch: int = _BATCH) -> None:
    """Sets the running statistics of an extracted module from images, in place.

    Each batch is normalised by its own statistics, in evaluation mode's arithmetic: training mode's
    is further from the reference implementation. The module is left in evaluation mode.

    Args:
        images: preprocessed, ``[N, 3, R, R]``.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    sums = [(torch.zeros(m.num_features), torch.zeros(m.num_features)) for m in norms]
    share = 0.0

    def measure(index: int, x: Tensor) -> None:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        sums[index][0].add_(mean, alpha=share)
        sums[index][1].add_(var, alpha=share)
        store(index, mean, var)

    def store(index: int, mean: Tensor, var: Tensor) -> None:
        norms[index].get_buffer("running_mean").copy_(mean)
        norms[index].get_buffer("running_var").copy_(var)

    handles = [
        m.register_forward_pre_hook(lambda _, args, i=i: measure(i, args[0]))
        for i, m in enumerate(norms)
    ]
    try:
        module.eval()
        for part in torch.split(images, batch):
            share = len(part) / len(images)
            module(part.contiguous(memory_format=torch.channels_last))
    finally:
        for handle in handles:
            handle.remove()
    for index, (mean, var) in enumerate(sums):
        store(index, mean, var)


@torch.no_grad()
def module_accuracy(
    module: nn.Module, images: Images, resolution: int, space: Space, batch: int = _BATCH
) -> float:
    """Fraction of images that an extracted module classifies right."""
    right = 0
    for start in range(0, len(images), batch):
        logits = module(_nchw(images.pixels[start : start + batch], resolution, space))
        right += int((logits.argmax(1) == images.labels[start : start + batch]).sum())
    return right / len(images)


def _nchw(pixels: Tensor, resolution: int, space: Space) -> Tensor:
    x = preprocess(pixels, resolution, space).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def subnet_statistics(
    forward: FastPath, supernet: Supernet, pixels: Tensor, subnet: Subnet, batch: int = _BATCH
) -> Statistics:
    """The same statistics by the fast path, without extraction; one pair a batch norm."""
    sums: Statistics = {}
    for part in torch.split(pixels, batch):
        collected: Statistics = {}
        x = preprocess(part, subnet.resolution, supernet.space)
        forward(supernet, x, subnet, collect=collected)
        share = len(part) / len(pixels)
        for name, (mean, var) in collected.items():
            if name in sums:
                sums[name][0].add_(mean, alpha=share)
                sums[name][1].add_(var, alpha=share)
            else:
                sums[name] = (mean * share, var * share)
    return sums


@torch.no_grad()
def subnet_accuracy(
    supernet: Supernet, subnet: Subnet, recalibration: Tensor, images: Images, batch: int = _BATCH
) -> float:
    """Accuracy of a recalibrated subnet: by the fast path (bfloat16) where there is one.

    Args:
        recalibration: pixels ``[N, h, w, 3]`` for the batch norms.
        images: what the accuracy is measured on.
    """
    space = supernet.space
    forward = fast_path(space)
    if forward is None:
        network = extract(supernet, subnet)
        recalibrate(network, _nchw(recalibration, subnet.resolution, space), batch)
        return module_accuracy(network, images, subnet.resolution, space, batch)
    statistics = subnet_statistics(forward, supernet, recalibration, subnet, batch)
    right = 0
    for start in range(0, len(images), batch):
        x = preprocess(images.pixels[start : start + batch], subnet.resolution, space)
        logits = forward(supernet, x, subnet, statistics=statistics)
        right += int((logits.argmax(1) == images.labels[start : start + batch]).sum())
    return right / len(images)
