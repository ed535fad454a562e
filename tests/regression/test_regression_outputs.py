"""Faults in real artifacts are found, and the layer that they are in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from regression_world import Bench, make_deployment, replace_artifact, small_images

from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.regression.blocks import measure_segments, segment_of, segments
from edgeofa.regression.constants import check_constants
from edgeofa.regression.cuts import open_cuts, read_tflite
from edgeofa.regression.deployed import find_deployments, open_deployment
from edgeofa.regression.layers import probe_layers, walk_layers
from edgeofa.regression.material import load_material
from edgeofa.regression.outputs import check_outputs, run_images
from edgeofa.regression.record import Check

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import artifact_faults

    return artifact_faults


def outputs_of(folder: Path, work: Path, *, accepted: bool = False, suspect: bool = True) -> Check:
    deployed, device = open_deployment(folder), Bench()
    assert deployed.material is not None
    found = run_images(device, deployed, deployed.material.graph, deployed.material.inputs)
    return check_outputs(
        device,
        deployed,
        deployed.material,
        found,
        work,
        accepted=accepted,
        suspect=suspect,
        threads=1,
    )


@pytest.mark.parametrize("backend", ["litert", "onnxruntime"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_right_artifact_passes_layer_by_layer(
    tmp_path: Path, backend: str, precision: str
) -> None:
    folder = make_deployment(tmp_path / "d", backend=backend, precision=precision)  # type: ignore[arg-type]
    deployed = open_deployment(folder)
    assert deployed.material is not None
    graph = deployed.material.graph
    cuts = open_cuts(deployed.artifact, backend, graph)
    for image in range(2):
        inputs = deployed.material.inputs[image : image + 1]
        walk = walk_layers(Bench(), cuts, graph, inputs, image, tmp_path, backend, 1)
        assert walk.finding is None
        assert walk.layers == len(graph.ops)
        assert walk.worst <= (1 if precision == "int8" else 1e-5)
    probe = probe_layers(Bench(), cuts, graph, tmp_path, backend, 1)
    assert probe.finding is None
    check = outputs_of(folder, tmp_path)
    assert (check.status, check.layer) == ("passed", None)
    assert check_constants(deployed, graph).summary.startswith("byte for byte")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "fault", ["wrong_kernel", "wrong_scale", "swapped_channels", "flipped_bit"]
)
def test_a_fault_is_found_in_its_layer(
    faults: ModuleType, tmp_path: Path, fault: str, seed: int
) -> None:
    folder = make_deployment(tmp_path / "d")
    spoil: Callable[..., object] = getattr(faults, fault)
    spoilt = spoil(folder / "model.tflite", random.Random(seed))
    replace_artifact(folder, spoilt.content)  # type: ignore[attr-defined]
    layer = spoilt.layer  # type: ignore[attr-defined]
    deployed = open_deployment(folder)
    assert deployed.material is not None
    constants = check_constants(deployed, deployed.material.graph)
    assert constants.status == "failed"
    assert constants.layer is not None
    assert constants.layer.layer == layer
    check = outputs_of(folder, tmp_path)
    assert check.status == "failed", check.summary
    assert check.layer is not None
    assert check.layer.layer == layer
    assert check.layer.block in layer
    assert check.layer.steps is not None
    assert check.layer.steps > 1


def test_a_fault_in_the_runtime_is_found_too(tmp_path: Path) -> None:
    """A device whose kernels are wrong: the artifact is the graph's, a layer is not."""

    class Wrong(Bench):
        def run(self, jobs, **options):  # type: ignore[no-untyped-def]
            found = super().run(jobs, **options)
            for outcome in found:
                # a kernel that gets channel 3 of tensors of 24 channels wrong
                if outcome.output is not None and outcome.output.shape[-1] == 24:
                    outcome.output[..., 3] ^= 0x40
            return found

    folder = make_deployment(tmp_path / "d")
    deployed = open_deployment(folder)
    assert deployed.material is not None
    assert check_constants(deployed, deployed.material.graph).status == "passed"
    graph, inputs = deployed.material.graph, deployed.material.inputs[:1]
    cuts = open_cuts(deployed.artifact, "litert", graph)
    walk = walk_layers(Wrong(), cuts, graph, inputs, 0, tmp_path, "litert", 1)
    assert walk.finding is not None
    assert walk.finding.layer == "1.mbconv.expand"
    assert walk.finding.channels == (3,)
    assert walk.finding.share == pytest.approx(1 / 24)


def test_accepted_outputs_are_not_walked_through(tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "d")
    work = tmp_path / "work"
    work.mkdir()
    check = outputs_of(folder, work, accepted=True, suspect=False)
    assert check.status == "passed"
    assert "bit-identical" in check.summary
    assert not list(work.iterdir())


