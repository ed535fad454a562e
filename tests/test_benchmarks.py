"""The benchmarks' verdicts: each can fail, and none passes because something was left out."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from table_samples import make_table

from edgeofa.errors import MissingMaterial

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """A benchmark as a module; they are programs and lie in no package."""
    key = f"benchmark_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


def test_solver_speed_fails_without_highs_and_when_it_is_slow() -> None:
    b = load("solver_speed")
    quick, slow = b.Seconds(0.2, 1.5, 5), b.Seconds(1.2, 1.5, 5)
    good = b.Report(
        table="",
        resolutions=25,
        subnets=1.0,
        enumeration=b.Enumeration(1, 1, 4, 4),
        highs=b.Agreement(3, 3, 1.0, 0.1),
        cp_sat=b.Agreement(3, 3, 1.0, 0.1),
        build_problem=quick,
        one_budget=quick,
        four_budgets=quick,
        four_budgets_proven=True,
        frontier=quick,
        frontier_points=1,
        frontier_points_per_resolution=1,
        surface=quick,
        surface_points=1,
        surface_exact=True,
        growth=(),
    )
    assert b.failures(good) == []
    for change, says in (
        ({"highs": None}, "HiGHS is not installed"),
        ({"highs": b.Agreement(3, 2, 1.0, 0.1)}, "1 optima differ from HiGHS"),
        ({"cp_sat": b.Agreement(3, 2, 1.0, 0.1)}, "1 optima differ from CP-SAT"),
        ({"enumeration": b.Enumeration(1, 1, 4, 3)}, "plain enumeration"),
        ({"frontier": slow}, "frontier takes 1.20 s"),
        ({"one_budget": slow}, "one budget takes 1.20 s"),
        ({"four_budgets_proven": False}, "not proven"),
    ):
        (failure,) = b.failures(dataclasses.replace(good, **change))
        assert says in failure


def test_output_parity_fails_without_its_oracle() -> None:
    b = load("output_parity")
    row = b.Row("s", "n", "random", {"litert": 1e-6}, 0, 10, {}, 30.0)
    assert row.failures == []
    assert "not installed" in dataclasses.replace(row, tflite_micro_differing=None).failures[0]
    assert dataclasses.replace(row, tflite_micro_differing=3).failures


def test_the_additivity_benchmark_leaves_the_users_tables_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = load("additivity")
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path))
    folders = []

    def profiled(*_: object, out: Path | None = None, **__: object) -> object:
        folders.append(out)
        return make_table()

    def missing(*_: object) -> None:
        raise MissingMaterial("none")

    monkeypatch.setattr(b, "profile", profiled)
    monkeypatch.setattr(b, "find_table", missing)
    monkeypatch.setattr(b, "judge", lambda *_: "judged")
    assert b.run("host/cifar_lite-litert-int8", 3, 0) == "judged"
    assert folders[0] is not None
    assert tmp_path not in folders[0].parents


def test_profile_cost_knows_what_ran_and_looks_past_the_date(tmp_path: Path) -> None:
    b = load("profile_cost")
    for name, day, ms in (("a", 24, 1), ("b", 25, 1), ("c", 25, 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.toml").write_text(f'seed = 0\ndate = "2026-11-{day}"\nms = {ms}\n')
    files = [b.table_files(tmp_path / name) for name in "abc"]
    assert files[0] == files[1] != files[2]
    log = tmp_path / "ran"
    from edgeofa.devices.qemu_user import QemuUserDevice

    class Job:
        path = Path("block-1.tflite")

    old = QemuUserDevice.run
    try:
        QemuUserDevice.run = lambda _, jobs, **__: jobs  # type: ignore[method-assign,assignment]
        exec(b._LOGGED.format(log=str(log)), {})  # noqa: S102
        QemuUserDevice.run(None, [Job(), Job()], threads=1)  # type: ignore[arg-type]
    finally:
        QemuUserDevice.run = old  # type: ignore[method-assign]
    assert log.read_text().split() == ["block-1", "block-1"]


def test_regression_gate_fails_for_alarms_misses_and_wrong_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    b = load("regression_gate")
    aa = b.AARuns(50, (), 0, 0.0, (0.0, 1.0), 1.0)
    slow = b.SlowDown("block", 0.16, True, 0.16, "block", 1)
    fault = b.FaultCase("wrong scale", "layer", True, "layer", "", "")
    good = b.Gate("rpi4", "d", 1.0, 0.02, aa, (slow,), (fault,), 10.0)
    assert good.failures == []
    for change, says in (
        ({"aa": dataclasses.replace(aa, alarms=("latency: x",))}, "A/A alarm"),
        ({"slow_downs": (dataclasses.replace(slow, caught=False),)}, "was not caught"),
        ({"slow_downs": (dataclasses.replace(slow, named="other"),)}, "other was blamed"),
        ({"faults": (dataclasses.replace(fault, caught=False),)}, "was not caught"),
        ({"faults": (dataclasses.replace(fault, by_outputs=""),)}, "named"),
        ({"whole_test_s": 61.0}, "takes 61 s"),
    ):
        (failure,) = dataclasses.replace(good, **change).failures
        assert says in failure
