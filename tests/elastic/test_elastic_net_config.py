"""Specialised networks: the official files, what is refused, what is built (about 15 s)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from material import material

from edgeofa.elastic.extract import extract
from edgeofa.elastic.net_config import find_subnet, read_net_config, read_resolution
from edgeofa.elastic.official import static_norm_names
from edgeofa.elastic.specialised import Specialised, build_specialised, import_net_config
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.graph.importers.torch_export import import_module
from edgeofa.graph.reference import run
from edgeofa.spaces import load_space

#: folder, space, resolution, MACs in millions where the folder's name states them
OFFICIAL = [
    ("cpu_lat-15ms_top1-74.6_finetune-25", "ofa_proxyless", 188, None),
    ("flops-389M_top1-79.1_finetune-75", "ofa_mbv3_w12", 224, 389),
    ("note10_lat-30ms_top1-78.4_finetune-75", "ofa_mbv3_w12", 224, None),
    ("pixel1_lat-40ms_top1-74.9_finetune-25", "ofa_mbv3", 172, None),
    ("tx2_gpu16-47ms_top1-72.9_finetune-25", "ofa_proxyless", 144, None),
]


def conv(inputs: int, out: int, kernel: int, stride: int, act: str | None, **more: Any) -> Any:
    return {
        "name": "ConvLayer",
        "in_channels": inputs,
        "out_channels": out,
        "kernel_size": kernel,
        "stride": stride,
        "act_func": act,
    } | more


def mobile() -> dict[str, Any]:
    """A small MobileNetV3 that is in no space."""
    block = {
        "name": "MBConvLayer",
        "in_channels": 8,
        "out_channels": 12,
        "kernel_size": 5,
        "stride": 2,
        "expand_ratio": 3,
        "mid_channels": 20,
        "act_func": "h_swish",
        "use_se": True,
    }
    same = block | {"in_channels": 12, "stride": 1, "mid_channels": None, "use_se": False}
    return {
        "name": "MobileNetV3",
        "bn": {"momentum": 0.1, "eps": 1e-3},
        "first_conv": conv(3, 8, 3, 2, "relu6"),
        "blocks": [
            {"name": "ResidualBlock", "conv": block, "shortcut": None},
            {"name": "ResidualBlock", "conv": same, "shortcut": {"name": "IdentityLayer"}},
        ],
        "final_expand_layer": conv(12, 24, 1, 1, "h_swish"),
        "feature_mix_layer": conv(24, 32, 1, 1, "h_swish", use_bn=False),
        "classifier": {"name": "LinearLayer", "in_features": 32, "out_features": 7},
    }


def resnet() -> dict[str, Any]:
    block = {
        "name": "ResNetBottleneckBlock",
        "in_channels": 8,
        "out_channels": 16,
        "kernel_size": 3,
        "stride": 2,
        "expand_ratio": 0.5,
        "mid_channels": None,
        "act_func": "relu",
        "downsample_mode": "avgpool_conv",
    }
    residual = {
        "name": "ResidualBlock",
        "conv": conv(8, 8, 3, 1, "relu"),
        "shortcut": {"name": "IdentityLayer"},
    }
    return {
        "name": "ResNets",
        "bn": {"eps": 1e-5},
        "input_stem": [conv(3, 8, 3, 2, "relu"), residual],
        "blocks": [block, block | {"in_channels": 16, "stride": 1}],
        "classifier": {"name": "LinearLayer", "in_features": 16, "out_features": 5},
    }


def written(config: object, folder: Path) -> Path:
    (folder / "net.config").write_text(json.dumps(config))
    return folder / "net.config"


@pytest.mark.parametrize(("folder", "space", "resolution", "macs"), OFFICIAL)
def test_the_official_files_are_subnets_of_their_spaces(
    folder: str, space: str, resolution: int, macs: int | None
) -> None:
    path = material("ofa/specialized") / folder
    config = read_net_config(path / "net.config")
    assert read_resolution(path / "run.config") == resolution
    subnet = find_subnet(config, resolution)
    assert subnet is not None
    assert subnet.space == space
    assert sum(subnet.depths) == len(config.blocks)
    if macs is not None:
        assert round(import_net_config(path / "net.config").macs / 1e6) == macs


def test_a_specialised_network_is_the_subnet_cut_from_the_supernet() -> None:
    path = material("ofa/specialized") / OFFICIAL[3][0]
    config = read_net_config(path / "net.config")
    subnet = find_subnet(config, 172)
    assert subnet is not None
    torch.manual_seed(0)
    supernet = Supernet(load_space("ofa_mbv3")).eval()
    cut = extract(supernet, subnet)
    network = Specialised(config).eval()
    norms = {k.removesuffix(".weight") for k in network.state_dict() if k.endswith("bn.weight")}
    assert norms == set(static_norm_names(supernet, subnet))
    # both list convolutions in the order of the layers
    with torch.no_grad():
        sources = [m.weight for m in cut.modules() if isinstance(m, torch.nn.Conv2d)]
        order = [network.first_conv, *network.blocks, network.final_expand_layer]
        modules = [m for part in [*order, network.feature_mix_layer] for m in part.modules()]
        targets = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
        for target, source in zip(targets, sources, strict=True):
            target.weight.copy_(source)
        biased = [m for m in targets if m.bias is not None]
        given = [m for m in cut.modules() if isinstance(m, torch.nn.Conv2d) and m.bias is not None]
        for target, like in zip(biased, given, strict=True):
            target.get_parameter("bias").copy_(like.get_parameter("bias"))
        network.classifier.linear.weight.copy_(cut.classifier.weight)
        network.classifier.linear.bias.copy_(cut.classifier.bias)
        x = torch.randn(1, 3, 64, 64)
        found, expected = network(x), cut(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("make", [mobile, resnet])
def test_a_network_of_no_space_is_a_graph_of_its_own(
    make: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    path = written(make(), tmp_path)
    config = read_net_config(path)
    assert find_subnet(config, 30) is None
    network = build_specialised(config, seed=3)
    x = torch.randn(1, 3, 30, 30)
    with torch.no_grad():
        expected = network(x).numpy()
    graph = import_module(network, x, "own")
    found = run(graph, x.permute(0, 2, 3, 1).numpy())
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    made = import_net_config(path, resolution=30, seed=3, out=tmp_path / "model.tflite")
    assert made.subnet is None
    assert made.artifact is not None
    assert made.artifact.stat().st_size > 4 * made.parameters * 0.9


def test_weights_are_loaded_by_name(tmp_path: Path) -> None:
    path = written(mobile(), tmp_path)
    config = read_net_config(path)
    source = build_specialised(config, seed=1)
    state = {
        k.replace(".conv.", ".mobile_inverted_conv.", 1) if k.startswith("blocks.") else k: v
        for k, v in source.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "init")
    loaded = build_specialised(config, tmp_path / "init", seed=2)
    own = source.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in loaded.state_dict().items())
    state["first_conv.conv.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "init")
    with pytest.raises(FileFormatError, match=r"first_conv\.conv\.weight has shape \[1\]"):
        build_specialised(config, tmp_path / "init")
    state["first_conv.conv.weights"] = state.pop("first_conv.conv.weight")
    torch.save(state, tmp_path / "init")
    with pytest.raises(FileFormatError, match=r"is missing(.|\n)*has first_conv\.conv\.weights"):
        build_specialised(config, tmp_path / "init")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(name="Zebra"), "MobileNetV3"),
        (lambda c: c["first_conv"].update(groups=3), r"first_conv\.groups"),
        (lambda c: c["first_conv"].update(out_channels=10**9), r"first_conv\.out_channels"),
        (lambda c: c["blocks"].clear(), r"blocks"),
        (lambda c: c["blocks"][0]["conv"].update(in_channels=9), r"blocks\.0 has 9 inputs, not 8"),
        (
            lambda c: c["blocks"][0].update(shortcut={"name": "IdentityLayer"}),
            r"blocks\.0 adds its input",
        ),
        (lambda c: c["classifier"].update(in_features=5), r"classifier has 5 inputs, not 32"),
    ],
)
def test_what_cannot_be_built_is_named(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    config = mobile()
    change(config)
    with pytest.raises(FileFormatError, match=message):
        read_net_config(written(config, tmp_path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingMaterial, match=r"github\.com/han-cai/files"):
        read_net_config(tmp_path / "absent")
    for content in ("", "[1]", "[" * 100_000, '{"name": "ResNets"}'):
        (tmp_path / "net.config").write_text(content)
        with pytest.raises(FileFormatError):
            read_net_config(tmp_path / "net.config")
        with pytest.raises(FileFormatError, match="image_size"):
            read_resolution(tmp_path / "net.config")
    path = written(mobile(), tmp_path)
    with pytest.raises(MissingMaterial):
        import_net_config(path)  # no run.config, no --resolution
    with pytest.raises(UsageError, match=r"cannot compile to model\.elf"):
        import_net_config(path, resolution=30, out=tmp_path / "model.elf")
