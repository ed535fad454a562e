"""The torch network of a ``net.config``, with the entry names of its official checkpoint."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgeofa.elastic.net_config import (
    PUBLISHED,
    Activation,
    BottleneckConfig,
    ConvConfig,
    MBConvConfig,
    NetConfig,
    ResidualConfig,
    ResNetConfig,
    find_subnet,
    read_net_config,
    read_resolution,
)
from edgeofa.elastic.supernet import SqueezeExcite as ElasticSqueeze
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces import Subnet
from edgeofa.torchfile import read_state_dict

__all__ = ["Specialised", "SpecialisedNetwork", "build_specialised", "import_net_config"]

_MAX_BYTES = 1 << 30
_ACTIVATIONS: Mapping[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "h_swish": nn.Hardswish,
}


def _layer(
    inputs: int,
    out: int,
    kernel: int,
    stride: int,
    act: Activation | None,
    epsilon: float,
    *,
    groups: int = 1,
    norm: bool = True,
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm:
        layers["bn"] = nn.BatchNorm2d(out, eps=epsilon)
    if act is not None:
        layers["act"] = _ACTIVATIONS[act]()
    return nn.Sequential(layers)


def _conv(c: ConvConfig, epsilon: float) -> nn.Sequential:
    return _layer(
        c.in_channels,
        c.out_channels,
        c.kernel_size,
        c.stride,
        c.act_func,
        epsilon,
        norm=c.use_bn,
    )


class _Squeeze(nn.Module):
    def __init__(self, mid: int):
        super().__init__()
        inner = ElasticSqueeze.inner(mid)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            OrderedDict[str, nn.Module](
                reduce=nn.Conv2d(mid, inner, 1),
                relu=nn.ReLU(),
                expand=nn.Conv2d(inner, mid, 1),
                h_sigmoid=nn.Hardsigmoid(),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc(self.pool(x))
        return x * gate


class _MBConv(nn.Module):
    def __init__(self, c: MBConvConfig, epsilon: float):
        super().__init__()
        mid = c.mid
        self.inverted_bottleneck = (
            None if c.expand_ratio == 1 else _layer(c.in_channels, mid, 1, 1, c.act_func, epsilon)
        )
        self.depth_conv = _layer(mid, mid, c.kernel_size, c.stride, c.act_func, epsilon, groups=mid)
        if c.use_se:
            self.depth_conv.add_module("se", _Squeeze(mid))
        self.point_linear = _layer(mid, c.out_channels, 1, 1, None, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        if self.inverted_bottleneck is not None:
            x = self.inverted_bottleneck(x)
        y: Tensor = self.point_linear(self.depth_conv(x))
        return y


class _Residual(nn.Module):
    def __init__(self, c: ResidualConfig, epsilon: float):
        super().__init__()
        inner = c.conv
        self.conv = (
            _MBConv(inner, epsilon) if isinstance(inner, MBConvConfig) else _conv(inner, epsilon)
        )
        self.adds = c.shortcut is not None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y + x if self.adds else y


class _Bottleneck(nn.Module):
    def __init__(self, c: BottleneckConfig, epsilon: float):
        super().__init__()
        cin, mid, cout, act = c.in_channels, c.mid, c.out_channels, c.act_func
        self.conv1 = _layer(cin, mid, 1, 1, act, epsilon)
        self.conv2 = _layer(mid, mid, c.kernel_size, c.stride, act, epsilon)
        self.conv3 = _layer(mid, cout, 1, 1, None, epsilon)
        self.downsample: nn.Module = nn.Identity()
        if c.stride != 1 or cin != cout:
            pools = c.downsample_mode == "avgpool_conv"
            conv = _layer(cin, cout, 1, 1 if pools else c.stride, None, epsilon)
            pool = nn.AvgPool2d(c.stride, ceil_mode=True) if c.stride > 1 else nn.Identity()
            layers: OrderedDict[str, nn.Module] = OrderedDict(conv.named_children())
            if pools:
                layers["avg_pool"] = pool
                layers.move_to_end("avg_pool", last=False)
            self.downsample = nn.Sequential(layers)
        self.final_act = _ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x)))
        z: Tensor = self.final_act(y + self.downsample(x))
        return z


class Specialised(nn.Module):
    """Images ``[N, 3, R, R]`` to logits; entries are named as in the official checkpoint."""

    def __init__(self, config: NetConfig):
        super().__init__()
        epsilon = config.bn.eps
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        if isinstance(config, ResNetConfig):
            self.input_stem = nn.ModuleList(
                _Residual(c, epsilon) if isinstance(c, ResidualConfig) else _conv(c, epsilon)
                for c in config.input_stem
            )
            self.blocks = nn.ModuleList(_Bottleneck(c, epsilon) for c in config.blocks)
            self.max_pooling = nn.MaxPool2d(3, 2, 1)
            before = [*self.input_stem, self.max_pooling, *self.blocks, self.pool]
        else:
            self.first_conv = _conv(config.first_conv, epsilon)
            self.blocks = nn.ModuleList(_Residual(c, epsilon) for c in config.blocks)
            self.feature_mix_layer = _conv(config.feature_mix_layer, epsilon)
            after = [self.feature_mix_layer, self.pool]
            if config.final_expand_layer is not None:
                self.final_expand_layer = _conv(config.final_expand_layer, epsilon)
                after = [self.final_expand_layer, self.pool, self.feature_mix_layer]
            before = [self.first_conv, *self.blocks, *after]
        linear = config.classifier
        self.classifier = nn.Sequential(
            OrderedDict(linear=nn.Linear(linear.in_features, linear.out_features, linear.bias))
        )
        #: not a module list: each is registered once, under its official name
        self._order = (*before, self.flatten, self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        for module in self._order:
            x = module(x)
        return x


def build_specialised(config: NetConfig, weights: Path | None = None, seed: int = 0) -> Specialised:
    """The network in evaluation mode, with the weights of its checkpoint or seeded random ones.

    Raises:
        MissingMaterial: no such checkpoint.
        FileFormatError: an entry is missing, foreign or misshapen (named).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Specialised(config)
    if weights is not None:
        _load(network, read_state_dict(weights, _MAX_BYTES, PUBLISHED), weights)
    return network.eval().requires_grad_(False)


