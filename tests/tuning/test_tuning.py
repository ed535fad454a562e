"""Tuning: the search, the checks of every candidate, records that later compilations use."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edgeofa.devices.base import Device, Failure, Measurement
from edgeofa.devices.registry import device_for
from edgeofa.errors import DeviceError, FileFormatError, UsageError
from edgeofa.jsonio import dumps
from edgeofa.paths import data_dir
from edgeofa.report.tuning import tuning_text
from edgeofa.targets import load_target
from edgeofa.tuning import records
from edgeofa.tuning.records import (
    Record,
    read_records,
    records_digest,
    records_path,
    write_records,
)

tvm = pytest.importorskip("tvm")

from edgeofa.backends.tvm.backend import TvmBackend, tuned_config  # noqa: E402
from edgeofa.backends.tvm.kernels import Kernel  # noqa: E402
from edgeofa.backends.tvm.machine import MACHINES, Machine, host_machine  # noqa: E402
from edgeofa.backends.tvm.templates import Config, template_for  # noqa: E402
from edgeofa.tuning import tune as tuning  # noqa: E402
from edgeofa.tuning.build import Builders, Task  # noqa: E402
from edgeofa.tuning.journal import TuningJournal  # noqa: E402
from edgeofa.tuning.networks import reference_subnets  # noqa: E402
from edgeofa.tuning.request import TuneRequest, tune_pieces  # noqa: E402
from edgeofa.tuning.run import _PATIENCE, Limits, _stalled  # noqa: E402
from edgeofa.tuning.search import Frozen, freeze, propose  # noqa: E402
from edgeofa.tuning.subject import make_subject  # noqa: E402
from edgeofa.tuning.tune import tune  # noqa: E402
from edgeofa.tuning.workload import Work  # noqa: E402

A72 = MACHINES["cortex-a72"]
POINTWISE = Kernel("conv2d", "float32", (6, 6, 16), (6, 6, 24), activation="relu6")
DEPTHWISE = Kernel(
    "depthwise_conv2d",
    "float32",
    (7, 7, 16),
    (7, 7, 16),
    window=(3, 3),
    pads=(1, 1, 1, 1),
)
DENSE = Kernel("fully_connected", "int8", (1, 1, 64), (1, 1, 10))
KNOBS = {"a": (1, 2, 3, 4, 5), "b": ("x", "y", "z")}


def _cost(config: Config) -> float:
    return 10 + abs(int(config["a"]) - 4) + (config["b"] != "y")


@given(seed=st.integers(0, 1000), batch=st.integers(1, 8))
def test_search_asks_for_everything_once_and_goes_on_where_it_stopped(
    seed: int, batch: int
) -> None:
    default = {"a": 1, "b": "x"}
    known: dict[Frozen, float | None] = {}
    while proposed := propose(KNOBS, default, known, batch, str(seed)):
        assert proposed == propose(KNOBS, default, dict(known), batch, str(seed))
        assert known or proposed[0] == default
        assert len(proposed) <= batch
        for config in proposed:
            assert freeze(config) not in known
            known[freeze(config)] = _cost(config)
    assert len(known) == 15


def test_search_looks_near_the_best_first() -> None:
    known = {freeze({"a": a, "b": "y"}): abs(a - 4.0) for a in (1, 4)}
    found = propose(KNOBS, {"a": 1, "b": "y"}, known, 4, "0")
    near = [c for c in found if abs(int(c["a"]) - 4) + (c["b"] != "y") * 2 <= 2]
    assert len(near) >= 3


def test_a_search_without_gains_ends() -> None:
    assert not _stalled([10.0] * _PATIENCE)
    assert _stalled([10.0] + [10.0] * _PATIENCE)
    assert not _stalled([10.0] + [10.0] * (_PATIENCE - 1) + [9.0])
    assert _stalled([10.0] + [None] * _PATIENCE)


@pytest.mark.parametrize("kernel", [POINTWISE, DEPTHWISE, DENSE])
def test_a_subject_knows_its_right_output(kernel: Kernel, tmp_path: Path) -> None:
    import tvm_ffi

    machine = host_machine()
    subject = make_subject(kernel)
    config = template_for(kernel, machine).default(kernel, machine)
    path = tmp_path / "one.so"
    path.write_bytes(subject.library(machine, config))
    main = tvm_ffi.load_module(str(path))["main"]
    output = tvm.runtime.tensor(np.zeros((1, *kernel.output), kernel.dtype))
    main(tvm.runtime.tensor(subject.input), output)
    assert subject.is_right(output.numpy())
    wrong = output.numpy().copy()
    wrong.ravel()[3] += 1
    assert not subject.is_right(wrong)
    assert not subject.is_right(wrong.ravel()[1:])


#: answers tasks as worker.py does, but for a first number of pixels that is a mischief
MISCHIEF = """
import json, os, signal, sys, time
for line in sys.stdin:
    pixels = json.loads(line)["config"]["pixels"]
    if pixels == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if pixels == 2:
        time.sleep(60)
    if pixels == 3:
        print("what?", flush=True)
        continue
    print(json.dumps({"reason": "no" if pixels == 4 else None}), flush=True)
