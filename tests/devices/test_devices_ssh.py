"""Boards over ssh: a private sshd on this machine, aarch64 user land under qemu. About 100 s.

Failures of links and boards are tried on a board of this machine's own kind, which is faster.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
from edgeofa.devices import configure, runner, ssh, ssh_link
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.draft import new_target, probe
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.registry import device_for
from edgeofa.devices.ssh import SshDevice
from edgeofa.devices.ssh_link import LINK_STATUS, Link, parse_address
from edgeofa.devices.store import find_device
from edgeofa.errors import DeviceError, LinkLost, UsageError
from edgeofa.targets import load_target

need_loopback()
pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Iterator[LoopbackBoard]:
    """An aarch64 board."""
    yield from running(LoopbackBoard(tmp_path_factory.mktemp("arm") / "board"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Iterator[LoopbackBoard]:
    """A board of this machine's own kind."""
    board = LoopbackBoard(tmp_path_factory.mktemp("plain") / "board", machine=platform.machine())
    yield from running(board)


def running(board: LoopbackBoard) -> Iterator[LoopbackBoard]:
    board.make()
    board.start()
    yield board
    board.stop()


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """Waits between attempts short enough for tests."""
    monkeypatch.setattr(ssh_link, "_RETRY_WAITS_S", (0.1,) * 4)
    monkeypatch.setattr(runner, "_BREAK_REST_S", 0.05)


@pytest.fixture
def reach(monkeypatch):
    """Makes a device of a board."""
    made: list[SshDevice] = []

    def make(board: LoopbackBoard, address: str = "", target: str | None = None) -> SshDevice:
        monkeypatch.setenv("EDGEOFA_SSH", board.ssh)
        kind = load_target(target) if target else None
        made.append(SshDevice(kind, address or board.address))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return get_backend("litert").compile(float_graph("network"), folder / "network.tflite").path


def held(board: LoopbackBoard) -> set[str]:
    return {p.name for p in board.objects.iterdir()}


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
    litert = get_backend("litert").compile(graph, tmp_path / "q.tflite").path
    onnx = get_backend("onnxruntime").compile(float_graph("mean"), tmp_path / "m.onnx").path
    x = images((1, 12, 12, 3), 1, seed=3)
    jobs = [
        Job(litert, "litert", want_output=True, runs=2),
        Job(model, "litert", want_output=True, input=x if x.shape == (1, 12, 12, 3) else None),
        Job(onnx, "onnxruntime", want_output=True),
        Job(tmp_path / "absent.tflite", "litert"),
    ]
    shape = float_graph("network").input_tensor.shape
    jobs[1] = Job(model, "litert", want_output=True, input=images(shape, 1, seed=3))
    counted: list[int] = []
    outcomes = device.run(jobs, progress=counted.append)
    assert sum(counted) == 4
    assert isinstance(outcomes[3], Failure)
    assert "No such file" in outcomes[3].reason
    expected = LocalDevice().run(jobs[:3])
    for ours, theirs in zip(outcomes[:3], expected, strict=True):
        assert isinstance(ours, Measurement), ours
        assert isinstance(theirs, Measurement)
        difference = np.abs(ours.output.astype(float) - theirs.output.astype(float)).max()
        assert difference <= (4 if ours.output.dtype == np.int8 else 1e-4)
    # only programs and libraries stay, each under its own digest
    assert {digest(p) for p in arm.objects.iterdir()} == held(arm)
    assert digest(litert) not in held(arm)
    assert list((arm.objects.parent / "work").iterdir()) == []


@pytest.mark.emulated
def test_an_emulators_clock_is_never_called_measured(arm, reach, model) -> None:
    device = reach(arm)
    assert device.evidence == "estimated"
    assert "emulator" in device.identity()["emulated"]
    (outcome,) = device.run([Job(model, "litert")])
    assert isinstance(outcome, Measurement)
    assert outcome.evidence == "estimated"
    assert outcome.model_error >= 0.9


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


# --------------------------------------------------------------------------- a board of our kind