def test_blocks_partition_the_network_and_are_measured(tmp_path: Path) -> None:
    deployed = open_deployment(make_deployment(tmp_path / "d"))
    assert deployed.material is not None
    graph = deployed.material.graph
    cuts = open_cuts(deployed.artifact, "litert", graph)
    found = segments(graph, cuts)
    assert [s.name for s in found] == ["0.stem", "1.mbconv", "2.mbconv", "3.head"]
    assert [s.first for s in found] == [0, *(s.last + 1 for s in found[:-1])]
    assert found[-1].last == len(graph.ops) - 1
    assert segment_of(found, 2) == "1.mbconv"
    named = segments(graph, cuts, ["a", "b", "c", "d"])
    assert [s.name for s in named] == ["0: a", "1: b", "2: c", "3: d"]
    latencies = measure_segments(Bench(evidence="modelled"), cuts, found, tmp_path, "litert", 1)
    assert list(latencies) == [s.name for s in found]
    assert all(latency.ms > 0.5 for latency in latencies.values())


def test_idle_operators_change_nothing_but_their_block(faults: ModuleType, tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "d")
    replace_artifact(folder, faults.slowed(folder / "model.tflite", "1.mbconv.expand", 6))
    check = outputs_of(folder, tmp_path)
    assert check.status == "passed", check.summary
    deployed = open_deployment(folder)
    assert deployed.material is not None
    graph = deployed.material.graph
    assert "arranged otherwise" in check_constants(deployed, graph).summary
    cuts = open_cuts(deployed.artifact, "litert", graph)
    original = open_cuts(make_deployment(tmp_path / "o") / "model.tflite", "litert", graph)
    counts = []
    for c in (original, cuts):
        for segment in segments(graph, c):
            (tmp_path / "part").write_bytes(c.part(segment.source, segment.sink))
            counts.append(len(read_tflite(tmp_path / "part").subgraphs[0].operators))
    assert counts[4:] == [counts[0], counts[1] + 6, *counts[2:4]]


# ----------------------------------------------------------------------------- damaged folders


def test_a_part_needs_what_it_needs(tmp_path: Path) -> None:
    deployed = open_deployment(make_deployment(tmp_path / "d"))
    assert deployed.material is not None
    graph = deployed.material.graph
    cuts = open_cuts(deployed.artifact, "litert", graph)
    skip = next(op for op in graph.ops if op.kind == "add")
    with pytest.raises(FileFormatError, match="needs"):
        cuts.part(skip.inputs[0], skip.output)
    with pytest.raises(FileFormatError, match=r"not a \.tflite"):
        open_cuts(deployed.folder / "deployment.json", "litert", graph)
    with pytest.raises(UsageError, match="cannot be cut"):
        open_cuts(deployed.artifact, "tvm", graph)


@pytest.mark.parametrize(
    "name", ["model.tflite", "graph.safetensors", "reference.safetensors", "deployment.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_folder_is_refused_by_the_file_at_fault(
    tmp_path: Path, name: str, damage: str
) -> None:
    folder = make_deployment(tmp_path / "d")
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x10
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()
    if name == "deployment.json" and damage == "flip":
        path.write_bytes(bytes(content).replace(b'"verdict"', b'"verdikt"'))
    with pytest.raises((FileFormatError, MissingMaterial)) as caught:
        open_deployment(folder)
    assert str(folder) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_path_in_a_record_is_never_followed(tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "d")
    text = (folder / "deployment.json").read_text()
    for path in ("../../secret", "/etc/passwd", "C:\\\\x\\\\y", ""):
        (folder / "deployment.json").write_text(text.replace("/elsewhere/model.tflite", path))
        with pytest.raises(FileFormatError, match="the artifact is called"):
            open_deployment(folder)
    (folder / "deployment.json").write_text(text + " " * (5 << 20))
    with pytest.raises(FileFormatError, match="4 MiB"):
        open_deployment(folder)


def test_deployments_are_found_by_target_and_have_one_name(tmp_path: Path) -> None:
    make_deployment(tmp_path / "all" / "one")
    make_deployment(tmp_path / "all" / "two", target="rpi4")
    assert [d.name for d in find_deployments([tmp_path / "all"], "host")] == ["one"]
    assert [d.name for d in find_deployments([tmp_path / "all" / "two"], "rpi4")] == ["two"]
    (tmp_path / "all" / "two" / "model.tflite").unlink()
    assert [d.name for d in find_deployments([tmp_path / "all"], "host")] == ["one"]
    with pytest.raises(FileFormatError, match=r"model\.tflite"):
        find_deployments([tmp_path / "all"], "rpi4")
    with pytest.raises(MissingMaterial, match="only to host, rpi4"):
        find_deployments([tmp_path / "all"], "stm32")
    with pytest.raises(MissingMaterial, match="no such folder"):
        find_deployments([tmp_path / "none"], "host")
    make_deployment(tmp_path / "more" / "one")
    with pytest.raises(UsageError, match="two deployments are called one"):
        find_deployments([tmp_path / "all", tmp_path / "more"], "host")


def test_stored_inputs_and_outputs_come_back(tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "d", precision="float32")
    record = open_deployment(folder).record
    assert record.test is not None
    material = load_material(record.test, folder)
    assert np.array_equal(material.inputs, small_images())
    assert material.outputs.shape == (4, 5)
