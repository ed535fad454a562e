"""A model of one's own to the emulated boards and this machine: imported, run, checked, refused.

About 60 s.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import sample_graphs
from material import material
from typer.testing import CliRunner

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.cli.main import app, command
from edgeofa.deployment import Deployment, load_deployment
from edgeofa.errors import (
    BudgetMissed,
    EdgeofaError,
    FileFormatError,
    RegressionFound,
    TooLarge,
    UnsupportedOperator,
    UsageError,
)
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.model_data import load_examples
from edgeofa.targets import load_target

needs_board = pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-system-arm", "arm-none-eabi-gcc"))),
    reason="needs qemu-system-arm and gcc-arm-none-eabi",
)
needs_rpi4 = pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-aarch64", "aarch64-linux-gnu-gcc"))),
    reason="needs qemu-user and the aarch64 compiler",
)
pytestmark = pytest.mark.device
_NUCLEO = "nucleo-l4r5zi"


def invoke(*arguments: str) -> str:
    command()
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def deployed(model: Path, target: str, out: Path, *arguments: str) -> Deployment:
    """What ``edgeofa deploy --json`` prints, which is also what it writes."""
    text = invoke(
        *("deploy", "--target", target, "--model", str(model)),
        *("--out", str(out), "--json", *arguments),
    )
    record = Deployment.model_validate_json(text)
    assert record == load_deployment(out / "deployment.json")
    return record


def written(graph: Graph, path: Path) -> Path:
    path.write_bytes(LiteRtBackend().serialize(graph))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(sample_graphs.int8_graph("network"), tmp_path / "mine.tflite")


@needs_board
@pytest.mark.parametrize(
    ("name", "most_ms", "layers"),
    [("kws_ref_model", 43.19, 12), ("pretrainedResnet_quant", 165.13, 15)],
)
def test_published_models_on_a_microcontroller(
    name: str, most_ms: float, layers: int, tmp_path: Path
) -> None:
    file = material(f"mlperf_tiny/{name}.tflite")
    found = deployed(file, _NUCLEO, tmp_path / "out", "--latency", f"{most_ms}ms")
    assert found.verdict == "met"
    assert (found.weights, found.space, found.subnet) == ("own", None, None)
    assert found.model is not None
    assert found.model.file == f"{name}.tflite"
    assert found.predicted_ms is None
    # bit for bit, on all inputs
    assert (found.output_error.max_steps, found.output_error.images) == (0, 4)
    # each layer has a time, and they add up to the whole
    assert len(found.layers) == layers
    assert sum(x.latency_ms or 0.0 for x in found.layers) == pytest.approx(
        found.measured_ms, rel=0.02
    )
    assert max(x.live_bytes for x in found.layers) <= found.peak_bytes
    assert found.memory.arena_bytes is not None
    assert 0 < found.memory.arena_bytes <= found.peak_bytes
    assert found.memory.stack_bytes is not None
    # the whole firmware holds code and stack beside constants and arena
    m = found.memory
    assert found.weight_bytes + 5000 < (m.flash_bytes or 0) < (m.flash_total_bytes or 0)
    assert found.peak_bytes + 8192 < (m.ram_bytes or 0) < (m.ram_total_bytes or 0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert found.layers[0].layer in page
    assert "no table knows it" in page


@needs_board
def test_a_deployed_model_is_tested_and_accepted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = invoke("deploy", "--target", _NUCLEO, "--model", str(model))
    assert "no budget was asked for" in text
    assert "no table knows this network" in text
    assert (tmp_path / "deployments" / f"{_NUCLEO}-mine").is_dir()
    invoke("baseline", "accept", "--target", _NUCLEO)
    report = json.loads(invoke("test", "--target", _NUCLEO, "--json"))
    checks = {c["name"]: c for c in report["deployments"][0]["checks"]}
    assert report["status"] == "passed"
    assert checks["outputs"]["status"] == "passed"
    assert checks["latency"]["value"] == checks["latency"]["baseline"]
    assert {checks[name]["status"] for name in ("arena", "stack")} == {"passed"}
    assert checks["arena"]["value"] == checks["arena"]["baseline"] > 1000
    # a baseline knows each layer's time, so that a slower one can be named
    (baseline,) = (tmp_path / "baselines" / _NUCLEO / f"{_NUCLEO}-mine").glob("*.json")
    layers = json.loads(baseline.read_text())["blocks"]
    assert len(layers) == 20
    assert sum(x["ms"] for x in layers) == pytest.approx(checks["latency"]["value"], rel=0.02)
    # an artifact that computes something else is found
    folder = tmp_path / "deployments" / f"{_NUCLEO}-mine"
    invoke(
        *("deploy", "--target", _NUCLEO, "--out", str(tmp_path / "other")),
        *("--model", str(written(sample_graphs.int8_graph("network", 1), tmp_path / "o.tflite"))),
    )
    record = load_deployment(folder / "deployment.json")
    other = load_deployment(tmp_path / "other" / "deployment.json")
    shutil.copy(tmp_path / "other" / "model.zip", folder / "model.zip")
    changed = record.model_copy(update={"artifact": other.artifact})
    (folder / "deployment.json").write_text(changed.model_dump_json())
    with pytest.raises(RegressionFound, match="outputs"):
        invoke("test", "--target", _NUCLEO)


@needs_board
def test_budgets_of_a_model(model: Path, tmp_path: Path) -> None:
    free = deployed(model, _NUCLEO, tmp_path / "free")
    assert free.verdict == "unbudgeted"
    tight = deployed(model, _NUCLEO, tmp_path / "tight", "--sram", f"{free.peak_bytes - 64}B")
    # the compiler keeps to the budget where it can
    assert tight.verdict == "met"
    assert tight.peak_bytes < free.peak_bytes
    with pytest.raises(BudgetMissed, match=r"sram_bytes.*most memory at [0-9]+\."):
        deployed(model, _NUCLEO, tmp_path / "missed", "--sram", "600B", "--latency", "1s")
    missed = load_deployment(tmp_path / "missed" / "deployment.json")
    assert (missed.verdict, missed.missed) == ("missed", ("sram_bytes",))


@needs_board
def test_what_does_not_fit_says_by_how_much(tmp_path: Path) -> None:
    builder = GraphBuilder("wide", (1, 96, 96, 3))
    rng = np.random.default_rng(0)
    x = builder.conv2d(builder.input, rng.standard_normal((48, 1, 1, 3)), np.zeros(48))
    x = builder.add(x, builder.conv2d(x, rng.standard_normal((48, 1, 1, 48)) / 7, np.zeros(48)))
    graph = builder.build(x)
    images = rng.standard_normal((1, 96, 96, 3)).astype(np.float32)
    file = written(quantize_with(graph, [images]), tmp_path / "wide.tflite")
    what = r"([0-9]+) bytes too large for the board's RAM.*most at 1\.conv_2d \(conv2d\), ([0-9]+)"
    with pytest.raises(TooLarge, match=what) as caught:
        deployed(file, _NUCLEO, tmp_path / "out")
    assert caught.value.exit_code == 3
    said = re.search(what, str(caught.value))
    assert said is not None
    # 96 x 96 x 48 values twice over are what no plan avoids; the board has 640 KiB
    over, live = int(said[1]), int(said[2])
    assert 0 <= live - 2 * 96 * 96 * 48 < 2000
    assert 0 <= over - (live - (640 << 10)) < 20_000
    assert list((tmp_path / "out").iterdir()) == []


@needs_rpi4
def test_a_model_on_a_linux_board(tmp_path: Path) -> None:
    # few operators: compiling each takes a while
    small = written(sample_graphs.int8_graph("conv_same"), tmp_path / "small.tflite")
    found = deployed(small, "rpi4", tmp_path / "out", "--latency", "50ms")
    assert found.verdict == "met"
    assert found.evidence == "modelled"
    # every back end of the target was tried, the fastest is kept
    tried = {c.backend: c.measured_ms for c in found.candidates}
    assert set(tried) == set(load_target("rpi4").backends)
    assert all(name in (tmp_path / "out" / "report.html").read_text() for name in tried)
    assert found.measured_ms == min(ms for ms in tried.values() if ms is not None)
    assert found.output_error.images == 4


def test_a_model_on_this_machine(model: Path, tmp_path: Path) -> None:
    found = deployed(model, "host", tmp_path / "out", "--backend", "litert")
    assert (found.backend, found.evidence, found.verdict) == ("litert", "measured", "unbudgeted")
    assert found.measured_ms > 0


def test_labelled_inputs_tell_the_accuracy(model: Path, tmp_path: Path) -> None:
    from edgeofa.graph.reference import run_real

    graph = sample_graphs.int8_graph("network")
    images = sample_graphs.images((1, 24, 24, 3), 20, seed=5)
    right = run_real(graph, images).argmax(-1)
    labels = np.where(np.arange(20) < 5, (right + 1) % 10, right)
    np.savez(tmp_path / "examples.npz", inputs=images, labels=labels)
    data = ("--data", str(tmp_path / "examples.npz"))
    found = deployed(model, "host", tmp_path / "out", "--backend", "litert", *data)
    assert (found.accuracy.measured, found.accuracy.images) == (0.75, 20)
    tested = json.loads(
        invoke(
            *("test", "--target", "host", str(tmp_path / "out"), "--images", "20", "--json"),
            *("--runs", "16", *data),
        )
    )
    (accuracy,) = [c for c in tested["deployments"][0]["checks"] if c["name"] == "accuracy"]
    assert accuracy["status"] == "passed"


def test_pictures_of_classes_tell_the_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet8 takes pixels as they are: 0 to 255."""
    monkeypatch.setattr("edgeofa.deploy_model.MEASURED_IMAGES", 100)
    file = material("mlperf_tiny/pretrainedResnet_quant.tflite")
    cifar = material("cifar10")
    data = ("--data", str(cifar))
    found = deployed(file, "host", tmp_path / "out", "--backend", "litert", *data)
    assert found.accuracy.images == 100
    assert found.accuracy.measured is not None
    # 0.75 of 1,000 of these recompressed pictures; with channels reversed 0.63
    assert 0.66 < found.accuracy.measured < 0.84
    assert (found.input.mean, found.input.std) == ((0.0,) * 3, (1.0,) * 3)


