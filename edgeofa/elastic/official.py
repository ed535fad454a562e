"""The official once-for-all checkpoints: their entries' names, and this project's supernets.

Own and official supernets hold the same tensors; only the names differ. Official ones are written
with the names of mit-han-lab/once-for-all, whose elastic layers wrap a plain layer
(``conv.conv.weight``, ``bn.bn.bias``); older files say ``mobile_inverted_conv`` for ``conv``, and
specialised networks leave the wrapper out. All three are read.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from edgeofa.elastic.resnet import Bottleneck, ResNetSubnet, ResNetSupernet
from edgeofa.elastic.supernet import ElasticBlock, ElasticConv, Supernet
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.spaces import load_space
from edgeofa.spaces.space import Layer, Space, Subnet
from edgeofa.torchfile import read_state_dict

__all__ = [
    "OFFICIAL",
    "AnySubnet",
    "AnySupernet",
    "active_convolutions",
    "build",
    "import_official",
    "load_official",
    "official_subnet",
    "static_norm_names",
    "to_official",
]

AnySupernet = Supernet | ResNetSupernet
AnySubnet = Subnet | ResNetSubnet

RESNET = ResNetSupernet.name
#: own name -> the authors' file
OFFICIAL: Mapping[str, str] = {
    "ofa_mbv3": "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_w12": "ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_proxyless": "ofa_proxyless_d234_e346_k357_w1.3",
    RESNET: "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0",
}
PUBLISHED = (
    "the authors publish it: ofa/model_zoo.py of github.com/mit-han-lab/once-for-all names the "
    "address (folder ofa/ofa_nets of github.com/han-cai/files)"
)
_MAX_BYTES = 1 << 30
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Conv:
    """Where one convolution with its batch norm lies: own prefix, official prefix.

    ``wrapped``: the official supernet has an elastic layer there.
    """

    own: str
    official: str
    wrapped: bool

    def names(self) -> dict[str, str]:
        """Own entry -> official entry."""
        conv, norm = (".conv.conv", ".bn.bn") if self.wrapped else (".conv", ".bn")
        return {f"{self.own}.weight": f"{self.official}{conv}.weight"} | {
            f"{self.own}.norm.{x}": f"{self.official}{norm}.{x}" for x in _NORM
        }


def build(name: str) -> AnySupernet:
    """The supernet of an official name, randomly initialised."""
    if name not in OFFICIAL:
        raise UsageError(
            f"no official supernet {name[:80]!r}", hint=f"one of {', '.join(OFFICIAL)}"
        )
    return ResNetSupernet() if name == RESNET else Supernet(load_space(name))


# ------------------------------------------------------------------------------------ names


def _mbconv_names(space: Space) -> dict[str, str]:
    names = Conv("stem", "first_conv", False).names()
    for n, (i, j) in enumerate(space.slots):
        stage = space.stages[i]
        own, official = f"stages.{i}.{j}", f"blocks.{n}.conv"
        wrapped = len(stage.layers_at(j)) > 1
        if stage.expands_at(j) != (1,):
            names |= Conv(f"{own}.expand", f"{official}.inverted_bottleneck", wrapped).names()
        names |= Conv(f"{own}.depthwise", f"{official}.depth_conv", wrapped).names()
        for large, small in zip(stage.kernels[1:], stage.kernels, strict=False):
            entry = f"{official}.depth_conv.conv.{large}to{small}_matrix"
            names[f"{own}.matrices.to{small}"] = entry
        if stage.se:
            for part in ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias"):
                names[f"{own}.squeeze.{part}"] = f"{official}.depth_conv.se.fc.{part}"
        names |= Conv(f"{own}.project", f"{official}.point_linear", wrapped).names()
    head = "final_expand_layer" if space.head.mix else "feature_mix_layer"
    names |= Conv("head", head, False).names()
    if space.head.mix:
        names["mix.weight"] = "feature_mix_layer.conv.weight"
    return names | {f"classifier.{x}": f"classifier.linear.{x}" for x in ("weight", "bias")}


def _resnet_names(supernet: ResNetSupernet) -> dict[str, str]:
    names: dict[str, str] = {}
    for i, official in enumerate(("input_stem.0", "input_stem.1.conv", "input_stem.2")):
        names |= Conv(f"stem.{i}", official, True).names()
    n = 0
    for i, blocks in enumerate(supernet.stages):
        for j, block in enumerate(cast(nn.ModuleList, blocks)):
            for part in ("conv1", "conv2", "conv3", "downsample"):
                if getattr(block, part) is not None:
                    names |= Conv(f"stages.{i}.{j}.{part}", f"blocks.{n}.{part}", True).names()
            n += 1
    return names | {f"classifier.{x}": f"classifier.linear.linear.{x}" for x in ("weight", "bias")}


def official_names(supernet: AnySupernet) -> dict[str, str]:
    """Own entry -> official entry, for every entry of the state dict."""
    if isinstance(supernet, ResNetSupernet):
        return _resnet_names(supernet)
    return _mbconv_names(supernet.space)


def to_official(supernet: AnySupernet) -> dict[str, Tensor]:
    """The state dict under the official names; the tensors are the supernet's own."""
    state = supernet.state_dict()
    return {official: state[own] for own, official in official_names(supernet).items()}


