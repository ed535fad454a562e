"""Official once-for-all supernets: the reference's outputs, names, bad files (about 30 s)."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from material import material

from edgeofa.accuracy.features import subnet_macs
from edgeofa.elastic.checkpoint import load_resnet, load_supernet, save_imported
from edgeofa.elastic.extract import extract
from edgeofa.elastic.official import (
    OFFICIAL,
    build,
    entries,
    import_official,
    official_subnet,
    to_official,
)
from edgeofa.elastic.resnet import ResNetSupernet, extract_resnet, resnet_subnet
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.importers.torch_export import import_module
from edgeofa.graph.ops import macs
from edgeofa.graph.reference import run
from edgeofa.spaces import load_space

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "official_parity.py"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("official_parity", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def state_of(name: str) -> State:
    """Ones in the official form: small to write, and right in every shape."""
    return {
        key: torch.ones(shape, dtype=torch.int64 if key.endswith("tracked") else torch.float32)
        for key, shape in entries(name).items()
    }


# ------------------------------------------------------------------------------- behaviour


def test_the_reference_is_met(parity: ModuleType) -> None:
    """35 outputs and statistics of the reference implementation for MobileNetV3 at width 1.0."""
    folder = material("ofa")
    report = parity.run(folder / "parity", folder, ["mbv3_w1.0"])
    assert report.passed, report.failures
    assert report.subnets == 10
    assert report.largest_error < 1e-4
    names = {c.name for c in report.checks}
    assert {"reorg_stage0_e3", "recalibrated, extracted", "rand5, extracted"} <= names


@pytest.mark.parametrize("net", ["mbv3_w1.2", "proxyless_w1.3", "resnet50"])
def test_entries_and_invariants(parity: ModuleType, net: str, tmp_path: Path) -> None:
    report = parity.run(tmp_path, material("ofa"), [net])
    assert report.passed, report.failures
    assert any("names and shapes" in c.name for c in report.checks)


def test_a_wrong_output_and_an_unknown_one_are_missed(parity: ModuleType, tmp_path: Path) -> None:
    supernet = parity.seeded_supernet("ofa_mbv3")
    case = {"input_tag": "x", "input_shape": [1, 3, 32, 32], "config": {"ks": 3, "e": 3, "d": 2}}
    with torch.no_grad():
        (right,) = supernet(
            parity.seeded_input("x", [1, 3, 32, 32]),
            parity.subnet_of(supernet, case["config"], 32),
        )
        outputs = {"min": right[None].numpy() * 1.001}
        checks = list(parity.check_outputs("n", supernet, {"min": case}, outputs))
        assert [c.passed for c in checks] == [False, False]
        sorted_ = {"reorg_stage0_new": outputs["min"]}
        assert not any(c.passed for c in parity.check_sorted("n", supernet, case, sorted_))


def test_a_resnet_subnet_is_the_graph_at_odd_sizes_too() -> None:
    """72 px: the last shortcut averages windows at the edge, of the pixels that exist."""
    torch.manual_seed(0)
    supernet = ResNetSupernet().eval()
    subnet = resnet_subnet({"d": 0, "e": 0.2, "w": 0}, 72)
    network = extract_resnet(supernet, subnet)
    x = torch.randn(1, 3, 72, 72)
    graph = import_module(network, x, str(subnet))
    with torch.no_grad():
        expected = network(x).numpy()
    found = run(graph, x.permute(0, 2, 3, 1).numpy())
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["ofa_mbv3_w12", "ofa_proxyless"])
def test_declared_blocks_are_the_work_of_the_cut_network(name: str) -> None:
    space = load_space(name)
    subnet = space.smallest()
    network = extract(Supernet(space), subnet)
    size = subnet.resolution
    graph = import_module(network, torch.zeros(1, 3, size, size), str(subnet))
    assert macs(graph) == macs(subnet_graph(space, subnet)) == subnet_macs(space, subnet)


def test_resnet_choices() -> None:
    config = {"d": [0, 2, 1, 0, 2], "e": [0.2] * 9 + [0.35] * 9, "w": [0, 1, 2, 2, 1, 0]}
    subnet = resnet_subnet(config, 224)
    assert [len(s.expands) for s in subnet.stages] == [4, 3, 4, 4]
    assert subnet.stages[2].expands == (0.2, 0.35, 0.35, 0.35)
    assert not subnet.extra_stem
    assert str(subnet).startswith("ofa_resnet50@224/0.65,0.8/1:0.2,0.2,0.2,0.2/")
    for wrong in ({"e": 0.3}, {"d": 3}, {"w": [0, 1]}):
        with pytest.raises(UsageError, match="ofa_resnet50"):
            resnet_subnet(wrong, 224)


def test_configurations_of_the_reference_are_subnets() -> None:
    space = load_space("ofa_proxyless")
    assert official_subnet(space, {"ks": 7, "e": 6, "d": 4}, 224) == space.largest()
    short = official_subnet(space, {"ks": 3, "e": 3, "d": [2, 3, 4, 2, 3]}, 128)
    assert short.depths == (1, 2, 3, 4, 2, 3, 1)
    for wrong, message in (({"ks": 4}, "kernel 4"), ({"ks": [3, 5]}, "ks is 21 numbers")):
        with pytest.raises(UsageError, match=message):
            official_subnet(space, {"ks": 3, "e": 3, "d": 2} | wrong, 128)


# ------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_a_file_is_recognised_and_read_back(name: str, tmp_path: Path) -> None:
    state = state_of(name)
    for n, (key, value) in enumerate(state.items()):
        value.fill_(0 if key.endswith("tracked") else n)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "file")
    supernet = import_official(tmp_path / "file")
    assert all(torch.equal(v, state[k]) for k, v in to_official(supernet).items())
    save_imported(supernet, tmp_path / "own.safetensors")
    load: Callable[[Path], Supernet | ResNetSupernet] = (
        load_resnet if isinstance(supernet, ResNetSupernet) else load_supernet
    )
    again = load(tmp_path / "own.safetensors").state_dict()
    own = supernet.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in again.items() if "tracked" not in k)


def test_older_spellings_are_read(tmp_path: Path) -> None:
    state = state_of("ofa_mbv3")
    older = {
        k.replace(".bn.bn.", ".bn.").replace(".conv.", ".mobile_inverted_conv.", 1)
        if k.startswith("blocks.")
        else k: v
        for k, v in state.items()
        if not k.endswith("num_batches_tracked")
    }
    assert older.keys() != state.keys()
    torch.save(older, tmp_path / "file")
    assert isinstance(import_official(tmp_path / "file", "ofa_mbv3"), Supernet)


def drop(state: State) -> None:
    del state["blocks.7.conv.point_linear.conv.conv.weight"]


def rename(state: State) -> None:
    state["blocks.7.conv.point_line.conv.conv.weight"] = state.pop(
        "blocks.7.conv.point_linear.conv.conv.weight"
    )


def add(state: State) -> None:
    state["blocks.99.conv.extra"] = torch.ones(1)


def misshape(state: State) -> None:
    state["first_conv.conv.weight"] = torch.ones(24, 3, 3, 3)


def poison(state: State) -> None:
    state["classifier.linear.bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"entry blocks\.7\.conv\.point_linear\.conv\.conv\.weight is missing"),
        (rename, r"missing(.|\n)*the file has blocks\.7\.conv\.point_line\.conv"),
        (add, r"entry blocks\.99\.conv\.extra is foreign"),
        (misshape, r"first_conv\.conv\.weight has shape \[24, 3, 3, 3\], not \[16, 3, 3, 3\]"),
        (poison, r"classifier\.linear\.bias is not finite"),
    ],
)
def test_a_wrong_entry_is_named(
    change: Callable[[State], None], message: str, tmp_path: Path
) -> None:
    state = state_of("ofa_mbv3")
    change(state)
    torch.save(state, tmp_path / "file")
    with pytest.raises(FileFormatError, match=message):
        import_official(tmp_path / "file")


def test_another_net_is_named(tmp_path: Path) -> None:
    torch.save(state_of("ofa_mbv3_w12"), tmp_path / "file")
    with pytest.raises(FileFormatError, match=r"has shape(.|\n)*ofa_mbv3_w12 is nearest: 475 of"):
        import_official(tmp_path / "file", "ofa_mbv3")
    with pytest.raises(UsageError, match="no official supernet 'resnet'"):
        build("resnet")


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exit, ("code of a checkpoint was run",)


def test_code_is_not_run_and_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"a": Trap()}, tmp_path / "trap")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": Trap()}, protocol=2))
    (tmp_path / "text").write_text("nothing of the kind")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("trap", "pickle", "text", "empty"):
        with pytest.raises(FileFormatError, match="not a torch file of tensors alone"):
            import_official(tmp_path / name)
    torch.save({"a": 3}, tmp_path / "number")
    with pytest.raises(FileFormatError, match="'a' is not a named tensor"):
        import_official(tmp_path / "number")
    with pytest.raises(MissingMaterial, match=r"mit-han-lab/once-for-all"):
        import_official(tmp_path / "absent")


def test_subnets_of_the_other_kind_are_refused() -> None:
    from edgeofa.elastic.official import active_convolutions

    with torch.device("meta"):
        supernet = build("ofa_mbv3")
    with pytest.raises(UsageError, match="another kind"):
        active_convolutions(supernet, resnet_subnet({}, 224))
