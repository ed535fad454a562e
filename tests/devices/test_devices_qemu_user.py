"""The emulated Raspberry Pi 4: the shipped aarch64 runtimes under qemu-aarch64. About 60 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sample_graphs import float_graph, int8_graph

from edgeofa.backends.registry import get_backend
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.qemu_user import Profile, QemuUserDevice
from edgeofa.devices.runner import JobResult
from edgeofa.emulation.process import JobEnd, ProcessGroup, emulate
from edgeofa.errors import DeviceError, SetupError, UsageError
from edgeofa.graph.ir import Graph
from edgeofa.paths import cache_dir
from edgeofa.setup import requirements
from edgeofa.targets import load_target
from edgeofa.workfolder import work_folder

TARGET = load_target("rpi4")
MISSING = [r.name for r in requirements(TARGET) if r.is_missing]
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.device,
    pytest.mark.skipif(bool(MISSING), reason=f"edgeofa doctor: missing {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def device() -> QemuUserDevice:
    return QemuUserDevice(TARGET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def compiled(graph: Graph, folder: Path, backend: str = "litert") -> Path:
    compiler = get_backend(backend)
    path = folder / f"{graph.name}-{graph.precision}{compiler.suffix}"
    return compiler.compile(graph, path).path


@pytest.mark.parametrize("backend", ["litert", "onnxruntime"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_it_computes_what_this_machine_computes(
    device: QemuUserDevice, folder: Path, backend: str, precision: str
) -> None:
    graph = float_graph("network") if precision == "float32" else int8_graph("network")
    job = Job(compiled(graph, folder, backend), backend, want_output=True)
    (emulated,), (local,) = device.run([job]), LocalDevice().run([job])
    assert isinstance(emulated, Measurement), emulated
    assert isinstance(local, Measurement), local
    assert emulated.output is not None
    assert local.output is not None
    assert emulated.output.shape == local.output.shape
    assert emulated.output.dtype == local.output.dtype
    # float sums may be ordered otherwise; int8 kernels may round ties otherwise
    largest = float(np.abs(local.output.astype(np.float64)).max())
    allowed = 1e-4 * largest if precision == "float32" else 4
    difference = emulated.output.astype(np.float64) - local.output.astype(np.float64)
    assert np.abs(difference).max() <= allowed


def test_a_measurement_is_modelled_and_adds_up(device: QemuUserDevice, folder: Path) -> None:
    path = compiled(float_graph("network"), folder)
    warm, cold = device.run([Job(path, "litert"), Job(path, "litert", cold=True)])
    for outcome in (warm, cold):
        assert isinstance(outcome, Measurement)
        assert outcome.evidence == "modelled"
        assert 0 < outcome.model_error < 1
        (sample,) = outcome.samples_ns
        assert sum(outcome.parts_ms.values()) == pytest.approx(sample / 1e6)
        assert outcome.fully_accelerated is True
    assert isinstance(warm, Measurement)
    assert isinstance(cold, Measurement)
    # weights that have to come from memory cost more than weights in L2
    assert cold.parts_ms["dram"] > warm.parts_ms["dram"]
    (four,) = device.run([Job(path, "litert")], threads=4)
    assert isinstance(four, Measurement)
    assert four.parts_ms["core"] == pytest.approx(warm.parts_ms["core"] / 4)
    assert four.parts_ms["operators"] == warm.parts_ms["operators"]


@pytest.mark.parametrize("kernels", ["delegate", "builtin"])
def test_counts_do_not_depend_on_the_other_jobs(folder: Path, kernels: str) -> None:
    device = QemuUserDevice(TARGET, kernels=kernels)
    one = Job(compiled(float_graph("network"), folder), "litert", cold=True)
    two = Job(compiled(int8_graph("network"), folder), "litert")
    three = Job(compiled(float_graph("squeeze_excite"), folder), "litert")
    first = device.profile([one, two, three])
    second = device.profile([three, one, one, two])
    assert all(isinstance(p, Profile) for p in first + second)
    regions = [p.region for p in first if isinstance(p, Profile)]
    again = [p.region for p in second if isinstance(p, Profile)]
    assert [regions[2], regions[0], regions[0], regions[1]] == again


def test_a_bad_model_costs_only_itself(device: QemuUserDevice, folder: Path) -> None:
    good = compiled(float_graph("network"), folder)
    bad = folder / "bad.tflite"
    bad.write_bytes(good.read_bytes()[:200])
    none = folder / "none.tflite"
    seen: list[int] = []
    jobs = [Job(bad, "litert"), Job(good, "litert"), Job(none, "litert"), Job(good, "litert")]
    outcomes = device.run(jobs, progress=seen.append)
    assert [type(o) for o in outcomes] == [Failure, Measurement, Failure, Measurement]
    assert isinstance(outcomes[2], Failure)
    assert "none.tflite" in outcomes[2].reason
    assert sum(seen) == len(jobs)


def test_a_job_that_takes_too_long_fails(folder: Path) -> None:
    hasty = QemuUserDevice(TARGET, job_timeout_s=0.01)
    (outcome,) = hasty.run([Job(compiled(float_graph("network"), folder), "litert")])
    assert isinstance(outcome, Failure)
    assert "hung: no result within" in outcome.reason


def _emulators_of(parent: int) -> list[int]:
    """Process ids of this process' qemu-aarch64 children."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        fields = status[status.rindex(")") + 2 :].split()
        if int(fields[1]) == parent and command.split(b"\0")[0].endswith(b"qemu-aarch64"):
            found.append(int(path.name))
    return found


