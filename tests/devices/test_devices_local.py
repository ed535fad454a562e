"""The real runner and the real runtimes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sample_graphs import CASES, float_graph, images, int8_graph

from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.backends.registry import get_backend
from edgeofa.devices import libraries
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.libraries import installed_library
from edgeofa.devices.local import LocalDevice
from edgeofa.errors import SetupError, UsageError
from edgeofa.graph import reference
from edgeofa.graph.ir import Graph
from edgeofa.paths import cache_dir

pytestmark = pytest.mark.device
STEPS = {"network": 4, "softmax": 2, "squeeze_excite": 2, "hard_swish": 2}
BACKENDS = ("litert", "onnxruntime")


@pytest.fixture(scope="module")
def device() -> LocalDevice:
    return LocalDevice()


def make_job(graph: Graph, backend: str, folder: Path, **options) -> tuple[Job, np.ndarray]:
    """A job whose output can be compared with the reference's, which is returned too."""
    compiler = get_backend(backend)
    artifact = compiler.compile(graph, folder / f"{graph.name}-{graph.precision}{compiler.suffix}")
    x = images(graph.input_tensor.shape, 1, seed=7)
    if graph.precision == "int8":
        x = reference.quantize_array(x, reference.quantization(graph, graph.input))
    job = Job(
        artifact.path, backend, input=to_runtime(x, artifact.input), want_output=True, **options
    )
    return job, reference.run(graph, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_of_every_operator_equal_the_reference(device, backend: str, tmp_path) -> None:
    graphs = [make(case) for case in CASES for make in (float_graph, int8_graph)]
    pairs = [make_job(graph, backend, tmp_path) for graph in graphs]
    outcomes = device.run([job for job, _ in pairs])
    for graph, (_, expected), outcome in zip(graphs, pairs, outcomes, strict=True):
        assert isinstance(outcome, Measurement), outcome
        got = from_runtime(outcome.output, get_backend(backend).specs(graph)[1])
        assert got.shape == expected.shape
        error = np.abs(got.astype(np.float64) - expected).max()
        if graph.precision == "float32":
            assert error <= 1e-5 * np.abs(expected).max(), graph.name
        else:
            assert error <= STEPS.get(graph.name, 1), graph.name


def test_measurements_are_complete(device, tmp_path) -> None:
    job, _ = make_job(float_graph("network"), "litert", tmp_path, warmups=3, runs=7)
    counted: list[int] = []
    (outcome,) = device.run([job], progress=counted.append)
    assert isinstance(outcome, Measurement)
    assert outcome.evidence == "measured"
    assert len(outcome.samples_ns) == 7
    assert min(outcome.samples_ns) > 0
    assert outcome.fully_accelerated
    assert outcome.before.load is not None
    assert outcome.after.load is not None
    assert counted == [1]


def test_sampling_goes_on_until_its_time_is_over(device, tmp_path) -> None:
    job, _ = make_job(
        float_graph("mean"), "litert", tmp_path, runs=3, min_run_ms=20.0, warmup_ms=5.0
    )
    (outcome,) = device.run([job])
    assert isinstance(outcome, Measurement)
    # a microsecond's work cannot fill 20 ms in 4096 samples: several invokes make one
    assert 3 < len(outcome.samples_ns) <= 4096


@pytest.mark.parametrize("backend", BACKENDS)
def test_cold_runs_give_the_same_output(device, backend: str, tmp_path) -> None:
    job, expected = make_job(int8_graph("dense_after_mean"), backend, tmp_path, cold=True, runs=5)
    (outcome,) = device.run([job], threads=2)
    assert isinstance(outcome, Measurement)
    assert np.abs(outcome.output.astype(int) - expected).max() <= 1
    assert len(outcome.samples_ns) == 5


def test_builtin_kernels_are_another_path(tmp_path) -> None:
    job, expected = make_job(float_graph("network"), "litert", tmp_path)
    (outcome,) = LocalDevice(kernels="builtin").run([job])
    assert isinstance(outcome, Measurement)
    assert np.abs(outcome.output - expected).max() <= 1e-5


def test_mixed_back_ends_keep_their_order_and_bad_files_fail_alone(device, tmp_path) -> None:
    good = [make_job(float_graph("mean"), b, tmp_path)[0] for b in BACKENDS]
    garbage = tmp_path / "garbage.tflite"
    garbage.write_bytes(b"\x1c\0\0\0TFL3" + os.urandom(500))
    jobs = [
        good[0],
        Job(garbage, "litert"),
        good[1],
        Job(tmp_path / "absent.onnx", "onnxruntime"),
        Job(garbage, "onnxruntime"),
        good[0],
    ]
    outcomes = device.run(jobs)
    assert [isinstance(o, Measurement) for o in outcomes] == [True, False, True, False, False, True]
    assert [o.job for o in outcomes] == jobs
    assert isinstance(outcomes[3], Failure)
    assert "No such file" in outcomes[3].reason


def test_an_input_of_the_wrong_size_is_refused(device, tmp_path) -> None:
    job, _ = make_job(float_graph("mean"), "litert", tmp_path)
    wrong = Job(job.path, "litert", input=np.zeros(5, np.float32))
    (outcome,) = device.run([wrong])
    assert isinstance(outcome, Failure)
    assert "bytes that the model takes" in outcome.reason


def test_onnxruntime_does_not_report_home(device, tmp_path, monkeypatch) -> None:
    """Its telemetry is a thread and a database, which would be part of what is measured."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("EDGEOFA_CACHE", str(cache_dir()))
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "CI", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    job, _ = make_job(float_graph("mean"), "onnxruntime", tmp_path)
    (outcome,) = device.run([job])
    assert isinstance(outcome, Measurement)
    assert list(home.rglob("*")) == []


def test_identity_names_builds(device) -> None:
    identity = device.identity()
    assert identity["litert"].startswith("2.")
    assert len(identity["litert"].split("sha256:")[1]) == 64
    assert identity["model"]
    assert identity["runner"].startswith("sha256:")


def test_identity_says_whether_it_is_pinned(device) -> None:
    assert device.identity()["pinned"] in ("yes, with one thread", "no")


def test_two_never_measure_at_once(tmp_path, monkeypatch) -> None:
    """The second waits, says so, and goes on when the first has ended, even by ``kill -9``."""
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path))
    code = (
        "import time\n"
        "from edgeofa.devices.local import LocalDevice\n"
        "device = LocalDevice()\n"
        "with device.exclusive(), device.exclusive():\n"
        "    print('mine', flush=True)\n"
        "    time.sleep(60)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"mine\n"
    stop = threading.Timer(0.3, first.kill)
    stop.start()
    with pytest.warns(UserWarning, match="another edgeofa measures"), LocalDevice().exclusive():
        assert first.wait(10) == -signal.SIGKILL
    first.stdout.close()


POLICY = "sys/devices/system/cpu/cpufreq/policy0"


@pytest.fixture
def root(tmp_path) -> Path:
    """A sysfs with one clock that we may set."""
    folder = tmp_path / "root" / POLICY
    folder.mkdir(parents=True)
    for name, value in (
        ("scaling_governor", "powersave"),
        ("scaling_min_freq", "800000"),
        ("scaling_max_freq", "3000000"),
    ):
        (folder / name).write_text(f"{value}\n", encoding="utf-8")
    for number in range(os.cpu_count() or 1):
        processor = tmp_path / "root" / f"sys/devices/system/cpu/cpu{number}"
        processor.mkdir()
        (processor / "cpufreq").symlink_to("../cpufreq/policy0")
    return tmp_path / "root"


def test_clocks_are_pinned_while_measuring(root, tmp_path) -> None:
    device = LocalDevice(root=root)
    governor = root / POLICY / "scaling_governor"
    assert device.identity()["clocks"] == "pinned at the highest while measuring"
    job, _ = make_job(float_graph("mean"), "litert", tmp_path)
    with device.exclusive():
        (outcome,) = device.run([job])
        assert governor.read_text() == "performance"
    assert isinstance(outcome, Measurement)
    assert outcome.before.governor == outcome.after.governor == "performance"
    assert governor.read_text() == "powersave"
    assert (root / POLICY / "scaling_min_freq").read_text() == "800000"


def test_clocks_are_put_back_when_edgeofa_is_killed(root) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from edgeofa.devices.local import LocalDevice\n"
        "with LocalDevice(root=Path(sys.argv[1])).exclusive():\n"
        "    print('mine', flush=True)\n"
        "    time.sleep(60)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"mine\n"
    governor = root / POLICY / "scaling_governor"
    assert governor.read_text() == "performance"
    first.kill()
    first.wait()
    first.stdout.close()
    deadline = time.monotonic() + 30
    while governor.read_text() != "powersave" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert governor.read_text() == "powersave"


def test_a_runtime_that_is_not_there_names_the_command(monkeypatch, tmp_path) -> None:
    """Another package that happens to hold a library of that name is no LiteRT."""
    other = tmp_path / "tflite_runtime"
    other.mkdir()
    (other / "__init__.py").touch()
    (other / "libLiteRt.so").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        libraries, "_package_folder", lambda m: other if m == other.name else Path()
    )
    with pytest.raises(SetupError, match="pip install ai-edge-litert"):
        installed_library("litert")
    assert not set(LocalDevice().identity()) & {"litert", "tvm", "pinned"}


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(UsageError, match="firmware"):
        installed_library("firmware")