def _load(network: Specialised, state: Mapping[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    given = {k.replace(".mobile_inverted_conv.", ".conv."): v for k, v in state.items()}
    for name, target in own.items():
        if name not in given:
            if name.endswith("num_batches_tracked"):
                continue
            near = difflib.get_close_matches(name, given.keys() - own.keys(), n=1, cutoff=0.8)
            hint = f"the file has {near[0][:200]}" if near else None
            raise FileFormatError(f"entry {name} is missing", where=path, hint=hint)
        if given[name].shape != target.shape:
            raise FileFormatError(
                f"entry {name} has shape {list(given[name].shape)}, not {list(target.shape)}",
                where=path,
            )
    foreign = sorted(given.keys() - own.keys())
    if foreign:
        raise FileFormatError(
            f"entry {foreign[0][:200]} is foreign ({len(foreign)} in all)", where=path
        )
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)


@dataclass(frozen=True)
class SpecialisedNetwork:
    """What a ``net.config`` turned out to be. ``subnet`` is None for a network of no shipped space;
    ``macs`` are for one image."""

    name: str
    subnet: Subnet | None
    resolution: int
    macs: int
    parameters: int
    weights: Literal["trained", "random"]
    artifact: Path | None


def import_net_config(
    path: Path,
    *,
    resolution: int | None = None,
    weights: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> SpecialisedNetwork:
    """Read a ``net.config``, build its graph, and compile it where ``out`` names a file.

    Args:
        resolution: input size; by default that of the ``run.config`` in the same folder.
        weights: the checkpoint (``init``) that belongs to it; seeded random weights without.
        out: a ``.tflite`` or ``.onnx`` file, float32.
    """
    from edgeofa.backends.registry import get_backend
    from edgeofa.graph.importers.torch_export import import_module
    from edgeofa.graph.ops import macs

    compilers = {".tflite": "litert", ".onnx": "onnxruntime"}
    if out is not None and out.suffix not in compilers:
        raise UsageError(f"cannot compile to {out.name}", hint="a .tflite or .onnx file")
    config = read_net_config(path)
    size = resolution or read_resolution(path.with_name("run.config"))
    network = build_specialised(config, weights, seed)
    subnet = find_subnet(config, size)
    graph = import_module(network, torch.zeros(1, 3, size, size), str(subnet or config.name))
    artifact = None
    if out is not None:
        artifact = get_backend(compilers[out.suffix]).compile(graph, out).path
    return SpecialisedNetwork(
        name=config.name,
        subnet=subnet,
        resolution=size,
        macs=macs(graph),
        parameters=sum(p.numel() for p in network.parameters()),
        weights="random" if weights is None else "trained",
        artifact=artifact,
    )