def test_pictures_in_folders(model: Path, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "pictures" / f"class{number}"
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(folder / "a.png")
    data = ("--data", str(tmp_path / "pictures"), "--mean", "128", "--std", "64,65,66")
    found = deployed(model, "host", tmp_path / "out", "--backend", "litert", *data)
    assert found.accuracy.images == 10
    assert (found.input.mean, found.input.std) == ((128.0,) * 3, (64.0, 65.0, 66.0))
    shutil.rmtree(tmp_path / "pictures" / "class0")
    with pytest.raises(UsageError, match=r"9 classes .*the model has 10"):
        deployed(model, "host", tmp_path / "out", *data)


@needs_board
def test_an_onnx_model_on_a_microcontroller(tmp_path: Path) -> None:
    from edgeofa.backends.onnx import OnnxRuntimeBackend

    file = tmp_path / "mine.onnx"
    file.write_bytes(OnnxRuntimeBackend().serialize(sample_graphs.int8_graph("network")))
    found = deployed(file, _NUCLEO, tmp_path / "out")
    assert found.model is not None
    assert (found.model.format, found.precision) == ("onnx", "int8")
    assert (found.output_error.max_steps, found.output_error.images) == (0, 4)
    # a float32 one is quantised on examples, and only on them
    file.write_bytes(OnnxRuntimeBackend().serialize(sample_graphs.float_graph("network")))
    with pytest.raises(UsageError, match=r"a float32 model, and .* computes in int8"):
        deployed(file, _NUCLEO, tmp_path / "out")
    np.save(tmp_path / "x.npy", sample_graphs.images((1, 24, 24, 3), 40, seed=2))
    found = deployed(file, _NUCLEO, tmp_path / "out", "--data", str(tmp_path / "x.npy"))
    assert found.model is not None
    assert (found.model.precision, found.model.calibration_images) == ("float32", 20)
    assert found.output_error.max_steps == 0
    assert found.output_error.sqnr_db is not None
    assert found.output_error.sqnr_db > 25


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"inputs": np.zeros((4, 5, 5, 3), np.float32)}, "the model takes"),
        ({"pictures": np.zeros((4, 24, 24, 3), np.float32)}, "it holds pictures"),
        ({"inputs": np.full((4, 24, 24, 3), np.nan, np.float32)}, "not finite"),
        ({"inputs": np.zeros((4, 24, 24, 3)), "labels": np.zeros(3, int)}, "labels"),
        ({"inputs": np.array(["a", "b"])}, "inputs of shape"),
    ],
)
def test_data_is_checked(
    model: Path, tmp_path: Path, content: dict[str, np.ndarray], what: str
) -> None:
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(UsageError, match=what):
        deployed(model, "host", tmp_path / "out", "--data", str(tmp_path / "data.npz"))


