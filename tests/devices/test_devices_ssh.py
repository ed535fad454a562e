"""Boards over ssh: a private sshd on this machine, aarch64 user land under qemu. About 90 s.

What a link does to a measurement is tried on a board of this machine's own kind, which is faster.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cutting_proxy import CuttingProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_board import LoopbackBoard, digest, need_loopback
from sample_graphs import float_graph, images, int8_graph
from tiny_space import tiny_space

from edgeofa.backends.registry import get_backend
from edgeofa.devices import configure, ssh, ssh_link
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.draft import new_target, probe
from edgeofa.devices.libraries import installed_library
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.registry import device_for
from edgeofa.devices.store import find_device
from edgeofa.errors import DeviceError, LinkLost, UsageError
from edgeofa.targets import load_target

need_loopback()
pytestmark = pytest.mark.device


# ------------------------------------------------------------------------------ the aarch64 path


@pytest.mark.emulated
def test_an_aarch64_board_is_found_filled_and_run(arm, reach, tmp_path, model) -> None:
    device = reach(arm)
    facts = device.facts
    assert (facts.machine, facts.microarchitecture) == ("aarch64", "cortex-a72")
    assert facts.libc is not None
    assert facts.libc.startswith("glibc 2.")
    assert facts.model == "Loopback Board Model 4"
    assert facts.state.temperature_c == pytest.approx(48.312)
    graph = int8_graph("network")
    quantised = get_backend("litert").compile(graph, tmp_path / "q.tflite").path
    shape = float_graph("network").input_tensor.shape
    jobs = [
        Job(quantised, "litert", want_output=True, runs=2),
        Job(model, "litert", want_output=True, input=images(shape, 1, seed=3)),
        Job(tmp_path / "absent.tflite", "litert"),
    ]
    counted: list[int] = []
    outcomes = device.run(jobs, progress=counted.append)
    assert sum(counted) == 3
    assert isinstance(outcomes[2], Failure)
    assert "No such file" in outcomes[2].reason
    expected = LocalDevice().run(jobs[:2])
    for ours, theirs in zip(outcomes[:2], expected, strict=True):
        assert isinstance(ours, Measurement), ours
        assert isinstance(theirs, Measurement)
        difference = np.abs(ours.output.astype(float) - theirs.output.astype(float)).max()
        assert difference <= (4 if ours.output.dtype == np.int8 else 1e-4)
        # an emulator's clock is never called measured
        assert ours.evidence == device.evidence == "estimated"
        assert ours.model_error >= 0.9
    assert "emulator" in device.identity()["emulated"]
    # only programs and libraries stay, each under its own digest
    assert {digest(p) for p in arm.objects.iterdir()} == arm.held
    assert digest(quantised) not in arm.held
    assert list((arm.objects.parent / "work").iterdir()) == []


@pytest.mark.emulated
def test_clocks_of_a_board_are_pinned_and_put_back(arm, reach, model) -> None:
    device = reach(arm)
    governor = arm.root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    with device.exclusive():
        assert governor.read_text() == "performance"
        (outcome,) = device.run([Job(model, "litert")])
        assert isinstance(outcome, Measurement)
        assert outcome.before.governor == outcome.after.governor == "performance"
    assert governor.read_text() == "ondemand"
    with device.exclusive():
        arm.drop()  # the link is gone, without a word
        assert until(lambda: governor.read_text() == "ondemand")


@pytest.mark.emulated
def test_a_draft_target_is_profiled_and_deployed_to(arm, monkeypatch, tmp_path) -> None:
    from edgeofa.deploy import Request, deploy
    from edgeofa.deployment import Budget
    from edgeofa.profiling.profile import profile
    from edgeofa.report.progress import Steps
    from edgeofa.tables.verify import check_table

    monkeypatch.setenv("EDGEOFA_SSH", arm.ssh)
    monkeypatch.setenv("EDGEOFA_TABLES", str(tmp_path / "tables"))
    monkeypatch.setenv("EDGEOFA_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    configure.configure("bench", arm.address)
    assert probe("bench").targets == ()
    draft = new_target("bench")
    assert draft.file.read_text() != ""
    stored = find_device("bench")
    assert stored is not None
    assert stored.target == "bench"
    with pytest.raises(UsageError, match="there already"):
        new_target("bench")
    target, space = load_target("bench.toml"), tiny_space(tmp_path)
    device = device_for(target)
    assert device.name == arm.address
    backend = get_backend("litert")
    table = profile(target, space, backend, "int8", resolutions=[8], subnets=0, device=device)
    assert table.header.evidence == "estimated"
    assert table.header.device["core"] == "cortex-a72"
    assert {r.status for r in table.rows.values()} == {"ok"}
    assert all(r.energy_mj is None for r in table.rows.values())
    # such a table can be planned with, and can never pass for a published one
    findings = check_table(table, space, target)
    assert any(f.severity == "error" and "emulator" in f.what for f in findings)
    request = Request(
        "bench.toml",
        Budget(latency_ms=60_000.0),
        space=str(tmp_path / "tiny.toml"),
        precision="int8",
        backend="litert",
        out=tmp_path / "out",
        random_weights=True,
    )
    with Steps() as steps:
        deployment, folder = deploy(request, steps, device)
    assert deployment.verdict == "met"
    assert deployment.evidence == "estimated"
    assert deployment.device == arm.address
    assert (folder / "deployment.json").is_file()


@pytest.mark.emulated
def test_a_board_of_another_target_is_refused(arm, reach) -> None:
    with pytest.raises(DeviceError, match=r"belongs to another target.*processors"):
        reach(arm, target="rpi4")
    cpuinfo = arm.root / "proc/cpuinfo"
    before = cpuinfo.read_text()
    cpuinfo.write_text(before.replace("0xd08", "0xd03"))
    try:
        with pytest.raises(DeviceError, match="has cortex-a53 cores, not cortex-a72"):
            reach(arm, target="rpi4")
    finally:
        cpuinfo.write_text(before)


@pytest.mark.emulated
def test_a_board_with_an_old_c_library_is_refused(arm, reach) -> None:
    """Where the probe looks first, and nothing is loaded from."""
    old = "GNU C Library (Debian GLIBC 2.31-13) stable release version 2.31.\n"
    file = arm.write("/lib64/libc.so.6", old + " " * 100)
    try:
        assert reach(arm).facts.libc == "glibc 2.31"
        words = r"has glibc 2\.31; the runner needs 2\.[0-9]+ or newer"
        with pytest.raises(DeviceError, match=words):
            reach(arm, target="host")
    finally:
        file.unlink()


# --------------------------------------------------------------------------- a board of our kind


def until(condition, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_real_clock_is_measured(plain, reach, model, tmp_path) -> None:
    device = reach(plain)
    assert device.evidence == "measured"
    assert device.identity()["litert"].startswith("2.")
    onnx = get_backend("onnxruntime").compile(float_graph("mean"), tmp_path / "m.onnx").path
    jobs = [Job(model, "litert", runs=5), Job(onnx, "onnxruntime", runs=5)]
    for outcome in device.run(jobs, threads=2):
        assert isinstance(outcome, Measurement), outcome
        assert outcome.evidence == "measured"
        assert outcome.model_error == 0
        assert len(outcome.samples_ns) == 5


def test_nothing_is_sent_twice_in_a_session_and_what_was_changed_is_sent_again(
    plain, reach, model
) -> None:
    device = reach(plain)
    with device.exclusive():
        device.run([Job(model, "litert")])
        there = plain.objects / digest(model)
        before = there.stat().st_ino
        device.run([Job(model, "litert")])
        assert there.stat().st_ino == before
    library = plain.objects / digest(installed_library("litert").path)
    with library.open("r+b") as file:
        file.write(b"poisoned")
    (outcome,) = device.run([Job(model, "litert")])
    assert isinstance(outcome, Measurement)
    assert digest(library) == library.name


def test_what_a_broken_session_left_is_removed(plain, reach, model) -> None:
    device = reach(plain)
    (plain.objects / ".0123456789abcdef.77").write_text("half a file")
    stale = plain.objects.parent / "work" / "old"
    stale.mkdir(parents=True, exist_ok=True)
    device.run([Job(model, "litert")])
    assert not stale.exists()
    assert not list(plain.objects.glob(".*"))


def test_programs_that_are_used_do_not_grow_old(plain, reach, model) -> None:
    """Two months after they came; a clock without a battery says so at every start."""
    # what other devices brought is nobody's here
    shutil.rmtree(plain.objects.parent, ignore_errors=True)
    device = reach(plain)
    device.run([Job(model, "litert")])
    forgotten = plain.objects / ("0" * 64)
    forgotten.write_text("of nobody")
    before = plain.held
    for path in plain.objects.iterdir():
        os.utime(path, (0, 0))
    with device.exclusive():
        inodes = {p.name: p.stat().st_ino for p in plain.objects.iterdir()}
        assert set(inodes) == before - {forgotten.name}
        (outcome,) = device.run([Job(model, "litert")])
        assert isinstance(outcome, Measurement)
        assert {name: (plain.objects / name).stat().st_ino for name in inodes} == inodes


def test_an_old_runner_ends_when_its_link_does(plain, reach, model) -> None:
    """A job that would run for minutes does not disturb the next measurement."""
    device = reach(plain)
    endless = Job(model, "litert", min_run_ms=100_000.0, runs=1)
    thread = threading.Thread(target=lambda: quietly(lambda: device.run([endless])), daemon=True)
    thread.start()
    runners = f"{plain.home}/.cache/edgeofa"
    assert until(lambda: count_in(runners) > 0)
    plain.drop()
    plain.set_shell("/bin/false")
    try:
        assert until(lambda: count_in(runners) == 0)
        thread.join(30)
        assert not thread.is_alive()
    finally:
        plain.set_shell("/bin/sh")


def quietly(action) -> None:
    with pytest.raises(DeviceError):
        action()


def count_in(folder: str) -> int:
    """Runners whose working folder is ``folder``."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            found += str((process / "cwd").readlink()) == folder and b"--lease" in words
        except OSError:
            continue
    return found


