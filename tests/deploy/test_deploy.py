"""The walk on a scripted device: verdicts, tightening, what is written, what is refused.

The device's times are the test's; the artifacts and their outputs are real.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fake_device import FakeDevice
from tiny_space import tiny_space

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.backends.onnx import OnnxRuntimeBackend
from edgeofa.deploy import MAX_TURNS, Request, deploy
from edgeofa.deployment import Budget, Deployment, load_deployment
from edgeofa.devices.base import Failure, Job, Measurement, Outcome, Progress
from edgeofa.errors import DeviceError, FileFormatError, MissingMaterial, NoSubnetFits, UsageError
from edgeofa.paths import data_dir
from edgeofa.profiling.profile import profile
from edgeofa.report.progress import Steps
from edgeofa.solver.inputs import load_candidates
from edgeofa.targets import load_target


@dataclass
class Scripted(FakeDevice):
    """Runs .tflite files for real and answers with the fake's time times ``slower``.

    ``slower`` is used up, one value a network; the last one stays.
    """

    slower: tuple[float, ...] = (1.0,)
    networks: int = 0

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        outcomes = super().run(jobs, threads=threads, progress=progress)
        factor = self.slower[min(self.networks, len(self.slower) - 1)]
        # a walk tries LiteRT, then onnxruntime, on each network
        self.networks += jobs[0].path.suffix == ".tflite"
        return [self._with_output(o, factor) for o in outcomes]

    @staticmethod
    def _with_output(outcome: Outcome, factor: float) -> Outcome:
        from ai_edge_litert.interpreter import Interpreter

        if isinstance(outcome, Failure) or outcome.job.path.suffix != ".tflite":
            return Failure(outcome.job, "this device runs LiteRT alone")
        interpreter = Interpreter(model_path=str(outcome.job.path), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], outcome.job.input)
        interpreter.invoke()
        output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return replace(
            outcome, samples_ns=tuple(factor * s for s in outcome.samples_ns), output=output
        )


@pytest.fixture
def space_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny space with tables of both precisions, measured on the fake device."""
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "tables"))
    space = tiny_space(tmp_path)
    # without the back end whose artifacts take seconds to compile
    text = (data_dir() / "targets" / "rpi4.toml").read_text()
    backends = re.sub(r"^backends = .*$", 'backends = ["litert", "onnxruntime"]', text, flags=re.M)
    (tmp_path / "rpi4.toml").write_text(backends)
    for precision in ("int8", "float32"):
        profile(load_target("rpi4"), space, LiteRtBackend(), precision, device=FakeDevice())
    return tmp_path / "tiny.toml"


def request(space_file: Path, latency_ms: float, **more: object) -> Request:
    return Request(
        target=str(space_file.parent / "rpi4.toml"),
        budget=Budget(latency_ms=latency_ms),
        space=str(space_file),
        out=space_file.parent / "out",
        random_weights=True,
        **more,  # type: ignore[arg-type]
    )


def walk(asked: Request, device: FakeDevice) -> Deployment:
    deployment, folder = deploy(asked, Steps(), device)
    assert folder == asked.out
    assert deployment.choice is not None
    return deployment


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_budget_that_holds(space_file: Path, precision: str) -> None:
    asked = request(space_file, 0.2, precision=precision)
    found = walk(asked, Scripted())
    assert found.verdict == "met"
    assert found.measured_ms <= 0.2
    assert found.predicted_ms == pytest.approx(found.measured_ms, rel=0.2)
    assert found.interval_ms[0] < found.measured_ms < found.interval_ms[1]
    assert found.evidence == "modelled"
    assert (found.precision, found.backend, found.weights) == (precision, "litert", "random")
    assert found.accuracy.predicted is found.accuracy.measured is None
    assert found.energy_mj is not None
    assert found.energy_mj > 0
    assert found.output_error.max_relative < (1e-4 if precision == "float32" else 0.2)
    assert len(found.choice.attempts) == 1
    assert [(c.backend, c.failure is None) for c in found.candidates] == [
        ("litert", True),
        ("onnxruntime", False),
    ]
    assert sum(b.latency_ms for b in found.blocks) > 0


