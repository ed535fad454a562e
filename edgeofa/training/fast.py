"""The supernet's forward pass on the compiled kernels: the same network, in bfloat16, NHWC.

Used for training, measuring accuracies and making calibration images; the plain torch path
(:meth:`Supernet.forward`) is the definition, and the tests hold the two against each other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeofa.elastic.supernet import ElasticBlock, ElasticConv, Supernet, edge_padding
from edgeofa.errors import UsageError
from edgeofa.spaces.space import Layer, Space, Subnet
from edgeofa.training.kernels import load_kernels
from edgeofa.training.ops import (
    ACTIVATION_CODES,
    Affine,
    DepthwiseNorm,
    NormAct,
    affine,
    depthwise_infer,
    norm_apply,
)

__all__ = ["FastPath", "Statistics", "fast_path"]

#: batch-norm name -> (mean, biased variance), of the active channels
Statistics = dict[str, tuple[Tensor, Tensor]]


def fast_path(space: Space) -> FastPath | None:
    """The fast path for a space, or None where the machine or the space does not allow it."""
    activations = {
        space.stem.activation,
        space.head.activation,
        *(s.activation for s in space.stages),
    }
    supported = activations <= ACTIVATION_CODES.keys() and not any(s.se for s in space.stages)
    library = load_kernels()
    if library is None or not supported or space.head.mix or space.padding != "same":
        return None
    return FastPath(library)


class FastPath:
    """Forward passes of a supernet on one compiled library."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library

    def __call__(
        self,
        supernet: Supernet,
        images: Tensor,
        subnet: Subnet,
        collect: Statistics | None = None,
        statistics: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Logits ``[N, classes]`` float32 of images ``[N, R, R, 3]`` (preprocessed, any float).

        Batch norm uses the batch's own statistics, which ``collect`` receives (differentiable), or
        else the given ``statistics`` (then there are no gradients).
        """
        space = supernet.space
        x = images.to(torch.bfloat16)
        stem = supernet.stem
        z = _stem(x, stem.weight, space.stem.stride)
        act = ACTIVATION_CODES[space.stem.activation]
        y = self._norm(z, stem, "stem", act, collect, statistics)
        for i, layers in enumerate(subnet.stages):
            for j, layer in enumerate(layers):
                y = self._block(
                    y, supernet.block(i, j), layer, f"stages.{i}.{j}", collect, statistics
                )
        z = y @ supernet.head.weight.flatten(1).to(torch.bfloat16).t()
        act = ACTIVATION_CODES[space.head.activation]
        y = self._norm(z, supernet.head, "head", act, collect, statistics)
        logits: Tensor = supernet.classifier(y.float().mean((1, 2)))
        return logits

    def _norm(
        self,
        z: Tensor,
        conv: ElasticConv,
        name: str,
        act: int,
        collect: Statistics | None,
        statistics: Mapping[str, tuple[Tensor, Tensor]] | None,
        residual: Tensor | None = None,
    ) -> Tensor:
        norm, width = conv.norm, z.shape[-1]
        gamma, beta = norm.weight[:width], norm.bias[:width]
        if statistics is not None:
            line = _line(conv, name, width, statistics)
            return norm_apply(self._library, z.contiguous(), line, act, residual)
        y, mean, var = NormAct.apply(  # type: ignore[no-untyped-call]
            z, gamma, beta, residual, act, norm.eps, self._library
        )
        if collect is not None:
            collect[name] = (mean, var)
        result: Tensor = y
        return result

    def _block(
        self,
        x: Tensor,
        block: ElasticBlock,
        layer: Layer,
        name: str,
        collect: Statistics | None,
        statistics: Mapping[str, tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        mid, act = block.width(layer), ACTIVATION_CODES[block.activation]
        height, width = x.shape[1:3]
        if height != width:
            raise UsageError(f"images must be square, not {list(x.shape)}")
        before, _ = edge_padding(height, layer.kernel, block.stride, block.padding)
        side = -(-height // block.stride)
        shape = (side, side, before, layer.kernel, block.stride)
        depthwise, expand = block.depthwise, block.expand
        norm = depthwise.norm
        if expand is None:
            z, gamma, beta = x, None, None
        else:
            z = x @ expand.weight[:mid].flatten(1).to(torch.bfloat16).t()
            gamma, beta = expand.norm.weight[:mid], expand.norm.bias[:mid]
        weight = block.kernel_weight(layer)
        if statistics is not None:
            inner = None if expand is None else _line(expand, f"{name}.expand", mid, statistics)
            taps = weight.reshape(mid, -1).t().contiguous()
            u, _, _ = depthwise_infer(self._library, z.contiguous(), inner, taps, shape, act)
            line = _line(depthwise, f"{name}.depthwise", mid, statistics)
            y = norm_apply(self._library, u, line, act)
        else:
            y, mean, var, mean2, var2 = DepthwiseNorm.apply(  # type: ignore[no-untyped-call]
                *(z, gamma, beta, weight, norm.weight[:mid], norm.bias[:mid]),
                *(shape, act, norm.eps, self._library),
            )
            if collect is not None:
                if expand is not None:
                    collect[f"{name}.expand"] = (mean, var)
                collect[f"{name}.depthwise"] = (mean2, var2)
        z = y @ block.project.weight[:, :mid].flatten(1).to(torch.bfloat16).t()
        residual = x if block.residual else None
        return self._norm(z, block.project, f"{name}.project", 0, collect, statistics, residual)


def _line(
    conv: ElasticConv, name: str, width: int, statistics: Mapping[str, tuple[Tensor, Tensor]]
) -> Affine:
    norm = conv.norm
    mean, var = statistics[name]
    with torch.no_grad():
        return affine(norm.weight[:width], norm.bias[:width], mean, var, norm.eps)


def _stem(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The first convolution as patches times a matrix; three channels are too few for more."""
    kernel, height = weight.shape[-1], x.shape[1]
    before, after = edge_padding(height, kernel, stride, "same")
    x = F.pad(x, (0, 0, before, after, before, after))
    side = -(-height // stride)
    span = (side - 1) * stride + 1
    patches = torch.cat(
        [
            x[:, u : u + span : stride, v : v + span : stride]
            for u in range(kernel)
            for v in range(kernel)
        ],
        dim=3,
    )
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
    return patches @ matrix.to(torch.bfloat16)
