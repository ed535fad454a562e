"""Recalibration: what the statistics are, and that they matter."""

from __future__ import annotations

import torch
from torch import nn

from edgeofa.elastic.extract import extract
from edgeofa.elastic.supernet import Supernet
from edgeofa.spaces import load_space
from edgeofa.training.data import Images, preprocess
from edgeofa.training.fast import fast_path
from edgeofa.training.imagenet import sort_channels
from edgeofa.training.recalibrate import (
    module_accuracy,
    recalibrate,
    subnet_accuracy,
    subnet_statistics,
)


def test_statistics_are_the_mean_over_batches_with_biased_variance() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    images = torch.randn(10, 3, 6, 6) * 2 + 1
    recalibrate(module, images, batch=4)
    with torch.no_grad():
        z = module[0](images)
    parts = torch.split(z, 4)
    means = [p.mean((0, 2, 3)) * len(p) / 10 for p in parts]
    variances = [p.var((0, 2, 3), correction=0) * len(p) / 10 for p in parts]
    assert torch.allclose(module[1].get_buffer("running_mean"), sum(means), atol=1e-6)
    assert torch.allclose(module[1].get_buffer("running_var"), sum(variances), atol=1e-6)
    assert not module.training


def test_recalibration_makes_outputs_those_of_batch_statistics() -> None:
    """Without it, running statistics of another subnet give something else entirely."""
    space = load_space("cifar_micro")
    torch.manual_seed(0)
    supernet = Supernet(space)
    subnet = space.smallest()
    network = extract(supernet, subnet)
    images = torch.randn(64, 3, 20, 20)
    with torch.no_grad():
        supernet.train()
        expected = supernet(images, subnet)
        stale = network(images)
        recalibrate(network, images)
        found = network(images)
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
    assert (stale - expected).norm() > 0.1 * expected.norm()


def test_the_fast_path_measures_the_same_statistics_and_accuracy() -> None:
    space = load_space("cifar_micro")
    torch.manual_seed(0)
    supernet, subnet = Supernet(space), space.smallest(24)
    pixels = torch.randint(0, 256, (60, 32, 32, 3), dtype=torch.uint8)
    network = extract(supernet, subnet)
    x = preprocess(pixels, 24, space).permute(0, 3, 1, 2)
    recalibrate(network, x, batch=30)
    forward = fast_path(space)
    if forward is not None:
        statistics = subnet_statistics(forward, supernet, pixels, subnet, batch=30)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(statistics) == len(norms)
        for norm, (mean, var) in zip(norms, statistics.values(), strict=True):
            spread = norm.get_buffer("running_var").sqrt()
            assert ((mean - norm.get_buffer("running_mean")) / spread).abs().max() < 0.02
            assert (var.sqrt() / spread - 1).abs().max() < 0.02
    labels = network(x).argmax(1)
    images = Images(pixels, labels)
    assert module_accuracy(network, images, 24, space) == 1
    assert subnet_accuracy(supernet, subnet, pixels, images, batch=30) > 0.9


def test_sorting_channels_changes_no_output_and_puts_the_important_first() -> None:
    space = load_space("cifar_lite")
    torch.manual_seed(0)
    supernet = Supernet(space).eval()
    block = supernet.block(2, 0)
    with torch.no_grad():
        for conv in (block.expand, block.depthwise):
            assert conv is not None
            conv.norm.weight.uniform_(0.2, 2)
            conv.norm.get_buffer("running_mean").normal_()
        x = torch.randn(2, block.cin, 8, 8)
        layer = space.stages[2].layers_at(0)[-1]
        before = block(x, layer)
        sort_channels(block)
        after = block(x, layer)
    assert torch.allclose(before, after, atol=1e-4)
    weight = block.project.weight.abs().sum((0, 2, 3)) * block.depthwise.norm.weight.abs()
    assert (weight[1:] <= weight[:-1] + 1e-5).all()