def test_a_board_that_restarts_in_the_middle_repeats_the_job(plain, reach, model) -> None:
    device = reach(plain)
    jobs = [Job(model, "litert", min_run_ms=400.0) for _ in range(3)]
    done: list[int] = []

    def restart(_: int) -> None:
        done.append(1)
        if len(done) == 1:
            plain.stop()
            shutil.rmtree(plain.objects.parent)  # it lay in memory
            plain.start()

    outcomes = device.run(jobs, progress=restart)
    assert all(isinstance(o, Measurement) for o in outcomes), outcomes
    assert sum(done) == 3


def test_a_board_that_stays_away_is_an_error_in_time(plain, reach, model) -> None:
    device = reach(plain)
    jobs = [Job(model, "litert", min_run_ms=200.0) for _ in range(3)]
    try:
        with pytest.raises(LinkLost, match=r"127\.0\.0\.1"):
            device.run(jobs, progress=lambda _: plain.stop())
    finally:
        plain.start()
    (outcome,) = device.run(jobs[:1])
    assert isinstance(outcome, Measurement)


def test_a_link_that_freezes_is_given_up_and_made_again(plain, reach, model, monkeypatch) -> None:
    """As when a cable is pulled: nobody says that the link is gone."""
    monkeypatch.setattr(ssh_link, "_ALIVE_INTERVAL_S", 1)
    monkeypatch.setattr(ssh_link, "_ALIVE_COUNT", 2)
    monkeypatch.setattr(ssh, "SILENCE_S", 8)
    device = reach(plain)
    jobs = [Job(model, "litert", min_run_ms=300.0) for _ in range(3)]
    done: list[int] = []

    def freeze(_: int) -> None:
        done.append(1)
        if len(done) == 1:
            plain.signal(signal.SIGSTOP)

    try:
        # the board still believes that the first link has it, and lets go when it hears nothing
        with pytest.warns(UserWarning, match="another edgeofa measures"):
            outcomes = device.run(jobs, progress=freeze)
    finally:
        plain.drop()
    assert all(isinstance(o, Measurement) for o in outcomes), outcomes
    assert sum(done) == 3