def until(condition, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_real_clock_is_measured(plain, reach, model) -> None:
    device = reach(plain)
    assert device.evidence == "measured"
    assert device.identity()["litert"].startswith("2.")
    (outcome,) = device.run([Job(model, "litert", runs=5)], threads=2)
    assert isinstance(outcome, Measurement)
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
    library = max(plain.objects.iterdir(), key=lambda p: p.stat().st_size)
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


# ---------------------------------------------------------------------- boards and links gone bad


def test_an_unknown_host_key_is_never_accepted(plain, reach) -> None:
    (plain.folder / "known_hosts").write_text("")
    try:
        with pytest.raises(DeviceError, match="accepts none by itself") as caught:
            reach(plain)
    finally:
        plain.know(plain.port)
    assert f"ssh-keyscan -p {plain.port} 127.0.0.1" in str(caught.value.hint)
    assert not isinstance(caught.value, LinkLost)


def test_a_changed_host_key_is_refused(plain, arm, reach) -> None:
    other = (arm.folder / "host_key.pub").read_text().split()[:2]
    (plain.folder / "known_hosts").write_text(f"[127.0.0.1]:{plain.port} {' '.join(other)}\n")
    try:
        with pytest.raises(DeviceError, match="not the one that is known") as caught:
            reach(plain)
    finally:
        plain.know(plain.port)
    assert "ssh-keygen -R" in str(caught.value.hint)


def test_nobody_is_let_in_without_a_key(plain, reach, monkeypatch) -> None:
    config = plain.folder / "ssh_config"
    config.write_text(config.read_text().replace("user_key", "host_key"))
    try:
        with pytest.raises(DeviceError, match="does not let us in") as caught:
            reach(plain)
    finally:
        plain.know(plain.port)
    assert "ssh-copy-id" in str(caught.value.hint)


def test_a_board_that_is_not_there_is_an_error(plain, reach) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(LinkLost, match="cannot be reached"):
            reach(plain, plain.address_at(closed.getsockname()[1]))
    with pytest.raises(DeviceError, match="no board of this name"):
        reach(plain, "ssh://nowhere.invalid")


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("echo Welcome", "not an aarch64 or x86-64 Linux board|nonsense"),
        ("head -c 300000 /dev/zero", "more than"),
        ("printf 'Linux\\nmips\\n'; exit 0", "uname says 'Linux mips'"),
        ("printf 'Linux armv7l'; exit 0", "32-bit Arm"),
        ("exit 3", "uname says ''"),
        ("ulimit -f 100; trap '' XFSZ", "cannot store a program"),
    ],
)
def test_a_board_that_answers_nonsense_is_refused(plain, reach, before: str, words: str) -> None:
    shutil.rmtree(plain.objects.parent, ignore_errors=True)
    plain.set_shell("/bin/sh", before)
    try:
        with pytest.raises(DeviceError, match=words) as caught:
            reach(plain)
    finally:
        plain.set_shell("/bin/sh")
    assert not isinstance(caught.value, LinkLost)


def test_programs_of_another_machine_do_not_start(plain, reach) -> None:
    uname = plain.folder / "bin" / "uname"
    uname.unlink()
    uname.write_text("#!/bin/sh\necho Linux; echo aarch64\n")
    uname.chmod(0o755)
    try:
        with pytest.raises(DeviceError, match="does not run edgeofa's program"):
            reach(plain)
    finally:
        uname.unlink()
        uname.symlink_to(shutil.which("uname"))


def test_a_disk_that_fills_in_the_middle_fails_clearly(plain, reach, model) -> None:
    shutil.rmtree(plain.objects.parent, ignore_errors=True)
    device = reach(plain)
    plain.set_shell("/bin/sh", "ulimit -f 3000; trap '' XFSZ")
    try:
        with pytest.raises(DeviceError, match="cannot be written") as caught:
            device.run([Job(model, "litert")])
    finally:
        plain.set_shell("/bin/sh")
    assert not isinstance(caught.value, LinkLost)
    assert {digest(p) for p in plain.objects.iterdir()} == held(plain)
    (outcome,) = device.run([Job(model, "litert")])
    assert isinstance(outcome, Measurement)


def test_a_folder_that_cannot_be_made_is_named(plain, reach) -> None:
    with pytest.raises(DeviceError, match="no folder for edgeofa's files"):
        reach(plain, f"{plain.address}/dev/null/x")


def test_another_folder_is_used(plain, reach, model) -> None:
    folder = plain.folder / "elsewhere"
    device = reach(plain, f"{plain.address}{folder}")
    assert isinstance(device.run([Job(model, "litert")])[0], Measurement)
    assert (folder / "objects").is_dir()


def test_a_board_that_hangs_is_left_in_time(plain, monkeypatch) -> None:
    monkeypatch.setenv("EDGEOFA_SSH", plain.ssh)
    link = Link(parse_address(plain.address), "board")
    start = time.monotonic()
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        link.run("sleep 60", timeout_s=1)
    assert time.monotonic() - start < 30
    link.close()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_arguments_reach_the_board_as_they_are(plain, monkeypatch, words: list[str]) -> None:
    monkeypatch.setenv("EDGEOFA_SSH", plain.ssh)
    link = Link(parse_address(plain.address), "board")
    answer = link.run('for w; do echo "${#w}"; printf "%s\\n" "$w"; done', *words)
    link.close()
    assert answer.status == 0
    for word in words:
        assert word.encode() in answer.output


# -------------------------------------------------------------------------------------- addresses


def test_addresses() -> None:
    full = parse_address("ssh://pi@board.local:2222/data/edgeofa")
    assert (full.user, full.host, full.port, full.folder) == (
        "pi",
        "board.local",
        2222,
        "/data/edgeofa",
    )
    assert parse_address("ssh://[fe80::1%eth0]:22/").host == "fe80::1%eth0"
    assert parse_address("ssh://alias").user is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ssh://pi:secret@board", "password"),
        ("ssh://-oProxyCommand=touch/x", "not an address"),
        ("ssh://board;reboot", "not an address"),
        ("ssh://board:99999", "port"),
        ("ssh://$(id)@board", "not an address"),
        ("ssh://board/folder with space", "not an address"),
        ("ssh://", "not an address"),
        ("http://board", "not an address"),
    ],
)
def test_bad_addresses_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_address(text)


@given(st.text(max_size=60))
def test_no_text_becomes_an_option_of_ssh(text: str) -> None:
    try:
        address = parse_address(f"ssh://{text}")
    except UsageError:
        return
    assert not address.host.startswith("-")
    assert address.user is None or not address.user.startswith("-")
    assert LINK_STATUS == 255
