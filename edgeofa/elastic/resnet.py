"""The elastic ResNet50 of once-for-all: bottlenecks whose width, depth and expansion are chosen.

It has choices that a staged MBConv space has not: the width of every stage and of the stem, an
optional stem layer, and an expansion relative to the output. So it has a choice of its own,
``ResNetSubnet``, and no space file; the solver knows nothing of it. Behaviour as in
mit-han-lab/once-for-all: average pooling before the 1x1 shortcut (windows at the edge average the
pixels that exist), batch norm epsilon 1e-5, widths rounded to multiples of 8.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeofa.elastic.extract import ConvNorm
from edgeofa.elastic.supernet import ElasticConv
from edgeofa.errors import UsageError
from edgeofa.spaces.space import make_divisible

__all__ = ["ResNetStage", "ResNetSubnet", "ResNetSupernet", "extract_resnet", "resnet_subnet"]

WIDTHS = (0.65, 0.8, 1.0)
EXPANDS = (0.2, 0.25, 0.35)
#: blocks of a stage that are always there, and how many more there can be
_BASE_DEPTHS, _MORE = (2, 2, 4, 2), 2
_STAGE_WIDTHS, _STRIDES = (256, 512, 1024, 2048), (1, 2, 2, 2)
_STEM = 64
_CLASSES = 1000
_EPSILON = 1e-5


@dataclass(frozen=True, order=True)
class ResNetStage:
    """Width multiplier of a stage, and the expansion of each of its blocks."""

    width: float
    expands: tuple[float, ...]


@dataclass(frozen=True, order=True)
class ResNetSubnet:
    """One network: resolution, stem widths (its first layers, its last), stages.

    ``str`` gives ``ofa_resnet50@224/1,1+/1:0.35,0.35/...``; the ``+`` marks the extra stem layer.
    """

    resolution: int
    extra_stem: bool
    stem_widths: tuple[float, float]
    stages: tuple[ResNetStage, ...]

    def __str__(self) -> str:
        stem = ",".join(f"{w:g}" for w in self.stem_widths) + ("+" if self.extra_stem else "")
        stages = (f"{s.width:g}:{','.join(f'{e:g}' for e in s.expands)}" for s in self.stages)
        return "/".join([f"ofa_resnet50@{self.resolution}", stem, *stages])


def _listed(value: Any, count: int, what: str) -> list[Any]:
    """A list of ``count``; one value stands for all, as in the reference."""
    values = list(value) if isinstance(value, Sequence) else [value] * count
    if len(values) != count:
        raise UsageError(f"{len(values)} values of {what}, not {count}", where="ofa_resnet50")
    return values


def resnet_subnet(config: Mapping[str, Any], resolution: int) -> ResNetSubnet:
    """The subnet of the reference's ``{"d": ..., "e": ..., "w": ...}``.

    ``d``: stem, then how many blocks each stage has beyond the base; the stem's extra layer is
    there only at the largest value. ``e``: one for every block of the largest network. ``w``:
    indices into the widths, for the stem's first and last layers and each stage. Each may be one
    number for all.

    Raises:
        UsageError: a choice that the supernet has not.
    """
    depths = _listed(config.get("d", _MORE), 1 + len(_BASE_DEPTHS), "d")
    count = sum(_BASE_DEPTHS) + _MORE * len(_BASE_DEPTHS)
    expands = _listed(config.get("e", EXPANDS[-1]), count, "e")
    widths = _listed(config.get("w", len(WIDTHS) - 1), 2 + len(_BASE_DEPTHS), "w")
    for name, values, allowed in (
        ("d", depths, range(_MORE + 1)),
        ("e", expands, EXPANDS),
        ("w", widths, range(len(WIDTHS))),
    ):
        for value in values:
            if value not in allowed:
                raise UsageError(
                    f"{name}={value} is not a choice", where="ofa_resnet50", hint=f"{[*allowed]}"
                )
    stages, start = [], 0
    for base, more, width in zip(_BASE_DEPTHS, depths[1:], widths[2:], strict=True):
        stages.append(ResNetStage(WIDTHS[width], tuple(expands[start : start + base + more])))
        start += base + _MORE
    stem = WIDTHS[widths[0]], WIDTHS[widths[1]]
    return ResNetSubnet(resolution, depths[0] == _MORE, stem, tuple(stages))


def sample_resnet(rng: random.Random, resolution: int) -> ResNetSubnet:
    """A random subnet, every choice uniform."""
    count = sum(_BASE_DEPTHS) + _MORE * len(_BASE_DEPTHS)
    return resnet_subnet(
        {
            "d": [rng.choice((0, _MORE)), *(rng.randint(0, _MORE) for _ in _BASE_DEPTHS)],
            "e": [rng.choice(EXPANDS) for _ in range(count)],
            "w": [rng.randrange(len(WIDTHS)) for _ in range(2 + len(_BASE_DEPTHS))],
        },
        resolution,
    )


def stem_channels(widths: tuple[float, float]) -> tuple[int, int]:
    """Channels of the stem's first layers and of its last."""
    first, last = (make_divisible(_STEM * w) for w in widths)
    return make_divisible(first // 2), last


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions at their widest, and the shortcut's convolution."""

    def __init__(self, cin: int, cout: int, stride: int, *, projects: bool):
        super().__init__()
        self.stride, mid = stride, make_divisible(round(cout * EXPANDS[-1]))
        self.largest_out = cout
        self.conv1 = ElasticConv(mid, cin, 1, _EPSILON, cin)
        self.conv2 = ElasticConv(mid, mid, 3, _EPSILON, 9 * mid)
        self.conv3 = ElasticConv(cout, mid, 1, _EPSILON, mid)
        self.downsample = ElasticConv(cout, cin, 1, _EPSILON, cin) if projects else None

    def forward(self, x: Tensor, cout: int, expand: float) -> Tensor:
        cin, mid = x.shape[1], make_divisible(round(cout * expand))
        shortcut = x
        if self.downsample is not None:
            if self.stride > 1:
                shortcut = F.avg_pool2d(shortcut, self.stride, ceil_mode=True)
            weight = self.downsample.weight[:cout, :cin]
            shortcut = self.downsample.normalise(F.conv2d(shortcut, weight))
        y = F.relu(self.conv1.normalise(F.conv2d(x, self.conv1.weight[:mid, :cin])))
        y = F.conv2d(y, self.conv2.weight[:mid, :mid], None, self.stride, 1)
        y = F.relu(self.conv2.normalise(y))
        y = self.conv3.normalise(F.conv2d(y, self.conv3.weight[:cout, :mid]))
        return F.relu(y + shortcut)


class ResNetSupernet(nn.Module):
    """The whole elastic network, randomly initialised; call it with images and a subnet."""

    name = "ofa_resnet50"

    def __init__(self) -> None:
        super().__init__()
        mid, cin = stem_channels((1.0, 1.0))
        self.stem = nn.ModuleList(
            [
                ElasticConv(mid, 3, 3, _EPSILON, 27),
                ElasticConv(mid, mid, 3, _EPSILON, 9 * mid),
                ElasticConv(cin, mid, 3, _EPSILON, 9 * mid),
            ]
        )
        stages = []
        for base, cout, stride in zip(_BASE_DEPTHS, _STAGE_WIDTHS, _STRIDES, strict=True):
            blocks = []
            for i in range(base + _MORE):
                blocks.append(Bottleneck(cin, cout, stride if i == 0 else 1, projects=i == 0))
                cin = cout
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(cin, _CLASSES)

    def blocks(self, subnet: ResNetSubnet) -> Iterator[tuple[Bottleneck, int, float]]:
        """The blocks that a subnet uses, with their channels and expansion."""
        for blocks, widest, stage in zip(self.stages, _STAGE_WIDTHS, subnet.stages, strict=True):
            for block, expand in zip(cast(nn.ModuleList, blocks), stage.expands, strict=False):
                yield cast(Bottleneck, block), make_divisible(widest * stage.width), expand

    def stem_layers(self, subnet: ResNetSubnet) -> Iterator[tuple[ElasticConv, int, int, bool]]:
        """Stem convolutions with channels, stride, and whether the input is added."""
        first, last = stem_channels(subnet.stem_widths)
        layers = [cast(ElasticConv, layer) for layer in self.stem]
        yield layers[0], first, 2, False
        if subnet.extra_stem:
            yield layers[1], first, 1, True
        yield layers[2], last, 1, False

    def forward(self, x: Tensor, subnet: ResNetSubnet) -> Tensor:
        for layer, cout, stride, adds in self.stem_layers(subnet):
            y = F.conv2d(x, layer.weight[:cout, : x.shape[1]], None, stride, 1)
            y = F.relu(layer.normalise(y))
            x = y + x if adds else y
        x = F.max_pool2d(x, 3, 2, 1)
        for block, cout, expand in self.blocks(subnet):
            x = block(x, cout, expand)
        x = x.mean((2, 3))
        return F.linear(x, self.classifier.weight[:, : x.shape[1]], self.classifier.bias)


class _Stem(nn.Module):
    def __init__(self, layer: ConvNorm, *, adds: bool):
        super().__init__()
        self.layer, self.adds = layer, adds

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y + x if self.adds else y


class _Block(nn.Module):
    """A bottleneck of fixed width."""

    def __init__(self, source: Bottleneck, cin: int, cout: int, expand: float):
        super().__init__()
        mid = make_divisible(round(cout * expand))

        def layer(conv: ElasticConv, out: int, inputs: int, stride: int, *, relu: bool) -> ConvNorm:
            weight = conv.weight[:out, :inputs]
            return ConvNorm(conv, weight, 0, stride, "symmetric", "relu" if relu else None)

        self.layers = nn.Sequential(
            layer(source.conv1, mid, cin, 1, relu=True),
            layer(source.conv2, mid, mid, source.stride, relu=True),
            layer(source.conv3, cout, mid, 1, relu=False),
        )
        shortcut: list[nn.Module] = []
        if source.downsample is not None:
            if source.stride > 1:
                shortcut.append(nn.AvgPool2d(source.stride, ceil_mode=True))
            shortcut.append(layer(source.downsample, cout, cin, 1, relu=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.layers(x) + self.shortcut(x))
        return y


class ResNet(nn.Module):
    """A subnet on its own: images ``[N, 3, R, R]`` to logits ``[N, 1000]``."""

    def __init__(self, supernet: ResNetSupernet, subnet: ResNetSubnet):
        super().__init__()
        cin, stem = 3, []
        for layer, cout, stride, adds in supernet.stem_layers(subnet):
            weight = layer.weight[:cout, :cin]
            conv = ConvNorm(layer, weight, 0, stride, "symmetric", "relu")
            stem.append(_Stem(conv, adds=adds))
            cin = cout
        blocks = []
        for block, cout, expand in supernet.blocks(subnet):
            blocks.append(_Block(block, cin, cout, expand))
            cin = cout
        self.stem, self.max_pool = nn.Sequential(*stem), nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(*blocks)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Linear(cin, supernet.classifier.out_features)
        with torch.no_grad():
            self.classifier.weight.copy_(supernet.classifier.weight[:, :cin])
            self.classifier.bias.copy_(supernet.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.blocks(self.max_pool(self.stem(x))))
        logits: Tensor = self.classifier(self.flatten(y))
        return logits


def extract_resnet(supernet: ResNetSupernet, subnet: ResNetSubnet) -> ResNet:
    """The subnet's own network in evaluation mode, weights copied; recalibrate it before use."""
    network = ResNet(supernet, subnet).requires_grad_(False)
    network.eval()
    return network