@pytest.mark.parametrize("kills", [1, 100])
def test_a_killed_emulator_is_started_once_more(
    device: QemuUserDevice, folder: Path, kills: int
) -> None:
    job = Job(compiled(float_graph("network"), folder), "litert")
    (expected,) = device.run([job])
    results: list[object] = []
    runner = threading.Thread(target=lambda: results.extend(device.run([job])))
    killed: set[int] = set()
    runner.start()
    while runner.is_alive():
        for process in _emulators_of(os.getpid()):
            if process not in killed and len(killed) < kills:
                killed.add(process)
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    runner.join()
    (outcome,) = results
    if kills == 1:
        assert len(killed) == 1
        assert outcome == expected
    else:
        assert isinstance(outcome, Failure)
        assert len(killed) == 2


def test_two_processes_on_one_new_cache(folder: Path, tmp_path: Path) -> None:
    model = compiled(float_graph("network"), folder)
    cache = tmp_path / "cache"
    (cache / "runtimes").mkdir(parents=True)
    (cache / "runtimes" / "aarch64").symlink_to(cache_dir() / "runtimes" / "aarch64")
    code = (
        "import sys, pathlib\n"
        "from edgeofa.devices.base import Job\n"
        "from edgeofa.devices.qemu_user import QemuUserDevice\n"
        "from edgeofa.targets import load_target\n"
        "device = QemuUserDevice(load_target('rpi4'))\n"
        "print(device.run([Job(pathlib.Path(sys.argv[1]), 'litert')])[0].samples_ns)\n"
    )
    environment = {**os.environ, "EDGEOFA_CACHE": str(cache)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(model)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    assert answers[0][0] == answers[1][0] != ""


def test_what_it_says_about_itself(device: QemuUserDevice) -> None:
    identity = device.identity()
    assert "modelled" in identity["core"]
    assert identity["emulator"].startswith("qemu-aarch64 ")
    assert identity["litert"].startswith("2.3.0 sha256:")


def test_wrong_uses_are_refused(device: QemuUserDevice, folder: Path) -> None:
    job = Job(compiled(float_graph("network"), folder), "litert")
    with pytest.raises(UsageError, match="5 threads"):
        device.run([job], threads=5)
    with pytest.raises(DeviceError, match="no aarch64 runtime"):
        device.run([Job(job.path, "firmware")])
    with pytest.raises(UsageError, match="cannot be emulated"):
        QemuUserDevice(load_target("host"))


def test_an_unprepared_cache_names_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(compiled(float_graph("network"), folder), "litert")
    built = cache_dir() / "native"
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path))
    (tmp_path / "native").symlink_to(built)
    with pytest.raises(SetupError, match="edgeofa setup --target rpi4"):
        QemuUserDevice(TARGET).run([job])


