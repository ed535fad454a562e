"""Predictors that are networks: the official one's predictions, its file, hostile files."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from material import material

from edgeofa.accuracy.mlp import import_ofa_predictor, load_predictor, save_predictor
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Layer, Subnet, load_space

SPACE = load_space("ofa_mbv3_w12")


def subnet_of(spec: dict) -> Subnet:  # type: ignore[type-arg]
    """A reference specification: ks, e, d of the five elastic stages, resolution."""
    stages = [(Layer(3, 1),)]
    for i, depth in enumerate(spec["d"]):
        chosen = range(4 * i, 4 * i + depth)
        stages.append(tuple(Layer(spec["ks"][n], spec["e"][n]) for n in chosen))
    return Subnet(SPACE.name, spec["r"][0], tuple(stages))


@pytest.fixture(scope="module")
def reference() -> list[dict]:  # type: ignore[type-arg]
    content = json.loads(material("ofa/note10/note10_lut_acc.json").read_text())
    return [*content["samples"], *content["corners"]]


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0": (16, 128), "2": (16, 16), "4": (1, 16)}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / 8
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator) / 8
    return state


def test_official_predictor_predicts_what_the_reference_did(reference: list) -> None:  # type: ignore[type-arg]
    model = import_ofa_predictor(material("ofa/acc_predictor.pth"), SPACE)
    subnets = [subnet_of(x["spec"]) for x in reference]
    assert len(subnets) == 435
    assert np.abs(model.rerank(subnets) - [x["acc"] for x in reference]).max() < 1e-6
    assert model.accuracy(subnets[0]) == pytest.approx(reference[0]["acc"], abs=1e-6)


def test_additive_fit_follows_the_official_predictor() -> None:
    model = import_ofa_predictor(material("ofa/acc_predictor.pth"), SPACE)
    rng = random.Random(1)
    subnets = [SPACE.sample_by_choice(rng, 192) for _ in range(300)]
    predicted = model.rerank(subnets)
    scores = np.array([model.score(s) for s in subnets])
    assert np.corrcoef(scores, predicted)[0, 1] > 0.9
    assert np.abs(scores - predicted).mean() < 0.005


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "p.pth")
    model = import_ofa_predictor(tmp_path / "p.pth", SPACE, source="a test")
    save_predictor(model, tmp_path / "p.safetensors")
    again = load_predictor(tmp_path / "p.safetensors", SPACE)
    subnets = [SPACE.sample_by_choice(random.Random(n), 224) for n in range(20)]
    assert (again.rerank(subnets) == model.rerank(subnets)).all()
    assert again.description.source == "a test"
    with pytest.raises(UsageError, match="space ofa_mbv3_w12"):
        load_predictor(tmp_path / "p.safetensors", load_space("ofa_mbv3"))


def test_gradient_is_the_slope_and_single_precision_is_near(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "p.pth")
    network = import_ofa_predictor(tmp_path / "p.pth", SPACE).network
    x = np.random.default_rng(0).random((5, 128))
    slope = network.gradient(x)
    for column in (0, 70, 127):
        step = np.zeros(128)
        step[column] = 1e-6
        measured = (network(x + step) - network(x - step)) / 2e-6
        assert measured == pytest.approx(slope[:, column], abs=1e-6)
    assert np.abs(network.single(x.astype(np.float32)) - network(x)).max() < 1e-5


class _Evil:
    def __reduce__(self) -> tuple:  # type: ignore[type-arg]
        return exec, ("raise SystemExit('code of the file was run')",)


def test_code_in_a_predictor_file_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"0.weight": _Evil()}))
    torch.save({**random_state(), "x": _Evil()}, tmp_path / "zip.pth")
    for name in ("raw.pth", "zip.pth"):
        with pytest.raises(FileFormatError):
            import_ofa_predictor(tmp_path / name, SPACE)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingMaterial):
        import_ofa_predictor(tmp_path / "none.pth", SPACE)
    (tmp_path / "junk").write_bytes(b"\x00\x01 nothing")
    with pytest.raises(FileFormatError):
        import_ofa_predictor(tmp_path / "junk", SPACE)
    with pytest.raises(FileFormatError, match="not a predictor of edgeofa"):
        load_predictor(tmp_path / "junk", SPACE)
    cases = {
        "nan": {"2.bias": torch.full((16,), float("nan"))},
        "shape": {"2.weight": torch.zeros(16, 15)},
        "outputs": {"4.weight": torch.zeros(2, 16), "4.bias": torch.zeros(2)},
        "extra": {"more": torch.zeros(1)},
    }
    for name, change in cases.items():
        torch.save({**random_state(), **change}, tmp_path / name)
        with pytest.raises(FileFormatError):
            import_ofa_predictor(tmp_path / name, SPACE)
    torch.save({**random_state(), "0.weight": torch.zeros(16, 100)}, tmp_path / "inputs")
    with pytest.raises(UsageError, match="100 inputs"):
        import_ofa_predictor(tmp_path / "inputs", SPACE)


def test_a_resolution_that_the_predictor_lacks_is_refused(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "p.pth")
    model = import_ofa_predictor(tmp_path / "p.pth", SPACE)
    with pytest.raises(UsageError, match="132 px"):
        model.accuracy(SPACE.smallest(132))