"""


def test_a_compiler_that_crashes_or_hangs_costs_one_candidate(tmp_path: Path) -> None:
    tasks = [Task(POINTWISE, A72.key, {"pixels": n}, tmp_path / "x") for n in (5, 1, 5, 2, 3, 4, 5)]
    command = (sys.executable, "-c", MISCHIEF)
    with Builders(1, limit_s=2.0, command=command) as builders:
        found = builders.build(tasks)
    assert [found[n] for n in (0, 2, 6)] == [None] * 3
    assert "crashed" in str(found[1])
    assert "took over 2 s" in str(found[3])
    assert "does not answer" in str(found[4])
    assert found[5] == "no"


def test_a_compiler_that_dies_after_its_answer_costs_none(tmp_path: Path) -> None:
    once = "input(); print('{\"reason\": null}', flush=True)"
    task = Task(POINTWISE, A72.key, {}, tmp_path / "x")
    with Builders(1, command=(sys.executable, "-c", once)) as builders:
        for _ in range(2):
            assert builders.build([task]) == [None]
            time.sleep(0.3)


def test_the_real_worker_compiles_and_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what happens to lie where a person works is not imported
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    machine = host_machine()
    default = dict(template_for(POINTWISE, machine).default(POINTWISE, machine))
    tasks = [
        Task(POINTWISE, machine.key, {**default, "pixels": "many"}, tmp_path / "bad"),
        Task(POINTWISE, machine.key, default, tmp_path / "good"),
    ]
    with Builders(1) as builders:
        found = builders.build(tasks)
    assert found[0]
    assert found[1] is None
    assert (tmp_path / "good").read_bytes()[:4] == b"\x7fELF"


#: pixels that no default has
_BEST = 13


class Bench(Device):
    """A device on which a configuration costs what its pixels say; with ``depth=4`` it would cost
    least, and computes something wrong."""

    name, evidence = "bench", "modelled"

    def __init__(self, machine: Machine):
        self.machine = machine
        self.ran = 0

    def identity(self) -> dict[str, str]:
        return {"model": "bench"}

    def run(self, jobs, **_):  # type: ignore[no-untyped-def]
        outcomes = []
        for job in jobs:
            self.ran += 1
            kernel, config = json.loads(job.path.read_text())
            subject = make_subject(TypeAdapter(Kernel).validate_python(kernel))
            output = subject.expected.astype(job.input.dtype).copy()
            if config["depth"] == 4:
                output.ravel()[0] += 1
            ns = 1000.0 + 10 * abs(config["pixels"] - _BEST) - 100 * (config["depth"] == 4)
            outcomes.append(Measurement(job, (ns,), "modelled", output=output))
        return outcomes


class Writers:
    """Instead of a compiler: libraries that say what they would be."""

    def __enter__(self):  # type: ignore[no-untyped-def]
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def build(self, tasks):  # type: ignore[no-untyped-def]
        for task in tasks:
            record = dataclasses.asdict(task.kernel), dict(task.config)
            task.path.write_text(json.dumps(record))
        return [None] * len(tasks)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEOFA_TUNING", str(tmp_path / "tuning"))
    monkeypatch.setattr(tuning, "Builders", Writers)
    return tmp_path


def test_tuning_keeps_what_is_right_and_goes_on_after_its_budget(world: Path) -> None:
    works = [Work(POINTWISE, 3), Work(replace(POINTWISE, activation="none"), 1)]
    folder = world / "tuning"
    before = TvmBackend(A72).version()
    whole = tune(works, A72, Bench(A72), folder / "whole", world / "a", limits=Limits(None, 24))
    assert whole.finished
    for found in whole.kernels:
        assert found.ratio < 1
        assert found.config["depth"] != 4
        assert int(found.config["pixels"]) > 8
        assert "its output is wrong" in " ".join(found.failures)
    # the same in pieces, each ended by its budget after one batch
    device, runs = Bench(A72), 0
    while not tune(works, A72, device, folder, world / "b", limits=Limits(0.0, 24)).finished:
        runs += 1
        assert runs < 20
    again = tune(works, A72, device, folder, world / "b", limits=Limits(None, 24))
    assert runs > 1
    assert again.new_trials == 0
    assert again.kernels == whole.kernels
    assert device.ran == whole.trials
    files = [records_path(f, A72.key).read_text() for f in (folder, folder / "whole")]
    assert files[0] == files[1]
    kept = whole.kernels[0]
    assert tuned_config(replace(POINTWISE, residual="relu"), A72) == kept.config
    assert TvmBackend(A72).version() != before


def test_what_is_on_record_is_tried_again_and_goes_when_it_is_no_gain(world: Path) -> None:
    folder = world / "tuning"
    default = dict(template_for(POINTWISE, A72).default(POINTWISE, A72))
    good, bad = {**default, "pixels": _BEST}, {**default, "pixels": 1}
    for number, (config, is_good) in enumerate(((good, True), (bad, False))):
        start = Bench(A72)
        write_records(records_path(folder, A72.key), A72.key, [_record(config=config)])
        limits = Limits(None, 2)
        works = [Work(POINTWISE, 1)]
        found = tune(works, A72, start, folder, world / str(number), limits=limits)
        assert found.kernels[0].trials == 2
        kept = read_records(records_path(folder, A72.key), A72.key)
        if not is_good:
            assert kept == {}
        else:
            assert kept[POINTWISE.key].config == dict(sorted(good.items()))
            assert kept[POINTWISE.key].ratio < 1


def test_two_tunings_do_not_share_a_journal(world: Path) -> None:
    subject = {"machine": "m"}
    with (
        TuningJournal(world, "m", subject),
        pytest.raises(UsageError, match="another edgeofa tune"),
        TuningJournal(world, "m", subject),
    ):
        pass


def test_a_corrupt_journal_is_named(world: Path) -> None:
    journal = TuningJournal(world, "m", {})
    journal.path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 100)
    with pytest.raises(FileFormatError, match="corrupt"), journal:
        journal.trials("k")


def test_a_clock_keeps_only_what_is_surely_faster(world: Path) -> None:
    class Clock(Bench):
        evidence = "measured"

        def run(self, jobs, **_):  # type: ignore[no-untyped-def]
            outcomes = []
            for job, o in zip(jobs, super().run(_given(jobs, self.machine)), strict=True):
                config = json.loads(job.path.read_text())[1]
                factor = 0.9 if config["inner"] == "channels" else 1.0
                noise = 1 + 0.01 * math.sin(self.ran + len(outcomes))
                ns = 1000.0 * factor * noise
                outcomes.append(replace(o, job=job, samples_ns=(ns,), evidence="measured"))
            return outcomes

    found = tune([Work(POINTWISE, 1)], A72, Clock(A72), world / "t", world, limits=Limits(None, 16))
    (kernel,) = found.kernels
    default = template_for(POINTWISE, A72).default(POINTWISE, A72)["inner"]
    if default == "channels":
        assert kernel.ratio == 1.0
    else:
        assert kernel.config["inner"] == "channels"
        assert 0.87 < kernel.ratio < 0.93


def _given(jobs, machine):  # type: ignore[no-untyped-def]
    """Jobs that were measured without an input get the one that Bench looks at."""
    return [j if j.input is not None else replace(j, input=np.zeros(1, np.float32)) for j in jobs]


@pytest.mark.emulated
def test_a_kernel_is_tuned_on_the_emulated_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOFA_TUNING", str(tmp_path))
    works = [Work(replace(POINTWISE, dtype="int8"), 1), Work(DEPTHWISE, 1)]
    device = device_for(load_target("rpi4"))
    found = tune(works, A72, device, tmp_path, tmp_path, limits=Limits(None, 4))
    assert found.finished
    assert found.evidence == "modelled"
    assert {t.kernel for t in found.kernels} == {w.kernel.key for w in works}
    assert all(t.failures == () and t.trials == 4 for t in found.kernels)


def test_a_device_out_of_order_is_said_and_forgotten_when_it_works_again(world: Path) -> None:
    class Nothing(Bench):
        def run(self, jobs, **_):  # type: ignore[no-untyped-def]
            return [Failure(job, "out of order") for job in jobs]

    works = [Work(POINTWISE, 1)]
    for seconds in (None, 0.0):
        limits = Limits(seconds, 8)
        with pytest.raises(DeviceError, match="no default runs: out of order"):
            tune(works, A72, Nothing(A72), world, world, limits=limits)
    found = tune(works, A72, Bench(A72), world, world, limits=Limits(None, 8))
    assert found.kernels[0].trials == 8
    assert found.unusable == ()


def test_a_kernel_whose_default_is_wrong_is_named_and_costs_itself_only(world: Path) -> None:
    class Choosy(Bench):
        def run(self, jobs, **_):  # type: ignore[no-untyped-def]
            return [
                Failure(job, "too linear")
                if '"activation": "none"' in job.path.read_text()
                else good
                for job, good in zip(jobs, super().run(jobs), strict=True)
            ]

    linear = replace(POINTWISE, activation="none")
    works = [Work(linear, 1), Work(POINTWISE, 1)]
    found = tune(works, A72, Choosy(A72), world, world, limits=Limits(None, 8))
    assert [t.kernel for t in found.kernels] == [POINTWISE.key]
    assert found.unusable == (f"{linear.key}: too linear",)
    assert "1 kernels are left out" in tuning_text(found)
    assert json.loads(dumps(found))["unusable"] == [f"{linear.key}: too linear"]


def test_a_default_that_beats_a_shipped_record_is_recorded_over_it(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, shipped = world / "own", world / "shipped"
    monkeypatch.setattr(records, "tuning_dirs", lambda: (own, shipped))
    default = dict(template_for(POINTWISE, A72).default(POINTWISE, A72))
    slower = {**default, "pixels": 1}
    write_records(records_path(shipped, A72.key), A72.key, [_record(config=slower)])
    assert tuned_config(POINTWISE, A72)["pixels"] == 1
    found = tune([Work(POINTWISE, 1)], A72, Bench(A72), own, world, limits=Limits(None, 2))
    assert found.kernels[0].ratio == 1
    assert tuned_config(POINTWISE, A72) == default


def test_a_precision_that_the_target_has_not_is_refused(tmp_path: Path) -> None:
    text = (data_dir() / "targets" / "rpi4.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('precisions = ["int8", "float32"]', 'precisions = ["int8"]'))
    assert load_target(str(path)).precisions == ("int8",)
    with pytest.raises(UsageError, match="float32 is no precision of"):
        tune_pieces(TuneRequest(str(path), precision="float32"))


def _record(**changes: object) -> Record:
    fields = {
        "kernel": POINTWISE.key,
        "config": {"pixels": 3},
        "ratio": 0.9,
        "default_ns": 100.0,
        "evidence": "modelled",
        "trials": 4,
        "schedules": "abc",
    }
    return Record.model_validate(fields | changes)


def test_records_of_other_knobs_or_machines_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOFA_TUNING", str(tmp_path))
    default = template_for(POINTWISE, A72).default(POINTWISE, A72)
    path = records_path(tmp_path, A72.key)
    write_records(path, A72.key, [_record()])
    assert tuned_config(POINTWISE, A72) == default
    write_records(path, A72.key, [_record(config={**default, "pixels": 3})])
    assert tuned_config(POINTWISE, A72)["pixels"] == 3
    path.rename(records_path(tmp_path, "cortex-a53"))
    with pytest.warns(UserWarning, match="not used"):
        assert records_digest("cortex-a53") == "0"


def test_a_corrupt_file_of_records_is_named_with_its_line(tmp_path: Path) -> None:
    path = records_path(tmp_path, A72.key)
    write_records(path, A72.key, [_record()])
    good = path.read_text()
    for bad, line in (
        (good + "{}\n", "line 3"),
        (good + good.splitlines()[1] + "\n", "line 3"),
        (good.replace('"ratio":0.9', '"ratio":-1'), "line 2"),
        ("not json\n", "not records"),
        ("", "not records"),
    ):
        path.write_text(bad)
        with pytest.raises(FileFormatError, match=line):
            read_records(path, A72.key)


def test_reference_networks_are_the_same_every_time() -> None:
    from edgeofa.spaces import load_space

    space = load_space("cifar_micro")
    found = reference_subnets(space)
    assert found == reference_subnets(space)
    sizes = [subnet.resolution for subnet in found.values()]
    assert sizes == sorted(sizes)
    assert sizes[0] == min(space.resolutions)