CUTS = st.one_of(st.integers(0, 12_000), st.integers(0, 2_000_000))


@given(cuts=st.lists(CUTS, min_size=1, max_size=3))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_link_cut_at_any_byte_poisons_nothing(plain, reach, model, cuts: list[int]) -> None:
    shutil.rmtree(plain.objects.parent, ignore_errors=True)
    with CuttingProxy(plain.port, cuts) as proxy:
        plain.know(plain.port, proxy.port)
        try:
            device = reach(plain, plain.address_at(proxy.port))
            outcome = device.run([Job(model, "litert")])[0]
            assert isinstance(outcome, Measurement)
        except LinkLost:
            # cut before anything was reached: said so, and nothing is retried for ever
            assert proxy.connections <= len(cuts) + 1
        if plain.objects.exists():
            whole = [p for p in plain.objects.iterdir() if not p.name.startswith(".")]
            assert {digest(p) for p in whole} == {p.name for p in whole}
    device = reach(plain)
    assert isinstance(device.run([Job(model, "litert")])[0], Measurement)


def test_two_users_do_not_measure_at_once(plain, reach, model, monkeypatch) -> None:
    """The second waits, says for whom, and goes on when the first is killed."""
    device = reach(plain)
    code = (
        "import time, sys\n"
        "from edgeofa.devices.ssh import SshDevice\n"
        "with SshDevice(None, sys.argv[1]).exclusive():\n"
        "    print('mine', flush=True)\n"
        "    time.sleep(60)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, plain.address], stdout=subprocess.PIPE, start_new_session=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"mine\n"

    def stop() -> None:
        # the second one is at the lock too, and has had the time to be told
        assert until(lambda: keepers(plain) == 2)
        time.sleep(1.0)
        os.killpg(first.pid, signal.SIGKILL)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.warns(UserWarning, match=r"another edgeofa measures \(.*process"):
        (outcome,) = device.run([Job(model, "litert")])
    assert isinstance(outcome, Measurement)
    thread.join()
    assert first.wait(10) == -signal.SIGKILL
    first.stdout.close()


def keepers(board: LoopbackBoard) -> int:
    """Programs that hold, or wait for, the lock of a board."""
    lock = f"{board.folder}/tmp/edgeofa-board.lock".encode()
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found += words[1:3] == [b"keep", lock]
    return found
