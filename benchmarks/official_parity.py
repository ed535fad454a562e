"""Do the official once-for-all supernets compute what the reference implementation computes?

    python benchmarks/official_parity.py [--json FILE] [--parity DIR] [--keys DIR]

DIR holds <net>.json and <net>.npz, outputs of the reference with seeded weights; <net> is
mbv3_w1.0, mbv3_w1.2, proxyless_w1.3 or resnet50. Each subnet's output must be within 1e-4 of the
largest output: of the supernet with that subnet active, and of the extracted network. So must the
batch-norm statistics after recalibration, the outputs with them, and outputs after the channels
were sorted. MACs and parameters must be the stated ones exactly.

For each net, fixtures or not, checked as well: every entry's name and shape against
ofa_keys_<net>.txt in --keys; the active subnet against the extracted network (1e-5); the largest
net after sorting against before (1e-4); and that stale statistics do not do.

By default DIR is ofa/parity in EDGEOFA_TEST_DATA, or in shared/data beside the checkout. Exits with
1 when anything is off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeofa.elastic.extract import extract
from edgeofa.elastic.official import (
    AnySubnet,
    AnySupernet,
    build,
    entries,
    load_official,
    official_subnet,
    sample_official,
    static_norm_names,
    store_statistics,
    to_official,
)
from edgeofa.elastic.reorganise import reorganise
from edgeofa.elastic.resnet import (
    EXPANDS,
    ResNetSubnet,
    ResNetSupernet,
    extract_resnet,
    resnet_subnet,
)
from edgeofa.errors import EdgeofaError
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.spaces import Subnet
from edgeofa.training.recalibrate import recalibrate

LIMIT, SLICE_LIMIT, SORT_LIMIT = 1e-4, 1e-5, 1e-4
#: a subnet with its supernet's statistics must be off by more than this, or nothing is recalibrated
STALE_LIMIT = 0.05
NETS = {
    "mbv3_w1.0": "ofa_mbv3",
    "mbv3_w1.2": "ofa_mbv3_w12",
    "proxyless_w1.3": "ofa_proxyless",
    "resnet50": "ofa_resnet50",
}
_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@dataclass(frozen=True)
class Check:
    """One comparison: largest difference relative to the largest value, and its limit."""

    net: str
    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit


@dataclass(frozen=True)
class Report:
    """What the JSON file holds. ``subnets`` counts reference outputs of distinct configurations."""

    checks: tuple[Check, ...]
    failures: tuple[str, ...]
    subnets: int
    largest_error: float
    passed: bool


def seeded(key: str, shape: tuple[int, ...]) -> Tensor:
    """The recipe's value of a state-dict entry, a function of its name and shape alone."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    a = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).randn(*shape)
    if key.endswith("running_mean"):
        a = 0.05 * a
    elif key.endswith("running_var"):
        a = 1 + 0.5 * np.abs(a)
    elif key.endswith("_matrix"):
        a = np.eye(shape[0]) + 0.05 * a
    elif len(shape) == 1:
        a = 1 + 0.1 * a if key.endswith("weight") else 0.05 * a
    else:
        a = a * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(a, dtype=np.float32))


def seeded_input(tag: str, shape: list[int]) -> Tensor:
    a = np.random.RandomState(zlib.crc32(tag.encode()) & 0xFFFFFFFF).randn(*shape)
    return torch.from_numpy(a.astype(np.float32))


def seeded_supernet(name: str) -> AnySupernet:
    supernet = build(name)
    state = {key: seeded(key, shape) for key, shape in entries(name).items()}
    load_official(supernet, state, f"seeded weights of {name}")
    return supernet.eval().requires_grad_(False)


def subnet_of(supernet: AnySupernet, config: Mapping[str, Any], resolution: int) -> AnySubnet:
    if isinstance(supernet, ResNetSupernet):
        return resnet_subnet(config, resolution)
    # the fixtures' inputs may be smaller than any resolution of the space, which changes no layer
    return official_subnet(supernet.space, config, supernet.space.resolutions[0])


def cut(supernet: AnySupernet, subnet: AnySubnet) -> nn.Module:
    if isinstance(supernet, ResNetSupernet):
        assert isinstance(subnet, ResNetSubnet)
        return extract_resnet(supernet, subnet)
    assert isinstance(subnet, Subnet)
    return extract(supernet, subnet)


def largest(supernet: AnySupernet, expand: float | None = None) -> AnySubnet:
    """The largest subnet; ``expand``: with this expansion everywhere."""
    if isinstance(supernet, ResNetSupernet):
        return resnet_subnet({} if expand is None else {"e": expand}, 224)
    e = 6 if expand is None else int(expand)
    return subnet_of(supernet, {"ks": 7, "e": e, "d": 4}, 0)