def test_every_back_end_with_a_table_plans_and_all_are_tried(space_file: Path) -> None:
    """onnxruntime's table says less, so it plans; the device then runs LiteRT alone."""

    class Quick(FakeDevice):
        def _one(self, job: Job, threads: int) -> Outcome:
            found = super()._one(job, threads)
            assert isinstance(found, Measurement)
            return replace(found, samples_ns=tuple(s / 2 for s in found.samples_ns))

    space = tiny_space(space_file.parent)
    target = load_target(str(space_file.parent / "rpi4.toml"))
    for precision in ("int8", "float32"):
        profile(target, space, OnnxRuntimeBackend(), precision, device=Quick())
    candidates = load_candidates(target, space, proxy=True)
    planned = {(c.table.header.backend, c.table.header.precision) for c in candidates}
    assert planned == set(product(("litert", "onnxruntime"), ("int8", "float32")))
    alone = walk(request(space_file, 0.2, backend="litert"), Scripted())
    found = walk(request(space_file, 0.2), Scripted())
    assert found.choice is not None
    assert "-onnxruntime-" in found.choice.table
    # a larger network than LiteRT's own table would have dared
    assert found.choice.attempts[0].predicted_ms < alone.measured_ms * 1.2
    for attempt in found.choice.attempts:
        assert {c.backend for c in attempt.candidates} == set(target.backends)
    assert found.backend == "litert"
    page = (space_file.parent / "out" / "report.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in target.backends)


def test_what_is_written_is_the_record_the_page_and_the_artifact_alone(space_file: Path) -> None:
    import hashlib

    asked = request(space_file, 0.2)
    found = walk(asked, Scripted())
    assert asked.out is not None
    assert sorted(p.name for p in asked.out.iterdir()) == [
        "deployment.json",
        "graph.safetensors",
        "model.tflite",
        "reference.safetensors",
        "report.html",
    ]
    assert load_deployment(asked.out / "deployment.json") == found
    content = (asked.out / "model.tflite").read_bytes()
    assert hashlib.sha256(content).hexdigest() == found.artifact.sha256
    page = (asked.out / "report.html").read_text()
    assert found.subnet in page
    assert "<svg" in page
    # nothing is fetched: no element of the page refers to another file
    assert not re.search(r"""<(script|link|img|iframe)|src=|url\(\s*['"]?http""", page)
    keys = json.loads((asked.out / "deployment.json").read_text()).keys()
    assert {
        "target",
        "device",
        "evidence",
        "space",
        "subnet",
        "backend",
        "precision",
        "budget",
        "predicted_ms",
        "measured_ms",
        "interval_ms",
        "verdict",
        "accuracy",
        "energy_mj",
        "weight_bytes",
        "peak_bytes",
        "output_error",
        "artifact",
        "versions",
    } <= set(keys)


def test_a_miss_is_planned_again_with_less(space_file: Path) -> None:
    found = walk(request(space_file, 0.07, precision="float32"), Scripted(slower=(1.05, 1.0)))
    assert found.verdict == "met"
    first, second = found.choice.attempts
    assert first.measured_ms > 0.07 >= second.measured_ms
    assert second.planned.latency_ms < first.planned.latency_ms == 0.07
    assert (first.missed, second.missed) == (("latency_ms",), ())
    assert second.predicted_ms < first.predicted_ms


def test_after_three_misses_the_verdict_is_missed(space_file: Path) -> None:
    device = Scripted(slower=(1.02, 1.1, 1.3))
    found = walk(request(space_file, 0.075, precision="float32"), device)
    assert found.verdict == "missed"
    assert len(found.choice.attempts) == MAX_TURNS
    assert found.measured_ms == min(a.measured_ms for a in found.choice.attempts) > 0.075


def test_an_impossible_budget_names_the_fastest_before_anything_runs(space_file: Path) -> None:
    device = Scripted()
    with pytest.raises(NoSubnetFits, match=r"fastest.*tiny@8/") as caught:
        walk(request(space_file, 0.01), device)
    assert caught.value.exit_code == 3
    assert device.networks == 0


def test_a_device_that_runs_nothing_is_a_device_error_with_each_reason(space_file: Path) -> None:
    asked = request(space_file, 0.2)
    with pytest.raises(DeviceError, match=r"litert: .*onnxruntime: "):
        walk(asked, Scripted(crashes=("litert", "onnxruntime")))
    assert asked.out is not None
    assert list(asked.out.iterdir()) == []


def test_other_budgets_hold_too(space_file: Path) -> None:
    free = walk(request(space_file, 0.2), Scripted())
    tight = replace(
        request(space_file, 0.2),
        budget=Budget(latency_ms=0.2, flash_bytes=free.weight_bytes - 1),
    )
    assert walk(tight, Scripted()).weight_bytes < free.weight_bytes


def test_the_whole_plan_of_memory_counts_not_the_largest_block(space_file: Path) -> None:
    free = walk(request(space_file, 0.2, precision="float32"), Scripted())
    largest = max(free.peak_bytes, 1)
    tight = replace(
        request(space_file, 0.2, precision="float32"),
        budget=Budget(latency_ms=0.2, sram_bytes=largest - 1),
    )
    found = walk(tight, Scripted())
    assert (found.verdict == "met") == (found.peak_bytes < largest)
    assert ("sram_bytes" in found.missed) == (found.peak_bytes >= largest)


@pytest.mark.parametrize(("axis", "limit"), [("energy_mj", 0.1), ("latency_ms", 0.1)])
def test_budgets_missed_and_tightened(axis: str, limit: float) -> None:
    asked = Budget(**{"latency_ms": 1.0, axis: limit})
    cost = Budget(latency_ms=0.2, energy_mj=0.2, flash_bytes=5, sram_bytes=5)
    assert asked.missed_by(cost) == (axis,)
    assert asked.tightened(asked, cost, 0.9) == asked.model_copy(update={axis: limit * 0.45})
    assert asked.missed_by(Budget(latency_ms=limit, energy_mj=limit)) == ()


@pytest.mark.parametrize("wrong", ["nan", "noise"])
def test_a_back_end_whose_output_is_wrong_is_out(space_file: Path, wrong: str) -> None:
    class Wrong(Scripted):
        def run(
            self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
        ) -> list[Outcome]:
            found = super().run(jobs, threads=threads, progress=progress)
            return [
                replace(o, output=o.output * np.nan if wrong == "nan" else 1 - o.output)
                if isinstance(o, Measurement) and o.output is not None
                else o
                for o in found
            ]

    with pytest.raises(DeviceError, match="output is"):
        walk(request(space_file, 0.2, precision="float32"), Wrong())


def test_two_walks_into_one_folder_do_not_mix(space_file: Path) -> None:
    class Busy(Scripted):
        inner: str = ""

        def run(
            self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
        ) -> list[Outcome]:
            with pytest.raises(UsageError, match="another deployment") as caught:
                walk(request(space_file, 0.2), Scripted())
            self.inner = str(caught.value)
            return super().run(jobs, threads=threads, progress=progress)

    device = Busy()
    assert walk(request(space_file, 0.2), device).verdict == "met"
    assert "--out" in device.inner


def test_without_a_bundle_the_way_out_is_named(space_file: Path) -> None:
    with pytest.raises(MissingMaterial, match="--random-weights"):
        walk(replace(request(space_file, 0.2), random_weights=False), Scripted())


def test_same_seed_same_artifact(space_file: Path) -> None:
    one = walk(request(space_file, 0.2, seed=3), Scripted())
    two = walk(request(space_file, 0.2, seed=3), Scripted())
    assert one.artifact.sha256 == two.artifact.sha256
    assert walk(request(space_file, 0.2, seed=4), Scripted()).artifact.sha256 != one.artifact.sha256


def test_a_foreign_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    path.write_text('{"verdict": "met"}')
    with pytest.raises(FileFormatError, match="not a deployment record"):
        load_deployment(path)