def _emulate(program: Path, folder: Path, job: Job | None = None) -> dict[int, JobEnd]:
    """``program`` where the emulator and its runner belong."""
    job = job or Job(folder / "m", "litert")
    with ProcessGroup() as group:
        command = [str(program)]
        work = folder / "work"
        return emulate(command, program, program, "delegate", [job], work, group, job_timeout_s=1.0)


def test_a_runner_that_cannot_start_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="did not start"):
        _emulate(Path("/bin/false").resolve(), tmp_path)


RESULT = {
    "event": "result",
    "job": 0,
    "load_ns": 1,
    "regions": 1,
    "invokes_per_sample": 1,
    "fully_accelerated": True,
    "input": {"bytes": 4, "type": "float32", "shape": [1]},
    "output": {"bytes": 4, "type": "float32", "shape": [1]},
    "samples_ns": [1.5],
}
HELLO = {"event": "runner", "protocol": 2, "runtime": "litert", "version": "", "pinned": False}
START = {"event": "start", "job": 0, "pid": 7}


def _scripted(folder: Path, *events: object, output: bytes = b"") -> Path:
    """A program that says these events and writes an output."""
    path = folder / "runner.py"
    lines = [f"print({json.dumps(e)!r})" for e in events]
    path.write_text(
        f"#!{sys.executable}\n"
        + f"open('output-000000', 'wb').write({output!r})\n"
        + "\n".join(lines)
    )
    path.chmod(0o700)
    return path


def test_what_an_emulated_runner_says_is_checked(tmp_path: Path) -> None:
    job = Job(tmp_path / "m", "litert", want_output=True)
    good = _scripted(tmp_path, HELLO, START, RESULT, output=bytes(4))
    (end,) = _emulate(good, tmp_path / "good", job).values()
    assert isinstance(end.outcome, JobResult)
    assert end.outcome.output is not None
    assert end.trace.name == "trace.7"
    # an output of another size than the runtime reported
    large = _scripted(tmp_path, HELLO, START, RESULT, output=bytes(4000))
    (end,) = _emulate(large, tmp_path / "large", job).values()
    assert isinstance(end.outcome, Failure)
    assert "size" in end.outcome.reason
    for name, events in {
        "sample": (HELLO, START, {**RESULT, "samples_ns": [-1.0]}),
        "tensor": (HELLO, START, {**RESULT, "output": {"bytes": 4}}),
        "order": (HELLO, RESULT),
        "job": (HELLO, {**START, "job": 3}, {**RESULT, "job": 3}),
    }.items():
        with pytest.raises(DeviceError, match="does not speak protocol"):
            _emulate(_scripted(tmp_path, *events), tmp_path / name)


@pytest.mark.parametrize("wrapper", ["setpriv", "python"])
def test_an_emulator_ends_with_its_parent(
    tmp_path: Path, wrapper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with ``kill -9``, edgeofa leaves no emulator; the next start removes its folder."""
    hidden = "" if wrapper == "setpriv" else "process.shutil.which = lambda _: None\n"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgeofa.emulation import process\n"
        "from edgeofa.workfolder import work_folder\n"
        f"{hidden}"
        "with work_folder('emulated') as folder, process.ProcessGroup() as group:\n"
        "    (folder / 'jobs').touch()\n"
        "    sleep = ['/bin/sh', '-c', 'echo $$ > pid; exec /bin/sleep 60']\n"
        "    group.run(sleep, folder, folder / 'jobs', 100)\n"
    )
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(600):
        written = [p for p in tmp_path.glob("work/*/pid") if p.read_text().endswith("\n")]
        if written:
            break
        time.sleep(0.1)
    emulator = int(written[0].read_text())
    with work_folder("other"):
        assert written[0].exists()  # what is in use stays
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not _is_running(emulator):
            break
        time.sleep(0.1)
    assert not _is_running(emulator)
    assert written[0].exists()
    with work_folder("other") as mine:
        assert not written[0].exists()
        assert mine.is_dir()
    assert [p.name for p in (tmp_path / "work").iterdir()] == [".lock"]


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state != "Z"
