"""Baselines: what is accepted, what is refused, what a hostile file can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from regression_world import Bench, make_deployment, replace_artifact

from edgeofa.devices.base import Endurance
from edgeofa.errors import (
    FileFormatError,
    MissingMaterial,
    RegressionFound,
    UnstableMeasurement,
    UsageError,
)
from edgeofa.regression.accept import accept
from edgeofa.regression.baseline import Baseline, find_baseline, list_baselines, load_baseline
from edgeofa.regression.deployed import open_deployment
from edgeofa.regression.diff import diff_baselines
from edgeofa.regression.history import accepted_history
from edgeofa.regression.suite import Plan
from edgeofa.targets import load_target


def stored(world: Path) -> tuple[Path, Baseline]:
    ((path, baseline),) = list_baselines(world / "baselines")
    return path, baseline


def accepted(tmp_path: Path, device: Bench | None = None, **more: str) -> tuple[Path, Baseline]:
    folder = tmp_path / "d"
    if not folder.exists():
        make_deployment(folder)
    plan = Plan(tmp_path / "baselines", runs=40)
    return accept(load_target("host"), device or Bench(), open_deployment(folder), plan, **more)


def test_a_baseline_holds_what_a_later_run_needs(world: Path) -> None:
    path, baseline = stored(world)
    assert path == world / "baselines" / "host" / "d" / "litert-2.3.0-measured.json"
    assert baseline.reason == "first"
    assert baseline.gate.relative >= 0.06
    assert baseline.gate.runs == 5
    assert len(baseline.outputs) == 4
    assert [b.block for b in baseline.blocks] == ["0.stem", "1.mbconv", "2.mbconv", "3.head"]
    assert (baseline.load_ms, baseline.peak_rss_bytes) == (1.5, 9_000_000)
    assert baseline.latency.low_ms < baseline.latency.ms < baseline.latency.high_ms
    assert baseline.latency.yardsticks is not None
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing half-written is left"


def test_accepting_again_keeps_the_history(world: Path) -> None:
    path, second = accepted(world, Bench(ms=0.6), reason="slower on purpose")
    assert load_baseline(path) == second
    assert [h.reason for h in second.history] == ["first"]
    (history,) = accepted_history(world / "baselines")
    assert len(history.points) == 2
    assert history.points[0].latency_ms < history.points[1].latency_ms
    with pytest.raises(MissingMaterial, match="baseline accept"):
        accepted_history(world / "none")


@pytest.mark.parametrize(
    ("device", "error", "says"),
    [
        (Bench(refuses=True), RegressionFound, "does not run"),
        (Bench(endurance=Endurance(1, 3, 0, 0, 1)), RegressionFound, "3 outputs differ"),
        (Bench(endurance=Endurance(1, 0, 0, 1 << 20, 1)), RegressionFound, "grew by 1024 KB"),
        (Bench(noise=0.8), UnstableMeasurement, "steady enough"),
        (Bench(preemptions=100), UnstableMeasurement, "steady enough"),
    ],
)
def test_what_is_wrong_is_not_accepted(
    tmp_path: Path, device: Bench, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        accepted(tmp_path, device)
    assert not (tmp_path / "baselines").exists()


def test_a_wrong_artifact_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from artifact_faults import flipped_bit

    folder = make_deployment(tmp_path / "d")
    spoilt = flipped_bit(folder / "model.tflite", random.Random(1))
    replace_artifact(folder, spoilt.content)
    with pytest.raises(RegressionFound, match=spoilt.layer):
        accepted(tmp_path)


def found(world: Path, **change: object) -> tuple[Path, Baseline] | None:
    asked: dict[str, object] = {
        "target": "host",
        "deployment": "d",
        "backend": "litert",
        "evidence": "measured",
        "identity": Bench().identity(),
    }
    asked.update(change)
    return find_baseline(world / "baselines", **asked)  # type: ignore[arg-type]


def test_only_what_is_comparable_is_compared(world: Path) -> None:
    path, baseline = stored(world)
    assert found(world) == (path, baseline)
    assert found(world, deployment="another") is None
    assert found(world, target="rpi4") is None
    here = Bench().identity()
    for change, says in (
        ({"evidence": "modelled"}, "it is of the evidence measured"),
        ({"backend": "onnxruntime"}, "it is of the back end litert"),
        ({"identity": here | {"model": "other"}}, "from another device .model one, here other"),
        ({"identity": here | {"processors": "8"}}, "from another device .processors unknown"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            found(world, **change)
        assert "baseline accept" in str(caught.value)
    # a baseline that was moved to another deployment's folder is still the old one's
    moved = path.parents[1] / "moved"
    path.parent.rename(moved)
    with pytest.raises(UsageError, match="of the deployment d"):
        found(world, deployment="moved")


def test_another_runtime_is_what_one_tests_for(world: Path) -> None:
    path, baseline = stored(world)
    newer = Bench().identity() | {"litert": "2.4.0 sha256:bb", "kernel": "6.6"}
    assert found(world, identity=newer) == (path, baseline)
    _, second = accepted(world, Bench(facts=newer))
    assert found(world, identity=newer) == (
        list_baselines(world / "baselines")[-1][0],
        second,
    )
    assert found(world) == (path, baseline)
    difference = diff_baselines(baseline, second)
    assert difference.change == "same"
    assert difference.same_outputs
    assert "kernel: 6.1 → 6.6" in difference.changes
    assert any(c.startswith("litert: 2.3.0") for c in difference.changes)


def test_a_diff_judges_by_the_old_gate_and_refuses_strangers(world: Path) -> None:
    _, old = stored(world)
    _, new = accepted(world, Bench(slower=1.3))
    difference = diff_baselines(old, new)
    assert difference.change == "slower"
    assert difference.ratio == pytest.approx(1.3, rel=0.02)
    assert [m.block for m in difference.blocks]
    with pytest.raises(UsageError, match="target host and rpi4"):
        diff_baselines(old, new.model_copy(update={"target": "rpi4"}))
    stranger = new.model_copy(update={"device_identity": {**new.device_identity, "model": "two"}})
    with pytest.raises(UsageError, match="different devices: model one and two"):
        diff_baselines(old, stranger)


@pytest.mark.parametrize(
    "change",
    [
        {"latency": {"ms": -1.0, "low_ms": 1.0, "high_ms": 1.0, "rounds": 1}},
        {"latency": {"ms": 9.0, "low_ms": 1.0, "high_ms": 2.0, "rounds": 1}},
        {"gate": {"relative": 1e9, "absolute_ms": 0.0, "runs": 1}},
        {"outputs": ["x"] * 1000},
        {"blocks": [{"block": "b", "ms": 1, "low_ms": 1, "high_ms": 1}] * 3000},
        {"device": "x" * 5000},
        {"schema_version": 2},
        {"surprise": 1},
        {"evidence": "guessed"},
    ],
)
def test_hostile_values_are_refused_by_name(world: Path, change: dict[str, object]) -> None:
    path, _ = stored(world)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileFormatError, match=r"baseline|interval"):
        load_baseline(path)


def test_cut_oversized_and_foreign_files_are_refused(world: Path) -> None:
    path, _ = stored(world)
    text = path.read_text()
    for content in (text[:100], "", "[]", "null", "{" * 100_000, text + " " * (2 << 20)):
        path.write_text(content)
        with pytest.raises(FileFormatError) as caught:
            load_baseline(path)
        assert path.name in str(caught.value)
        assert len(str(caught.value)) < 3000


def test_names_cannot_leave_the_folder(world: Path) -> None:
    _, baseline = stored(world)
    from edgeofa.regression.baseline import baseline_path

    for name in ("../../x", "a/b", "..c", "/etc"):
        changed = baseline.model_copy(update={"runtime": name, "deployment": "d" + name})
        path = baseline_path(world / "baselines", changed)
        assert path.resolve().is_relative_to(world / "baselines" / "host")
    with pytest.raises(UsageError, match="not a name"):
        baseline_path(world, baseline.model_copy(update={"target": ".."}))
