"""Sorts the middle channels of every block by importance, so that narrow subnets keep the best.

A permutation of channels inside a block: the full network computes what it computed before. The
importance of a channel is the L1 norm of what the next convolution makes of it. When a second, a
third width is opened, the channels that each opened width added stay together, and are sorted
among themselves (``stage``). As in once-for-all (Cai et al. 2020, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from edgeofa.elastic.resnet import EXPANDS, Bottleneck, ResNetSupernet
from edgeofa.elastic.supernet import ElasticBlock, ElasticConv, SqueezeExcite, Supernet
from edgeofa.spaces.space import make_divisible

__all__ = ["permute_channels", "reorganise"]

#: the reference's offset between groups, added in float32: ties that its rounding makes are its own
_OFFSET = 1e5


@torch.no_grad()
def reorganise(
    supernet: Supernet | ResNetSupernet, stage: int = 0, also: Supernet | None = None
) -> None:
    """Sorts all blocks in place.

    Args:
        stage: number of widths that are open already beside the largest: 0 before the first
            shrinking, 1 before the second.
        also: a supernet of the same space that gets the same order (averaged weights).
    """
    for name, module in supernet.named_modules():
        if isinstance(module, ElasticBlock) and len(module.expands) > 1:
            widths = [make_divisible(module.cin * e) for e in module.expands]
            order = _order(module.project.weight, widths, stage)
            inner = permute_channels(module, order)
            if also is not None:
                permute_channels(cast(ElasticBlock, also.get_submodule(name)), order, inner)
        elif isinstance(module, Bottleneck):
            widths = [make_divisible(round(module.largest_out * e)) for e in EXPANDS]
            order = _order(module.conv3.weight, widths, stage)
            _select(module.conv3, inputs=order)
            _select(module.conv2, outputs=order)
            order = _order(module.conv2.weight, widths, stage)
            _select(module.conv2, inputs=order)
            _select(module.conv1, outputs=order)


def _order(following: Tensor, widths: Sequence[int], stage: int) -> Tensor:
    """Channels, most important first; ``following`` is the weight ``[out, in]`` that reads them."""
    importance = following.abs().sum((0, 2, 3))
    descending = sorted(widths, reverse=True)
    if stage > 0:
        for i, (right, left) in enumerate(pairwise(descending[: stage + 1])):
            importance[left:right] += (i + 1 - len(descending)) * _OFFSET
    return torch.sort(importance, descending=True)[1]


@torch.no_grad()
def permute_channels(
    block: ElasticBlock, order: Tensor, inner: Tensor | None = None
) -> Tensor | None:
    """Puts a block's middle channels in another order; the block computes what it computed.

    ``inner`` orders its squeeze-excite's inner channels, by default by their importance; returns
    that order, None where there is no squeeze-excite.
    """
    _select(block.project, inputs=order)
    _select(block.depthwise, outputs=order)
    if block.squeeze is not None:
        inner = _permute_squeeze(block.squeeze, order, inner)
    if block.expand is not None:
        _select(block.expand, outputs=order)
    return inner


def _permute_squeeze(squeeze: SqueezeExcite, order: Tensor, inner: Tensor | None) -> Tensor:
    """The outer channels follow the block's, the inner ones are sorted by their own importance."""
    reduce, expand = squeeze.reduce, squeeze.expand
    expand.weight.copy_(expand.weight[order].clone())
    bias = expand.get_parameter("bias")
    bias.copy_(bias[order].clone())
    reduce.weight.copy_(reduce.weight[:, order].clone())
    if inner is None:
        inner = torch.sort(expand.weight.abs().sum((0, 2, 3)), descending=True)[1]
    expand.weight.copy_(expand.weight[:, inner].clone())
    reduce.weight.copy_(reduce.weight[inner].clone())
    bias = reduce.get_parameter("bias")
    bias.copy_(bias[inner].clone())
    return inner


def _select(
    conv: ElasticConv, *, outputs: Tensor | None = None, inputs: Tensor | None = None
) -> None:
    """Permutes a convolution's channels, and its batch norm with the outputs."""
    if inputs is not None:
        conv.weight.copy_(conv.weight[:, inputs].clone())
    if outputs is not None:
        conv.weight.copy_(conv.weight[outputs].clone())
        for name in ("weight", "bias"):
            parameter = conv.norm.get_parameter(name)
            parameter.copy_(parameter[outputs].clone())
        for name in ("running_mean", "running_var"):
            buffer = conv.norm.get_buffer(name)
            buffer.copy_(buffer[outputs].clone())