def distance(found: Tensor, expected: Tensor | np.ndarray) -> float:
    """Largest difference relative to the largest expected value; infinite where shapes differ."""
    wanted = torch.as_tensor(expected)
    if found.shape != wanted.shape:
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max())


def work(network: nn.Module, x: Tensor) -> tuple[int, int, Tensor]:
    """MACs for one image (convolutions and dense layers), parameters, and the output."""
    macs = 0

    def count(module: nn.Module, _: Any, y: Tensor) -> None:
        nonlocal macs
        weight = module.get_parameter("weight")
        macs += weight.numel() * (y.shape[2] * y.shape[3] if y.ndim == 4 else 1)

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    y = network(x)
    for handle in handles:
        handle.remove()
    return macs, sum(p.numel() for p in network.parameters()), y


def check_outputs(
    net: str, supernet: AnySupernet, cases: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> Iterator[Check]:
    """Plain configurations: supernet, extracted network, MACs and parameters."""
    for name, case in cases.items():
        if name not in outputs:
            continue
        x = seeded_input(case["input_tag"], case["input_shape"])
        subnet = subnet_of(supernet, case["config"], x.shape[-1])
        expected = outputs[name]
        yield Check(
            net, f"{name}, active in the supernet", distance(supernet(x, subnet), expected), LIMIT
        )
        macs, parameters, y = work(cut(supernet, subnet), x)
        yield Check(net, f"{name}, extracted", distance(y, expected), LIMIT)
        if "flops_ref" in case:
            error = abs(macs / 1e6 - case["flops_ref"]) / case["flops_ref"]
            yield Check(net, f"{name}, MACs", error, 1e-9)
        if "params_subnet" in case:
            error = abs(parameters - case["params_subnet"]) / case["params_subnet"]
            yield Check(net, f"{name}, parameters", error, 0.0)


def check_recalibration(
    net: str, supernet: AnySupernet, case: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> Iterator[Check]:
    shape = case["batch_shape"]
    batches = [seeded_input(case["batch_tag"].format(b=b), shape) for b in range(case["batches"])]
    x = seeded_input(case["input_tag"], case["input_shape"])
    subnet = subnet_of(supernet, case["config"], x.shape[-1])
    network = cut(supernet, subnet)
    recalibrate(network, torch.cat(batches), batch=shape[0])
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    named = dict(zip(static_norm_names(supernet, subnet), norms, strict=True))
    for key in (k for k in outputs if k.startswith("bn:")):
        norm, _, buffer = key.removeprefix("bn:").rpartition(".")
        error = distance(named[norm].get_buffer(buffer), outputs[key]) if norm in named else np.inf
        yield Check(net, key, float(error), LIMIT)
    if "bncal_static" in outputs:
        yield Check(
            net, "recalibrated, extracted", distance(network(x), outputs["bncal_static"]), LIMIT
        )
    if "bncal_dynamic" in outputs:
        store_statistics(supernet, subnet, network)
        error = distance(supernet(x, subnet), outputs["bncal_dynamic"])
        yield Check(net, "recalibrated, active in the supernet", error, LIMIT)


def check_sorted(
    net: str, supernet: AnySupernet, case: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> Iterator[Check]:
    """``reorg_stage<N>_<what>``: sorted for stage N, then the largest net or one expansion."""
    x = seeded_input(case["input_tag"], case["input_shape"])
    original = {k: v.clone() for k, v in supernet.state_dict().items()}
    for key in (k for k in outputs if k.startswith("reorg")):
        match = re.fullmatch(r"reorg_stage(\d+)_(?:max|min|e(\d+(?:\.\d+)?))", key)
        if match is None:
            yield Check(net, f"{key} is not understood", float("inf"), LIMIT)
            continue
        supernet.load_state_dict(original)
        reorganise(supernet, int(match[1]))
        expand = float(match[2]) if match[2] else None
        subnet = largest(supernet, expand)
        if key.endswith("min"):
            resnet = isinstance(supernet, ResNetSupernet)
            config = {"d": 0, "e": EXPANDS[0], "w": 0} if resnet else {"ks": 3, "e": 3, "d": 2}
            subnet = subnet_of(supernet, config, x.shape[-1])
        yield Check(net, key, distance(supernet(x, subnet), outputs[key]), LIMIT)
    supernet.load_state_dict(original)


def check_invariants(net: str, supernet: AnySupernet, size: int) -> Iterator[Check]:
    """What must hold without a reference: slices, sorting, recalibration."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, size, size, generator=generator)
    for n in range(3):
        resolution = 224 if isinstance(supernet, ResNetSupernet) else supernet.space.resolutions[0]
        subnet = sample_official(supernet, rng, resolution)
        network = cut(supernet, subnet)
        expected = supernet(x[:2], subnet)
        yield Check(net, f"slice {n}", distance(network(x[:2]), expected), SLICE_LIMIT)
    stale = network(x)
    recalibrate(network, x)
    moved = distance(stale, network(x))
    yield Check(net, "stale statistics do not do", STALE_LIMIT / max(moved, 1e-9), 1.0)
    whole = largest(supernet)
    before = supernet(x[:2], whole)
    for stage in range(3):
        reorganise(supernet, stage)
        error = distance(supernet(x[:2], whole), before)
        yield Check(net, f"sorted for stage {stage}, largest net", error, SORT_LIMIT)


def check_names(net: str, supernet: AnySupernet, keys: Path) -> Iterator[Check]:
    """Every name and shape of ofa_keys_<net>.txt, in both directions."""
    lines = [x for x in keys.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    wanted = {name: shape for name, shape, _ in (line.split("\t") for line in lines)}
    found = {k: str(tuple(v.shape)) for k, v in to_official(supernet).items()}
    off = {k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)}
    yield Check(net, f"{len(wanted)} entries, names and shapes", float(len(off)), 0.0)


def check_net(net: str, parity: Path, keys: Path) -> Iterator[Check]:
    supernet = seeded_supernet(NETS[net])
    if (keys / f"ofa_keys_{net}.txt").is_file():
        yield from check_names(net, supernet, keys / f"ofa_keys_{net}.txt")
    if (parity / f"{net}.json").is_file():
        cases = json.loads((parity / f"{net}.json").read_text(encoding="utf-8"))
        with np.load(parity / f"{net}.npz", allow_pickle=False) as file:
            outputs = {key: file[key] for key in file.files}
        yield from check_outputs(net, supernet, cases, outputs)
        if "reorg" in cases:
            yield from check_sorted(net, supernet, cases["reorg"], outputs)
        if "bncal" in cases:
            yield from check_recalibration(net, supernet, cases["bncal"], outputs)
        unused = outputs.keys() - cases.keys()
        for key in sorted(k for k in unused if not re.match("bn:|bncal_|reorg", k)):
            yield Check(net, f"{key} has no configuration", float("inf"), LIMIT)
        supernet = seeded_supernet(NETS[net])
    yield from check_invariants(net, supernet, 64)


@torch.no_grad()
def run(parity: Path, keys: Path, nets: list[str]) -> Report:
    checks, failures = [], []
    for net in nets:
        try:
            for check in check_net(net, parity, keys):
                checks.append(check)
                verdict = "" if check.passed else f"  MISSED (limit {check.limit:g})"
                print(f"{net:<15} {check.name:<45} {check.error:.1e}{verdict}", flush=True)
                if not check.passed:
                    failures.append(f"{net}: {check.name} {check.error:.1e}")
        except (EdgeofaError, KeyError, ValueError) as error:
            failures.append(f"{net}: {type(error).__name__}: {error}")
            print(failures[-1])
    references = [c for c in checks if c.limit == LIMIT and not c.name.startswith("sorted")]
    subnets = {(c.net, c.name) for c in references if c.name.endswith("extracted")}
    return Report(
        checks=tuple(checks),
        failures=tuple(failures),
        subnets=len(subnets),
        largest_error=max((c.error for c in references), default=float("nan")),
        passed=not failures,
    )


def main(arguments: list[str] | None = None) -> int:
    root = Path(os.environ.get("EDGEOFA_TEST_DATA", _DATA)) / "ofa"
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parity", type=Path, default=root / "parity")
    parser.add_argument("--keys", type=Path, default=root)
    parser.add_argument("--net", nargs="*", choices=list(NETS), default=list(NETS))
    options: Any = parser.parse_args(arguments)
    fixtures = [n for n in options.net if (options.parity / f"{n}.json").is_file()]
    if not fixtures:
        print(f"no fixtures of the reference in {options.parity}", file=sys.stderr)
        return 1
    report = run(options.parity, options.keys, options.net)
    print(
        f"{report.subnets} subnets of {', '.join(fixtures)}: largest error "
        f"{report.largest_error:.1e} of the largest output (limit {LIMIT:g})"
    )
    print("passed" if report.passed else "MISSED:\n  " + "\n  ".join(report.failures))
    if options.json:
        write_atomic(options.json, dumps(report) + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