@cache
def entries(name: str) -> Mapping[str, tuple[int, ...]]:
    """Official entries and their shapes."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in to_official(build(name)).items()}


def _spellings(name: str) -> tuple[str, ...]:
    """What an official entry is called in files of other versions, the usual name first."""
    plain = re.sub(r"\.bn\.bn\.", ".bn.", name)
    plain = re.sub(r"\.conv\.conv\.weight$", ".conv.weight", plain)
    plain = plain.replace(".linear.linear.", ".linear.")
    old = [re.sub(r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", x) for x in (name, plain)]
    return tuple(dict.fromkeys((name, plain, *old)))


# ------------------------------------------------------------------------------------ loading


def load_official(supernet: AnySupernet, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Copies an official state dict into a supernet.

    Raises:
        FileFormatError: an entry is missing, foreign or of another shape; the first is named, with
            the nearest name that the file has.
    """
    own = supernet.state_dict()
    copies: list[tuple[Tensor, str]] = []
    taken: set[str] = set()
    for target, official in official_names(supernet).items():
        found = next((s for s in _spellings(official) if s in state and s not in taken), None)
        if found is None:
            if official.endswith("num_batches_tracked"):
                continue  # a count that nothing reads; files of torch before 0.4.1 lack it
            known = {s for x in official_names(supernet).values() for s in _spellings(x)}
            near = difflib.get_close_matches(official, set(state) - known, n=1, cutoff=0.8)
            raise FileFormatError(
                f"entry {official} is missing",
                where=where,
                hint=f"the file has {near[0][:200]}" if near else _other_net(state),
            )
        shape, wanted = tuple(state[found].shape), tuple(own[target].shape)
        if shape != wanted:
            raise FileFormatError(
                f"entry {found} has shape {list(shape)}, not {list(wanted)}",
                where=where,
                hint=_other_net(state),
            )
        taken.add(found)
        copies.append((own[target], found))
    foreign = sorted(set(state) - taken)
    if foreign:
        near = difflib.get_close_matches(foreign[0], official_names(supernet).values(), n=1)
        raise FileFormatError(
            f"entry {foreign[0][:200]} is foreign ({len(foreign)} in all)",
            where=where,
            hint=f"the nearest that belongs here is {near[0]}" if near else _other_net(state),
        )
    with torch.no_grad():
        for tensor, found in copies:
            tensor.copy_(state[found])


def _agreement(name: str, state: Mapping[str, Tensor]) -> int:
    """Entries of a state dict that the official net has, in the same shape."""
    return sum(
        any(s in state and tuple(state[s].shape) == shape for s in _spellings(entry))
        for entry, shape in entries(name).items()
    )


def nearest(state: Mapping[str, Tensor]) -> str:
    """The official net that has the most entries in common with a state dict."""
    return max(OFFICIAL, key=lambda name: _agreement(name, state))


def _other_net(state: Mapping[str, Tensor]) -> str:
    name = nearest(state)
    found, all_entries = _agreement(name, state), len(entries(name))
    return f"of the official nets {name} is nearest: {found} of its {all_entries} entries fit"


def import_official(path: Path, name: str | None = None) -> AnySupernet:
    """The supernet of an official file, in evaluation mode.

    Args:
        name: one of ``OFFICIAL``; by default the one that the entries fit best.

    Raises:
        MissingMaterial: no such file; the hint says where the authors publish it.
        FileFormatError: not a state dict of tensors, or not this supernet's.
    """
    state = read_state_dict(path, _MAX_BYTES, PUBLISHED)
    supernet = build(name or nearest(state))
    load_official(supernet, state, path)
    return supernet.eval().requires_grad_(False)


# ------------------------------------------------------------------------------------ subnets


