"""TVM libraries in the native runner, and files that are none."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tvm_libraries import INTERFACE, tvm_library

from edgeofa.backends.tvm.installed import tvm_problem
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.libraries import installed_library
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.qemu_user import QemuUserDevice
from edgeofa.devices.runner import JobResult, RunnerCommand, run_jobs
from edgeofa.emulation.operators import count_operators
from edgeofa.errors import DeviceError, FileFormatError
from edgeofa.paths import data_dir
from edgeofa.setup import requirements
from edgeofa.targets import load_target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(tvm_problem() is not None, reason=f"{tvm_problem()}"),
]
RPI4 = load_target("rpi4")
MISSING = [r.name for r in requirements(RPI4, "tvm") if r.is_missing]


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Path:
    """The runner, with sanitizers."""
    path = tmp_path_factory.mktemp("native") / "runner"
    sources = sorted((data_dir() / "targets" / "runtime" / "linux").glob("*.c"))
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    options = ["-std=c11", "-g", "-O1", *sanitizers, "-Werror", "-Wall", "-Wextra"]
    subprocess.run(["cc", *options, "-o", path, *sources, "-ldl"], check=True, timeout=120)
    return path


@pytest.fixture(scope="module")
def command(runner: Path) -> RunnerCommand:
    library = installed_library("tvm")
    # libraries are loaded into children that exit without freeing; signals stay the runner's
    options = "detect_leaks=0:handle_segv=0:handle_abort=0"
    argv = (str(runner), "--needed", str(library.needed), "--library", str(library.path))
    return RunnerCommand(argv, env={**os.environ, "ASAN_OPTIONS": options})


def test_what_goes_in_comes_out_computed(command, tmp_path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    eight = "edgeofa-tvm 1\ninput int8 1 6\noutput int8 1 6\noperators 1\n"
    bytes_in = np.arange(-3, 3, dtype=np.int8).reshape(1, 6)
    float_job = Job(tvm_library(tmp_path / "f.so"), "tvm", runs=3, input=x, want_output=True)
    int8_job = Job(
        tvm_library(tmp_path / "i.so", eight, element="int8_t"),
        "tvm",
        input=bytes_in,
        want_output=True,
        cold=True,
    )
    first, second = run_jobs(command, [float_job, int8_job], tmp_path)
    assert isinstance(first, JobResult), first
    assert isinstance(second, JobResult), second
    assert np.array_equal(first.output, x.reshape(1, 12) * 2)
    assert np.array_equal(second.output, bytes_in * 2)
    assert first.record.fully_accelerated
    assert len(first.record.samples_ns) == 3


def test_what_fails_costs_only_its_job(command, tmp_path) -> None:
    orders = {
        "fine": "",
        "abort": 'fprintf(stderr, "FATAL: the arena is cursed\\n"), abort()',
        "segfault": "*(volatile int *)8 = 1",
        "hang": "for (;;) pause()",
        "raise": 'return TVMFFIErrorSetRaisedFromCStr("ValueError", "a shape is wrong"), -1',
        "silent": "return -1",
    }
    jobs = [Job(tvm_library(tmp_path / f"{k}.so", first=c), "tvm") for k, c in orders.items()]
    outcomes = run_jobs(command, [*jobs, jobs[0]], tmp_path, job_timeout_s=1.0)
    reasons = [o.reason if isinstance(o, Failure) else "" for o in outcomes]
    assert (reasons[0], reasons[-1]) == ("", "")
    assert "the arena is cursed" in reasons[1]
    assert "Segmentation fault" in reasons[2]
    assert "hung" in reasons[3]
    assert "main: ValueError: a shape is wrong" in reasons[4]
    assert "without a reason" in reasons[5]


def _not_one(path: Path) -> Path:
    source = path.with_suffix(".c")
    source.write_text("int nothing;", encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True, timeout=60)
    return path


def _patched(path: Path, place: int, value: int) -> Path:
    content = bytearray(_not_one(path).read_bytes())
    content[place] = value
    path.write_bytes(content)
    return path


def _text(path: Path) -> Path:
    path.write_text("TFL3 is no ELF file" * 9, encoding="utf-8")
    return path


def _cut(path: Path) -> Path:
    path.write_bytes(_not_one(path).read_bytes()[:9000])
    return path


def _unresolved(path: Path) -> Path:
    return tvm_library(path, first="int nowhere(void); return nowhere()")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_text, "no ELF header"),
        (lambda p: _patched(p, 18, 40), "another processor"),
        (lambda p: _patched(p, 4, 1), "another processor"),
        (lambda p: _patched(p, 16, 2), "not a shared library"),
        (_cut, "cut short"),
        (_not_one, "lacks edgeofa_interface"),
        (_unresolved, "nowhere"),
        (lambda p: p, "cannot open"),
    ],
)
def test_a_file_that_is_no_such_library_is_named(command, tmp_path, make, reason: str) -> None:
    (outcome,) = run_jobs(command, [Job(make(tmp_path / "x.so"), "tvm")], tmp_path)
    assert isinstance(outcome, Failure)
    assert reason in outcome.reason


@pytest.mark.parametrize(
    ("interface", "reason"),
    [
        (INTERFACE.replace("tvm 1", "tvm 2"), "this runner knows"),
        ("", "this runner knows"),
        ("edgeofa-tvm 1\n" + "x" * 5000, "has no end"),
        ("edgeofa-tvm 1\noutput float32 1\n", "no input"),
        ("edgeofa-tvm 1\ninput float32 1\n", "no output"),
        (INTERFACE.replace("float32 1 2", "float64 1 2"), "no float32"),
        (INTERFACE.replace("1 2 2 3", "1 2 -2 3"), "edgeofa_interface"),
        (INTERFACE.replace("1 2 2 3", "1 0 2 3"), "edgeofa_interface"),
        (INTERFACE.replace("1 2 2 3", "1 two 2 3"), "edgeofa_interface"),
        (INTERFACE.replace("1 2 2 3", "99999999999999999999"), "edgeofa_interface"),
        (INTERFACE.replace("1 2 2 3", "4294967296 4294967296 16"), "more than"),
        (INTERFACE.replace("1 2 2 3", "1 1024 1024 1024"), "more than"),
        (INTERFACE.replace("1 2 2 3", "1 1 1 1 1 1 1 1 12"), "rank"),
        ("edgeofa-tvm 1\n" + "input int8 1\n" * 9 + "output int8 1\n", "more than 8"),
    ],
)
def test_an_interface_that_makes_no_sense_is_refused(
    command, tmp_path, interface: str, reason: str
) -> None:
    (outcome,) = run_jobs(
        command, [Job(tvm_library(tmp_path / "x.so", interface), "tvm")], tmp_path
    )
    assert isinstance(outcome, Failure)
    assert reason in outcome.reason


@pytest.mark.parametrize("elements", [11, 13])
def test_an_input_of_another_size_is_refused(command, tmp_path, elements: int) -> None:
    job = Job(tvm_library(tmp_path / "x.so"), "tvm", input=np.zeros(elements, np.float32))
    (outcome,) = run_jobs(command, [job], tmp_path)
    assert isinstance(outcome, Failure)
    assert "48 bytes" in outcome.reason


def test_the_library_below_must_be_there(command, runner, tmp_path) -> None:
    library = str(installed_library("tvm").path)
    for words, reason in (
        (("--library", library), "libtvm_ffi"),
        (("--needed", "/nonexistent.so", "--library", library), "nonexistent"),
    ):
        with pytest.raises(DeviceError, match=reason):
            run_jobs(
                RunnerCommand((str(runner), *words), env=command.env),
                [Job(tvm_library(tmp_path / "x.so"), "tvm")],
                tmp_path,
            )


def test_this_machine_runs_them_with_every_option(tmp_path) -> None:
    job = Job(tvm_library(tmp_path / "x.so"), "tvm", runs=40, watch=True)
    device = LocalDevice()
    (outcome,) = device.run([job], threads=2)
    assert isinstance(outcome, Measurement), outcome
    assert outcome.evidence == "measured"
    assert outcome.load_ms is not None
    assert outcome.peak_rss_bytes is not None
    assert outcome.endurance is not None
    assert (outcome.endurance.compared, outcome.endurance.changed) == (40, 0)
    assert device.identity()["tvm"].startswith("0.27.0.post1 sha256:")


@pytest.mark.emulated
@pytest.mark.skipif(bool(MISSING), reason=f"edgeofa doctor: missing {', '.join(MISSING)}")
def test_the_emulated_board_runs_and_counts_them(tmp_path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    path = tvm_library(tmp_path / "x.so", compiler="aarch64-linux-gnu-gcc")
    jobs = [Job(path, "tvm", input=x, want_output=True, cold=cold) for cold in (False, True)]
    foreign = Job(tvm_library(tmp_path / "own.so"), "tvm")
    warm, cold, failed = QemuUserDevice(RPI4).run([*jobs, foreign])
    assert isinstance(warm, Measurement), warm
    assert isinstance(cold, Measurement), cold
    assert np.array_equal(warm.output, x.reshape(1, 12) * 2)
    assert warm.evidence == "modelled"
    assert 0 < warm.parts_ms["core"] <= cold.parts_ms["core"] * 1.5
    assert isinstance(failed, Failure)
    assert "another processor" in failed.reason


def test_a_board_gets_both_libraries(reach, plain, tmp_path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    job = Job(tvm_library(tmp_path / "x.so"), "tvm", input=x, want_output=True)
    (outcome,) = reach(plain).run([job])
    assert isinstance(outcome, Measurement), outcome
    assert np.array_equal(outcome.output, x.reshape(1, 12) * 2)
    for file in installed_library("tvm").files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert (plain.objects / digest).is_file()


def test_operators_are_counted_in_the_file(tmp_path) -> None:
    text = INTERFACE.replace("operators 1", "operators 23")
    assert count_operators(tvm_library(tmp_path / "x.so", text), "tvm") == 23
    with pytest.raises(FileFormatError, match="not a library of edgeofa's TVM back end"):
        count_operators(_not_one(tmp_path / "y.so"), "tvm")
