"""Fixtures for official_parity.py, made with the authors' own implementation.

    pip install ofa torchvision tqdm pyyaml         # in an environment of its own
    python benchmarks/official_fixtures.py OUT [--net NAME ...]

Needs the package ``ofa`` (mit-han-lab/once-for-all), which edgeofa does not depend on. Weights and
inputs are seeded by their names, as official_parity.py seeds them. For each net: seven subnets at
64 to 128 px, the last one again after its batch norms were recalibrated (with every fifth batch
norm's statistics), and the largest net and two expansions after the channels were sorted, for three
stages of sorting. Then

    python benchmarks/official_parity.py --parity OUT
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from official_parity import NETS, seeded, seeded_input
from torch import nn

_SIZES = (64, 96, 64, 96, 72, 100, 128)
_BATCHES, _BATCH = 3, [8, 3, 96, 96]


def builders() -> Mapping[str, Callable[[], Any]]:
    from ofa.imagenet_classification.elastic_nn.networks import (
        OFAMobileNetV3,
        OFAProxylessNASNets,
        OFAResNets,
    )

    mobile = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    resnet = {
        "depth_list": [0, 1, 2],
        "expand_ratio_list": [0.2, 0.25, 0.35],
        "width_mult_list": [0.65, 0.8, 1.0],
    }
    return {
        "mbv3_w1.0": lambda: OFAMobileNetV3(width_mult=1.0, dropout_rate=0, **mobile),
        "mbv3_w1.2": lambda: OFAMobileNetV3(width_mult=1.2, dropout_rate=0, **mobile),
        "proxyless_w1.3": lambda: OFAProxylessNASNets(width_mult=1.3, dropout_rate=0, **mobile),
        "resnet50": lambda: OFAResNets(dropout_rate=0, **resnet),
    }


def fixtures(name: str, net: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Cases and outputs of one net, in the form that official_parity.py reads."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    state = {k: seeded(k, tuple(v.shape)) for k, v in net.state_dict().items()}
    # the nets' own method renames entries, and would leave a missing one as it is
    nn.Module.load_state_dict(net, state)
    net.eval()
    resnet = name == "resnet50"
    largest = {"d": 2, "e": 0.35, "w": 2} if resnet else {"ks": 7, "e": 6, "d": 4}
    smallest = {"d": 0, "e": 0.2, "w": 0} if resnet else {"ks": 3, "e": 3, "d": 2}
    random.seed(1)
    drawn = {f"rand{i}": net.sample_active_subnet() for i in range(len(_SIZES) - 2)}
    cases: dict[str, Any] = {}
    outputs: dict[str, np.ndarray] = {}
    for size, (key, config) in zip(
        _SIZES, {"max": largest, "min": smallest, **drawn}.items(), strict=True
    ):
        net.set_active_subnet(**config)
        tag, shape = f"input:{name}:{key}", [2, 3, size, size]
        outputs[key] = net(seeded_input(tag, shape)).numpy()
        cut = net.get_active_subnet()
        cases[key] = {
            "config": config,
            "input_tag": tag,
            "input_shape": shape,
            "params_subnet": sum(p.numel() for p in cut.parameters()),
        }

    batch_tag = f"batch:{name}:{{b}}"
    batches = [(seeded_input(batch_tag.format(b=b), _BATCH), None) for b in range(_BATCHES)]
    tag, shape = f"input:{name}:recalibrated", [2, 3, 128, 128]
    cut.eval()
    set_running_statistics(cut, batches)
    outputs["bncal_static"] = cut(seeded_input(tag, shape)).numpy()
    norms = [(k, m) for k, m in cut.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for key, norm in norms[::5]:
        for buffer in ("running_mean", "running_var"):
            outputs[f"bn:{key}.{buffer}"] = norm.get_buffer(buffer).numpy()
    set_running_statistics(net, batches)
    outputs["bncal_dynamic"] = net(seeded_input(tag, shape)).numpy()
    cases["bncal"] = {
        "config": config,
        "batches": _BATCHES,
        "batch_shape": _BATCH,
        "batch_tag": batch_tag,
        "input_tag": tag,
        "input_shape": shape,
    }

    tag, shape = f"input:{name}:sorted", [2, 3, 96, 96]
    cases["reorg"] = {"input_tag": tag, "input_shape": shape}
    x = seeded_input(tag, shape)
    for stage in range(3):
        nn.Module.load_state_dict(net, state)
        net.re_organize_middle_weights(stage)
        net.set_max_net()
        outputs[f"reorg_stage{stage}_max"] = net(x).numpy()
        for expand in (0.2, 0.25) if resnet else (3, 4):
            net.set_active_subnet(e=expand)
            outputs[f"reorg_stage{stage}_e{expand}"] = net(x).numpy()
    return cases, outputs


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--net", nargs="*", choices=list(NETS), default=list(NETS))
    options: Any = parser.parse_args(arguments)
    try:
        made = builders()
    except ImportError as error:
        print(f"{error}: pip install ofa torchvision tqdm pyyaml", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.net:
        cases, outputs = fixtures(name, made[name]())
        (options.out / f"{name}.json").write_text(json.dumps(cases), encoding="utf-8")
        np.savez(options.out / f"{name}.npz", **outputs)
        print(f"{name}: {len(outputs)} outputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