def official_subnet(space: Space, config: Mapping[str, object], resolution: int) -> Subnet:
    """The subnet of the reference's ``{"ks": ..., "e": ..., "d": ...}``, checked.

    ``ks`` and ``e`` hold one number for every layer that can exist, ``d`` one for every stage with
    a choice of depth (and 1 for ProxylessNAS's last); each may be one number for all. A stage has
    at most the layers that it can have.
    """
    elastic = [i for i, s in enumerate(space.stages) if len(s.layers_at(0)) > 1]
    slots = [(i, j) for i, j in space.slots if i in elastic]

    def values(key: str, count: int) -> list[int]:
        given = config.get(key)
        listed = list(given) if isinstance(given, list | tuple) else [given] * count
        if len(listed) != count or not all(isinstance(v, int) for v in listed):
            raise UsageError(f"{key} is {count} numbers or one", where=f"space {space.name}")
        return cast(list[int], listed)

    kernels, expands = values("ks", len(slots)), values("e", len(slots))
    deep = [i for i in elastic if len(space.stages[i].depths) > 1]
    given = config.get("d")
    chosen = deep if isinstance(given, list | tuple) and len(given) == len(deep) else elastic
    depths = dict(zip(chosen, values("d", len(chosen)), strict=True))
    layers = {s: Layer(k, e) for s, k, e in zip(slots, kernels, expands, strict=True)}
    stages = []
    for i, stage in enumerate(space.stages):
        depth = min(depths.get(i, stage.depths[-1]), stage.depths[-1])
        fixed = stage.layers_at(0)[0]
        stages.append(tuple(layers.get((i, j), fixed) for j in range(depth)))
    return space.validate_subnet(Subnet(space.name, resolution, tuple(stages)))


def sample_official(supernet: AnySupernet, rng: random.Random, resolution: int) -> AnySubnet:
    """A random subnet of either family."""
    if isinstance(supernet, ResNetSupernet):
        from edgeofa.elastic.resnet import sample_resnet

        return sample_resnet(rng, resolution)
    return supernet.space.sample_by_choice(rng, resolution)


def active_convolutions(supernet: AnySupernet, subnet: AnySubnet) -> list[tuple[ElasticConv, str]]:
    """The convolutions that a subnet uses, with the official prefix of each in the *specialised*
    network (whose blocks are numbered without gaps); in the order of the extracted module's norms.
    """
    if isinstance(supernet, ResNetSupernet) and isinstance(subnet, ResNetSubnet):
        stem = [layer for layer, *_ in supernet.stem_layers(subnet)]
        inner = ["", ".conv", ""] if subnet.extra_stem else ["", ""]
        found = [
            (c, f"input_stem.{n}{x}") for n, (c, x) in enumerate(zip(stem, inner, strict=True))
        ]
        for n, (bottleneck, _, _) in enumerate(supernet.blocks(subnet)):
            found += [(c, f"blocks.{n}.{part}") for part, c in _parts(bottleneck)]
        return found
    if isinstance(supernet, Supernet) and isinstance(subnet, Subnet):
        found = [(supernet.stem, "first_conv")]
        places = [(i, j) for i, layers in enumerate(subnet.stages) for j in range(len(layers))]
        for n, (i, j) in enumerate(places):
            found += [(c, f"blocks.{n}.conv.{part}") for part, c in _parts(supernet.block(i, j))]
        head = "final_expand_layer" if supernet.mix is not None else "feature_mix_layer"
        return [*found, (supernet.head, head)]
    raise UsageError("a subnet of another kind of supernet", where=str(subnet))


def _parts(block: ElasticBlock | Bottleneck) -> list[tuple[str, ElasticConv]]:
    parts: dict[str, ElasticConv | None]
    if isinstance(block, Bottleneck):
        parts = {
            "conv1": block.conv1,
            "conv2": block.conv2,
            "conv3": block.conv3,
            "downsample": block.downsample,
        }
    else:
        parts = {
            "inverted_bottleneck": block.expand,
            "depth_conv": block.depthwise,
            "point_linear": block.project,
        }
    return [(name, conv) for name, conv in parts.items() if conv is not None]


def static_norm_names(supernet: AnySupernet, subnet: AnySubnet) -> list[str]:
    """Official names of the extracted module's batch norms, in its order."""
    return [f"{prefix}.bn" for _, prefix in active_convolutions(supernet, subnet)]


@torch.no_grad()
def store_statistics(supernet: AnySupernet, subnet: AnySubnet, network: nn.Module) -> None:
    """Puts the batch-norm statistics of an extracted subnet into its supernet.

    The channels that the subnet does not use keep theirs.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    active = active_convolutions(supernet, subnet)
    for norm, (conv, _) in zip(norms, active, strict=True):
        for name in ("running_mean", "running_var"):
            conv.norm.get_buffer(name)[: norm.num_features] = norm.get_buffer(name)
