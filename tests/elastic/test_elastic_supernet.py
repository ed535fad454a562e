"""The supernet, its subnets on their own, and how weights are shared."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from edgeofa.elastic.extract import extract
from edgeofa.elastic.supernet import Supernet, edge_padding
from edgeofa.errors import UsageError
from edgeofa.spaces import Layer, Space, Subnet, load_space


def randomised(space: Space, seed: int = 0) -> Supernet:
    """A supernet in which every weight and statistic matters."""
    torch.manual_seed(seed)
    supernet = Supernet(space)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").normal_(0, 0.05)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
        for name, parameter in supernet.named_parameters():
            if ".matrices." in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return supernet.eval()


@pytest.mark.parametrize("name", ["cifar_lite", "cifar_micro", "ofa_mbv3"])
def test_an_extracted_subnet_computes_what_the_supernet_computes(name: str) -> None:
    space = load_space(name)
    supernet = randomised(space)
    rng = random.Random(3)
    odd = space.resolutions[1]
    subnets = [
        space.largest(space.resolutions[0]),
        space.smallest(),
        space.sample_by_choice(rng, odd),
    ]
    for subnet in subnets:
        x = torch.randn(2, 3, subnet.resolution, subnet.resolution)
        with torch.no_grad():
            expected, found = supernet(x, subnet), extract(supernet, subnet)(x)
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("name", ["cifar_lite", "cifar_micro", "ofa_mbv3"])
def test_the_extracted_parameters_are_those_of_the_declared_blocks(name: str) -> None:
    space = load_space(name)
    subnet = space.sample_by_choice(random.Random(5))
    network = extract(Supernet(space), subnet)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    depthwise = [m for m in convolutions if m.groups > 1]
    middle = [b for b in space.blocks(subnet) if b.kind == "mbconv"]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in depthwise] == [
        (b.mid, b.kernel, b.stride) for b in middle
    ]
    squeezed = sum(isinstance(m, nn.Hardsigmoid) for m in network.modules())
    assert squeezed == sum(b.se for b in middle)


def test_torch_export_traces_an_extracted_subnet() -> None:
    space = load_space("cifar_micro")
    network = extract(randomised(space), space.smallest())
    x = torch.randn(1, 3, 20, 20)
    program = torch.export.export(network, (x,))
    assert torch.allclose(program.module()(x), network(x), atol=1e-6)


def test_smaller_choices_are_the_first_channels_and_the_kernels_centre() -> None:
    space = load_space("cifar_micro")
    block = Supernet(space).block(1, 1)
    small, large = Layer(3, 2), Layer(7, 4)
    taps = block.kernel_weight(small)
    assert taps.shape == (block.width(small), 1, 3, 3)
    assert torch.equal(taps, block.kernel_weight(large)[: block.width(small), :, 2:5, 2:5])


def test_kernel_transforms_are_chained() -> None:
    space = load_space("ofa_mbv3")
    block = randomised(space).block(2, 0)
    whole = block.depthwise.weight[: block.width(Layer(3, 3))]
    flat = whole[:, :, 1:6, 1:6].reshape(-1, 25) @ block.matrices["to5"].t()
    assert torch.allclose(block.kernel_weight(Layer(5, 3)).reshape(-1, 25), flat, atol=1e-6)
    flat = flat.view(-1, 1, 5, 5)[:, :, 1:4, 1:4].reshape(-1, 9) @ block.matrices["to3"].t()
    assert torch.allclose(block.kernel_weight(Layer(3, 3)).reshape(-1, 9), flat, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (32, 3, 2, (0, 1)),
        (33, 3, 2, (1, 1)),
        (7, 5, 2, (2, 2)),
        (8, 7, 2, (2, 3)),
        (9, 5, 1, (2, 2)),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, expected: tuple[int, int]
) -> None:
    assert edge_padding(size, kernel, stride, "same") == expected


def test_training_uses_batch_statistics_and_keeps_running_ones() -> None:
    space = load_space("cifar_micro")
    supernet = Supernet(space).train()
    x = torch.randn(8, 3, 20, 20) * 3 + 1
    before = supernet.stem.norm.get_buffer("running_mean").clone()
    supernet(x, space.smallest())
    assert not torch.equal(before, supernet.stem.norm.get_buffer("running_mean"))
    untouched = supernet.block(0, 1).project.norm.get_buffer("running_mean")
    assert torch.equal(untouched, torch.zeros_like(untouched))


def test_bad_images_and_foreign_subnets_are_refused() -> None:
    space = load_space("cifar_micro")
    supernet = Supernet(space)
    with pytest.raises(UsageError, match="images are"):
        supernet(torch.zeros(1, 1, 20, 20), space.smallest())
    foreign = space.smallest()
    with pytest.raises(UsageError, match="resolution 21"):
        extract(supernet, Subnet(space.name, 21, foreign.stages))