def test_damaged_data_is_refused(tmp_path: Path) -> None:
    """Whatever the damage, there are inputs or an error of edgeofa's own."""
    rng = np.random.default_rng(0)
    graph = sample_graphs.int8_graph("conv_same")
    x = rng.standard_normal((4, *graph.input_tensor.shape[1:])).astype(np.float32)
    np.save(tmp_path / "good.npy", x)
    np.savez_compressed(tmp_path / "good.npz", inputs=x, labels=np.arange(4))
    refused = 0
    for suffix in (".npy", ".npz"):
        good = (tmp_path / f"good{suffix}").read_bytes()
        file = tmp_path / f"damaged{suffix}"
        for _ in range(60):
            content = np.frombuffer(good, np.uint8).copy()
            content[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
            # headers are where most can go wrong
            content[rng.integers(6, 128)] = ord(rng.choice(list("([{'\"#")))
            file.write_bytes(content.tobytes())
            try:
                load_examples(file, graph, 4, 0)
            except UsageError:
                refused += 1
    assert 40 < refused < 120


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        (("--space", "cifar_micro"), UsageError, "--space is about subnets"),
        (("--random-weights",), UsageError, "--random-weights is about subnets"),
        (("--backend", "litert"), UsageError, "no back end 'litert'"),
        (("--precision", "float32"), UsageError, "no precision 'float32'"),
        (("--data", "none.npz"), UsageError, "no such file"),
        (("--mean", "a"), UsageError, "not a number or three"),
        (("--std", "0"), UsageError, "a deviation of 0"),
    ],
)
def test_usage_is_checked(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], error: type[EdgeofaError], what: str
) -> None:
    with pytest.raises(error, match=what):
        deployed(model, _NUCLEO, tmp_path / "out", *arguments)


