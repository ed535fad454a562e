"""The compiled kernels compute what torch computes, forwards and backwards."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeofa.elastic.supernet import Supernet, edge_padding
from edgeofa.spaces import load_space
from edgeofa.training.fast import Statistics, fast_path
from edgeofa.training.kernels import load_kernels
from edgeofa.training.ops import DepthwiseNorm, NormAct

_EPSILON = 1e-3
_ACTIVATIONS = {0: lambda x: x, 1: F.relu, 2: F.relu6}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    library = load_kernels()
    if library is None:
        pytest.skip("the kernels cannot be built here (no C compiler, or no AVX2)")
    return library


def _off(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / (expected.norm() + 1e-9))


def _leaf(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    return (torch.rand(*shape) * (high - low) + low).requires_grad_()


def _normalise(z: Tensor, gamma: Tensor, beta: Tensor, act: int) -> tuple[Tensor, Tensor, Tensor]:
    var, mean = torch.var_mean(z, (0, 1, 2), correction=0)
    y = _ACTIVATIONS[act]((z - mean) * torch.rsqrt(var + _EPSILON) * gamma + beta)
    return y, mean, var


def _rounded(*shape: int) -> Tensor:
    return (torch.randn(*shape) * 2 + 1).bfloat16()


@pytest.mark.parametrize("channels", [8, 36, 64])
@pytest.mark.parametrize("act", [0, 1, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_norm_and_activation(library: ctypes.CDLL, channels: int, act: int, residual: bool) -> None:
    torch.manual_seed(1)
    shape = (3, 5, 7, channels)
    gamma, beta = _leaf(channels, low=0.5, high=2), _leaf(channels)
    z, weights = _rounded(*shape).requires_grad_(), torch.randn(2, channels) * 20
    skip = _rounded(*shape).requires_grad_() if residual else None
    upstream = torch.randn(shape).bfloat16()

    y, mean, var = NormAct.apply(z, gamma, beta, skip, act, _EPSILON, library)
    loss = (y * upstream).float().sum() + (mean * weights[0] + var * weights[1]).sum()
    loss.backward()
    found = [z.grad, gamma.grad, beta.grad] + ([skip.grad] if skip is not None else [])

    leaves = [x.detach().float().requires_grad_() for x in (z, gamma, beta)]
    other = None if skip is None else skip.detach().float().requires_grad_()
    expected, mean2, var2 = _normalise(*leaves, act)
    if other is not None:
        expected = expected + other
        leaves.append(other)
    loss = (expected * upstream.float()).sum() + (mean2 * weights[0] + var2 * weights[1]).sum()
    loss.backward()

    assert _off(y, expected) < 5e-3
    assert _off(mean, mean2) < 1e-5
    assert _off(var, var2) < 1e-5
    for a, b in zip(found, leaves, strict=True):
        assert a is not None
        assert b.grad is not None
        assert _off(a, b.grad) < 1e-2


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 9, 12])
@pytest.mark.parametrize("norm_first", [True, False])
def test_depthwise_between_norms(
    library: ctypes.CDLL, kernel: int, stride: int, size: int, norm_first: bool
) -> None:
    """Without activation, so that no value flips sides at a kink and errors stay those of bf16."""
    torch.manual_seed(kernel + stride)
    channels, act = 24, 0
    z, weight = (
        _rounded(4, size, size, channels).requires_grad_(),
        _leaf(channels, 1, kernel, kernel),
    )
    gammas = [_leaf(channels, low=0.5, high=2) for _ in range(2)]
    betas = [_leaf(channels) for _ in range(2)]
    before, after = edge_padding(size, kernel, stride, "same")
    side = -(-size // stride)
    first = (gammas[0], betas[0]) if norm_first else (None, None)
    y, *statistics = DepthwiseNorm.apply(
        *(z, *first, weight, gammas[1], betas[1]),
        *((side, side, before, kernel, stride), act, _EPSILON, library),
    )
    assert y.shape == (4, side, side, channels)
    upstream, weights = torch.randn(y.shape).bfloat16(), torch.randn(4, channels) * 20
    used = range(4) if norm_first else range(2, 4)
    loss = (y * upstream).float().sum() + sum((statistics[i] * weights[i]).sum() for i in used)
    loss.backward()
    inputs = [z, weight, gammas[1], betas[1], *(first if norm_first else ())]

    leaves = [x.detach().float().requires_grad_() for x in inputs if x is not None]
    h, expected = leaves[0], []
    if norm_first:
        h, *moments = _normalise(h, leaves[4], leaves[5], act)
        expected += moments
    u = F.conv2d(
        F.pad(h.permute(0, 3, 1, 2), (before, after, before, after)),
        leaves[1],
        None,
        stride,
        groups=channels,
    ).permute(0, 2, 3, 1)
    reference, *moments = _normalise(u, leaves[2], leaves[3], act)
    expected += moments
    loss = (reference * upstream.float()).sum() + sum(
        (m * weights[i]).sum() for i, m in zip(used, expected, strict=True)
    )
    loss.backward()
    assert _off(y, reference) < 5e-3
    for i, moment in zip(used, expected, strict=True):
        assert _off(statistics[i], moment) < 1e-4
    for a, b in zip(inputs, leaves, strict=True):
        assert a is not None
        assert a.grad is not None
        assert b.grad is not None
        assert _off(a.grad, b.grad) < 1.5e-2


def test_activation_gates_the_gradient(library: ctypes.CDLL) -> None:
    """Values far from the kinks, so that rounding flips none."""
    channels = 16
    z = torch.tensor([-9.0, 1.0, 3.0, 30.0]).view(1, 1, 4, 1).repeat(1, 4, 1, channels).bfloat16()
    z.requires_grad_()
    weight = torch.zeros(channels, 1, 3, 3)
    weight[:, :, 1, 1] = 1
    var, mean = torch.var_mean(z.detach().float(), (0, 1, 2), correction=0)
    gamma = (var + _EPSILON).sqrt().requires_grad_()
    beta = mean.clone().requires_grad_()
    u, _, _, mean2, _ = DepthwiseNorm.apply(
        *(z, gamma, beta, weight.requires_grad_(), torch.ones(channels), torch.zeros(channels)),
        *((4, 4, 1, 3, 1), 2, _EPSILON, library),
    )
    assert torch.allclose(mean2, torch.full((channels,), (0 + 1 + 3 + 6) / 4), atol=0.05)
    mean2.sum().backward()
    # beta moves only the values that lie inside the bounds: two of four
    assert beta.grad is not None
    assert torch.allclose(beta.grad, torch.full((channels,), 0.5), atol=1e-3)
    assert u.shape == z.shape


@pytest.mark.parametrize("name", ["cifar_micro", "cifar_lite"])
def test_the_fast_path_follows_the_definition(library: ctypes.CDLL, name: str) -> None:
    """bfloat16 against float32: the layers' statistics drift apart slowly with depth."""
    space = load_space(name)
    torch.manual_seed(0)
    supernet = Supernet(space).train()
    forward = fast_path(space)
    assert forward is not None
    subnet = space.smallest(space.resolutions[0])
    x = torch.randn(32, 3, subnet.resolution, subnet.resolution)
    collected: Statistics = {}
    with torch.no_grad():
        found = forward(supernet, x.permute(0, 2, 3, 1), subnet, collect=collected)
        expected = supernet(x, subnet)
        again = forward(supernet, x.permute(0, 2, 3, 1), subnet, statistics=collected)
    assert _off(found, expected) < 0.1
    # inference with the batch's own statistics is the same computation
    assert _off(again, found) < 1e-2
    # momentum 0.1 from one; torch keeps the unbiased variance
    block = supernet.block(0, 0).depthwise
    kept = block.norm.get_buffer("running_var")[: len(collected["stages.0.0.depthwise"][1])]
    assert _off(collected["stages.0.0.depthwise"][1], (kept - 0.9) * 10) < 0.02


def test_spaces_that_the_kernels_cannot_serve_have_no_fast_path() -> None:
    assert fast_path(load_space("ofa_mbv3")) is None


def test_the_library_is_compiled_once(library: ctypes.CDLL) -> None:
    assert all(a is b for a, b in pairwise([library, load_kernels(), load_kernels()]))
