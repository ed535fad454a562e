"""Specialised networks as once-for-all publishes them: ``net.config``, read and checked.

A ``net.config`` is JSON that spells out every layer. Where the network is one of a declared space,
it is that space's subnet; any other is a network of its own all the same
(:mod:`edgeofa.elastic.specialised`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Layer, Space, Subnet, load_space
from edgeofa.spaces.space import make_divisible

__all__ = ["NetConfig", "find_subnet", "read_net_config", "read_resolution"]

_MAX_BYTES = 4 << 20
#: spaces that a specialised network can be of
_SPACES = ("ofa_mbv3", "ofa_mbv3_w12", "ofa_proxyless")
PUBLISHED = (
    "the authors publish specialised networks in folder ofa/ofa_specialized of "
    "github.com/han-cai/files; github.com/mit-han-lab/once-for-all lists them"
)

Activation = Literal["relu", "relu6", "h_swish"]
Channels = Annotated[int, Field(gt=0, le=1 << 14)]
Kernel = Annotated[int, Field(gt=0, le=15)]
Stride = Annotated[int, Field(gt=0, le=4)]


class _Config(BaseModel):
    # the files hold more keys than anything depends on
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ConvConfig(_Config):
    name: Literal["ConvLayer"]
    in_channels: Channels
    out_channels: Channels
    kernel_size: Kernel
    stride: Stride = 1
    dilation: Literal[1] = 1
    groups: Literal[1] = 1
    bias: Literal[False] = False
    has_shuffle: Literal[False] = False
    use_bn: bool = True
    act_func: Activation | None
    ops_order: Literal["weight_bn_act"] = "weight_bn_act"


class MBConvConfig(_Config):
    name: Literal["MBConvLayer", "MBInvertedConvLayer"]
    in_channels: Channels
    out_channels: Channels
    kernel_size: Kernel
    stride: Stride
    expand_ratio: float = Field(gt=0, le=64)
    mid_channels: Channels | None = None
    act_func: Activation
    use_se: bool = False
    groups: None = None

    @property
    def mid(self) -> int:
        return self.mid_channels or round(self.in_channels * self.expand_ratio)


class ShortcutConfig(_Config):
    name: Literal["IdentityLayer"]


class ResidualConfig(_Config):
    """A layer, and the identity beside it or nothing."""

    name: Literal["ResidualBlock", "MobileInvertedResidualBlock"]
    conv: MBConvConfig | ConvConfig = Field(
        validation_alias=AliasChoices("conv", "mobile_inverted_conv"), discriminator="name"
    )
    shortcut: ShortcutConfig | None


class BottleneckConfig(_Config):
    name: Literal["ResNetBottleneckBlock"]
    in_channels: Channels
    out_channels: Channels
    kernel_size: Kernel
    stride: Stride
    expand_ratio: float = Field(gt=0, le=8)
    mid_channels: Channels | None = None
    act_func: Activation
    groups: Literal[1] = 1
    downsample_mode: Literal["avgpool_conv", "conv"] = "avgpool_conv"

    @property
    def mid(self) -> int:
        return make_divisible(self.mid_channels or round(self.out_channels * self.expand_ratio))


class LinearConfig(_Config):
    name: Literal["LinearLayer"]
    in_features: Channels
    out_features: Channels
    bias: bool = True
    use_bn: Literal[False] = False
    act_func: None = None


class BatchNormConfig(_Config):
    eps: float = Field(gt=0, lt=1)


class MobileConfig(_Config):
    """MobileNetV3 and ProxylessNAS."""

    name: Literal["MobileNetV3", "ProxylessNASNets"]
    bn: BatchNormConfig
    first_conv: ConvConfig
    blocks: tuple[ResidualConfig, ...] = Field(min_length=1, max_length=200)
    final_expand_layer: ConvConfig | None = None
    feature_mix_layer: ConvConfig
    classifier: LinearConfig


class ResNetConfig(_Config):
    name: Literal["ResNets"]
    bn: BatchNormConfig
    input_stem: tuple[Annotated[ConvConfig | ResidualConfig, Field(discriminator="name")], ...] = (
        Field(min_length=1, max_length=8)
    )
    blocks: tuple[BottleneckConfig, ...] = Field(min_length=1, max_length=200)
    classifier: LinearConfig


NetConfig = MobileConfig | ResNetConfig
_ANY: TypeAdapter[NetConfig] = TypeAdapter(Annotated[NetConfig, Field(discriminator="name")])


def read_net_config(path: Path) -> NetConfig:
    """The network of a ``net.config``, whose layers fit one another.

    Raises:
        MissingMaterial: no such file; the hint says where the authors publish them.
        FileFormatError: no network that can be built; the place in the file is named.
    """
    content = _read(path, PUBLISHED)
    try:
        config = _ANY.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FileFormatError(f"{place or 'net.config'}: {first['msg']}", where=path) from error
    _check_chain(config, path)
    return config


def read_resolution(path: Path) -> int:
    """``image_size`` of a ``run.config``."""
    try:
        size = json.loads(_read(path, None))["image_size"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileFormatError("no run.config with an image_size", where=path) from error
    if not isinstance(size, int) or not 8 <= size <= 4096:
        raise FileFormatError(f"image_size {str(size)[:40]}", where=path)
    return size


def _read(path: Path, hint: str | None) -> bytes:
    if not path.is_file():
        raise MissingMaterial("no such file", where=path, hint=hint)
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise FileFormatError("larger than 4 MiB, not a net.config", where=path)
    return content


def _check_chain(config: NetConfig, path: Path) -> None:
    """Every layer takes what the one before it gives; an identity needs equal shapes."""
    channels = 3

    def follow(place: str, inputs: int, out: int) -> None:
        nonlocal channels
        if inputs != channels:
            raise FileFormatError(f"{place} has {inputs} inputs, not {channels}", where=path)
        channels = out

    def residual(place: str, block: ResidualConfig) -> None:
        c = block.conv
        follow(place, c.in_channels, c.out_channels)
        if block.shortcut is not None and (c.stride != 1 or c.in_channels != c.out_channels):
            raise FileFormatError(f"{place} adds its input, which has another shape", where=path)

    if isinstance(config, MobileConfig):
        follow("first_conv", config.first_conv.in_channels, config.first_conv.out_channels)
        for n, block in enumerate(config.blocks):
            residual(f"blocks.{n}", block)
        for name in ("final_expand_layer", "feature_mix_layer"):
            layer = getattr(config, name)
            if layer is not None:
                follow(name, layer.in_channels, layer.out_channels)
    else:
        for n, item in enumerate(config.input_stem):
            if isinstance(item, ResidualConfig):
                residual(f"input_stem.{n}", item)
            else:
                follow(f"input_stem.{n}", item.in_channels, item.out_channels)
        for n, bottleneck in enumerate(config.blocks):
            follow(f"blocks.{n}", bottleneck.in_channels, bottleneck.out_channels)
    follow("classifier", config.classifier.in_features, config.classifier.out_features)


def find_subnet(config: NetConfig, resolution: int) -> Subnet | None:
    """The network as a subnet of an official space, None where it is in none of them."""
    if isinstance(config, ResNetConfig):
        return None
    for name in _SPACES:
        subnet = _subnet(config, load_space(name), resolution)
        if subnet is not None:
            return subnet
    return None


def _subnet(config: MobileConfig, space: Space, resolution: int) -> Subnet | None:
    stem, head, mix = space.stem, config.final_expand_layer, config.feature_mix_layer
    if config.bn.eps != space.batch_norm_epsilon or config.classifier.out_features != space.classes:
        return None
    first = config.first_conv
    ours = (stem.out, stem.kernel, stem.stride, stem.activation)
    if ours != (first.out_channels, first.kernel_size, first.stride, _own(first.act_func)):
        return None
    if space.head.mix:
        if head is None or (head.out_channels, head.use_bn) != (space.head.expand, True):
            return None
        if (mix.out_channels, mix.use_bn) != (space.head.mix, False):
            return None
    elif head is not None or (mix.out_channels, mix.use_bn) != (space.head.expand, True):
        return None
    if any(_own(x.act_func) != space.head.activation for x in (head, mix) if x is not None):
        return None
    stages: list[list[Layer]] = [[] for _ in space.stages]
    index = -1
    for block in config.blocks:
        c = block.conv
        if isinstance(c, ConvConfig):
            return None
        starts = index < 0 or c.out_channels != space.stages[index].out or c.stride != 1
        index += starts
        if index >= len(stages):
            return None
        stage = space.stages[index]
        expand = round(c.expand_ratio)
        wanted = (
            stage.out,
            stage.stride if starts else 1,
            stage.activation,
            stage.se,
            c.stride == 1 and c.in_channels == c.out_channels,
            make_divisible(c.in_channels * expand),
        )
        given = (c.out_channels, c.stride, _own(c.act_func), c.use_se)
        if wanted != (*given, block.shortcut is not None, c.mid):
            return None
        stages[index].append(Layer(c.kernel_size, expand))
    try:
        return space.validate_subnet(
            Subnet(space.name, resolution, tuple(tuple(s) for s in stages))
        )
    except UsageError:
        return None


def _own(name: Activation | None) -> str | None:
    return "hard_swish" if name == "h_swish" else name
