"""Cuts one subnet out of a supernet, as a plain torch module.

The result knows nothing of elasticity: convolutions, batch norms, activations and one linear
layer, with explicit zero padding only where it is asymmetric, so that ``torch.export`` traces it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from edgeofa.elastic.supernet import ElasticBlock, ElasticConv, Supernet, edge_padding
from edgeofa.elastic.supernet import SqueezeExcite as ElasticSqueeze
from edgeofa.spaces.space import Layer, SpaceActivation, Subnet

__all__ = ["Network", "extract"]


def _activation(name: SpaceActivation) -> nn.Module:
    if name == "relu":
        return nn.ReLU()
    return nn.ReLU6() if name == "relu6" else nn.Hardswish()


class ConvNorm(nn.Sequential):
    """Optional zero padding, convolution, batch norm, optional activation."""

    def __init__(
        self,
        source: ElasticConv,
        weight: Tensor,
        size: int,
        stride: int,
        padding: Literal["same", "symmetric"],
        activation: SpaceActivation | None,
        groups: int = 1,
    ):
        kernel, width = weight.shape[-1], len(weight)
        before, after = edge_padding(size, kernel, stride, padding)
        layers: list[nn.Module] = []
        if before != after:
            layers.append(nn.ZeroPad2d((before, after, before, after)))
        inside = before if before == after else 0
        conv = nn.Conv2d(
            weight.shape[1] * groups, width, kernel, stride, inside, groups=groups, bias=False
        )
        norm = nn.BatchNorm2d(width, eps=source.norm.eps)
        with torch.no_grad():
            conv.weight.copy_(weight)
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, name).copy_(getattr(source.norm, name)[:width])
        layers += [conv, norm]
        if activation is not None:
            layers.append(_activation(activation))
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channel attention: ``x * hard_sigmoid(expand(relu(reduce(mean(x)))))``."""

    def __init__(self, source: ElasticSqueeze, mid: int):
        super().__init__()
        inner = source.inner(mid)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(mid, inner, 1), nn.Conv2d(inner, mid, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()
        with torch.no_grad():
            for target, origin in ((self.reduce, source.reduce), (self.expand, source.expand)):
                out, inputs = target.weight.shape[:2]
                target.weight.copy_(origin.weight[:out, :inputs])
                target.get_parameter("bias").copy_(origin.get_parameter("bias")[:out])

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))
        return x * scale


class MBConv(nn.Module):
    """One inverted bottleneck of fixed width and kernel."""

    def __init__(self, source: ElasticBlock, layer: Layer, size: int):
        super().__init__()
        mid, padding, activation = source.width(layer), source.padding, source.activation
        self.residual = source.residual
        layers: list[nn.Module] = []
        if source.expand is not None:
            weight = source.expand.weight[:mid]
            layers.append(ConvNorm(source.expand, weight, size, 1, padding, activation))
        weight = source.kernel_weight(layer)
        layers.append(
            ConvNorm(source.depthwise, weight, size, source.stride, padding, activation, mid)
        )
        if source.squeeze is not None:
            layers.append(SqueezeExcite(source.squeeze, mid))
        weight = source.project.weight[:, :mid]
        layers.append(ConvNorm(source.project, weight, size, 1, padding, None))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y + x if self.residual else y


class Network(nn.Module):
    """A subnet on its own: images ``[N, 3, R, R]`` to logits ``[N, classes]``."""

    def __init__(self, supernet: Supernet, subnet: Subnet):
        super().__init__()
        space = supernet.space
        size, stem = subnet.resolution, space.stem
        self.stem = ConvNorm(
            supernet.stem, supernet.stem.weight, size, stem.stride, space.padding, stem.activation
        )
        size = -(-size // stem.stride)
        blocks = []
        for i, layers in enumerate(subnet.stages):
            for j, layer in enumerate(layers):
                source = supernet.block(i, j)
                blocks.append(MBConv(source, layer, size))
                size = -(-size // source.stride)
        self.blocks = nn.Sequential(*blocks)
        head = space.head
        self.head = ConvNorm(
            supernet.head, supernet.head.weight, size, 1, space.padding, head.activation
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        mix: list[nn.Module] = []
        if supernet.mix is not None:
            conv = nn.Conv2d(head.expand, head.mix, 1, bias=False)
            conv.load_state_dict(supernet.mix.state_dict())
            mix = [conv, _activation(head.activation)]
        self.mix = nn.Sequential(*mix)
        self.flatten = nn.Flatten()
        classifier = supernet.classifier
        self.classifier = nn.Linear(classifier.in_features, classifier.out_features)
        self.classifier.load_state_dict(classifier.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.head(self.blocks(self.stem(x))))
        logits: Tensor = self.classifier(self.flatten(self.mix(y)))
        return logits


def extract(supernet: Supernet, subnet: Subnet) -> Network:
    """The subnet's own network in evaluation mode, weights copied.

    Its batch norms hold the supernet's running statistics, which fit no subnet: recalibrate them
    (:func:`edgeofa.training.recalibrate.recalibrate`) before use.
    """
    supernet.space.validate_subnet(subnet)
    network = Network(supernet, subnet).requires_grad_(False)
    network.eval()
    return network