def test_a_budget_that_nothing_can_judge_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the power of host is not known"):
        deployed(model, "host", tmp_path / "out", "--energy", "1mJ")
    assert not (tmp_path / "out").exists()


def test_a_latency_is_needed_for_a_subnet() -> None:
    with pytest.raises(UsageError, match="chosen by its latency"):
        invoke("deploy", "--target", "rpi4")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("none.tflite", b"", "neither a .tflite"),
        ("cut.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 40, "damaged"),
        ("text.txt", b"a model", "neither a .tflite"),
    ],
)
def test_a_broken_file_is_refused(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=what):
        deployed(tmp_path / name, _NUCLEO, tmp_path / "out")
    with pytest.raises(UsageError, match="no such file"):
        deployed(tmp_path / "absent.tflite", _NUCLEO, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    file = written(sample_graphs.int8_graph("dense_after_mean"), tmp_path / "mine.tflite")
    content = bytearray(file.read_bytes())
    model = schema.Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    (mean,) = [c for c in codes if c.BuiltinCode() == schema.BuiltinOperator.MEAN]
    for slot, size in ((4, 1), (10, 4)):
        place = mean._tab.Pos + mean._tab.Offset(slot)
        content[place : place + size] = schema.BuiltinOperator.LOGISTIC.to_bytes(size, "little")
    file.write_bytes(bytes(content))
    with pytest.raises(UnsupportedOperator, match="operator 0, LOGISTIC"):
        deployed(file, _NUCLEO, tmp_path / "out")


def test_records_of_version_1_are_read(tmp_path: Path) -> None:
    found = load_deployment(_version_1(tmp_path, choice=True))
    assert found.schema_version == 2
    assert found.choice is not None
    assert found.choice.table == "rpi4/tiny-litert-int8"
    assert found.choice.attempts[0].candidates == ()
    assert (found.space, found.predicted_ms, found.model) == ("tiny", 0.9, None)
    assert found.tried == (("tiny@12/3x2", found.candidates[0]),)
    # what is read is written as today's
    path = tmp_path / "again.json"
    path.write_text(found.model_dump_json())
    assert load_deployment(path) == found
    with pytest.raises(FileFormatError, match="table"):
        load_deployment(_version_1(tmp_path, choice=False))


def _version_1(folder: Path, *, choice: bool) -> Path:
    """A record as the version before wrote it."""
    budget = {"latency_ms": 1.0, "energy_mj": None, "flash_bytes": None, "sram_bytes": None}
    attempt = {
        "planned": budget,
        "subnet": "tiny@12/3x2",
        "precision": "int8",
        "predicted_ms": 0.9,
        "measured_ms": 0.8,
        "missed": [],
    }
    record = {
        "schema_version": 1,
        "verdict": "met",
        "missed": [],
        "target": "rpi4",
        "device": "rpi4 (emulated)",
        "device_identity": {"model": "one"},
        "evidence": "modelled",
        "threads": 1,
        "space": "tiny",
        "weights": "random",
        "subnet": "tiny@12/3x2",
        "backend": "litert",
        "precision": "int8",
        "budget": budget,
        "predicted_ms": 0.9,
        "measured_ms": 0.8,
        "interval_ms": [0.7, 0.9],
        "status": "ok",
        "accuracy": {"predicted": None, "predicted_error": None, "measured": None, "images": None},
        "energy_mj": None,
        "energy_interval_mj": None,
        "weight_bytes": 1,
        "peak_bytes": 1,
        "output_error": {"max_relative": 0.0, "max_steps": 0, "images": 1},
        "artifact": {"path": "out/model.tflite", "sha256": "0" * 64, "bytes": 1},
        "test": None,
        "input": {
            "shape": [1, 12, 12, 3],
            "layout": "NHWC",
            "dtype": "int8",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "scale": 0.1,
            "zero_point": 0,
        },
        "parts_ms": {},
        "blocks": [{"block": "stem", "latency_ms": 0.9}],
        "candidates": [{"backend": "litert", "precision": "int8", "measured_ms": 0.8}],
        "attempts": [attempt],
        "runners_up": [],
        "ties": None,
        "frontier": [],
        "frontier_points": 0,
        "additivity": {"a_ms": 0.0},
        "calibration_images": 0,
        "seed": 0,
        "date": "2026-01-01 00:00 UTC",
        "seconds": {},
        "versions": {},
    }
    if choice:
        record["table"] = "rpi4/tiny-litert-int8"
    path = folder / f"version_1-{choice}.json"
    path.write_text(json.dumps(record))
    return path
