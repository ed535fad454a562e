"""The boards' helper program: files by digest, one user at a time, clocks put back. About 15 s."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeofa.datafile import parse_data
from edgeofa.devices import keeper
from edgeofa.devices.board import (
    BoardFacts,
    check_belongs,
    check_libc,
    needed_glibc,
    parse_facts,
)
from edgeofa.devices.draft import local_facts, matching_targets, target_text
from edgeofa.devices.keeper import Keeper
from edgeofa.devices.native import board_path, own_arch
from edgeofa.errors import DeviceError, LinkLost
from edgeofa.targets import Target, load_target

POLICY = "sys/devices/system/cpu/cpufreq/policy0"
BEFORE = {"scaling_governor": "ondemand", "scaling_min_freq": "600000"}
PINNED = {"scaling_governor": "performance", "scaling_min_freq": "1500000"}


@pytest.fixture(scope="module")
def helper() -> Path:
    return board_path(own_arch())


def run(helper: Path, *words: object, data: bytes = b"") -> tuple[int, list[dict]]:
    done = subprocess.run(
        [helper, *map(str, words)], input=data, capture_output=True, timeout=60, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def framed(*contents: bytes) -> bytes:
    return b"".join(f"{name_of(c)} {len(c)} -\n".encode() + c for c in contents)


@given(st.one_of(st.binary(max_size=300), st.integers(0, 70000).map(lambda n: b"\xa5" * n)))
@settings(max_examples=40, deadline=None)
def test_digests_are_sha256(helper, tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("digest") / "content"
    path.write_bytes(content)
    status, events = run(helper, "digest", path)
    assert (status, events[0]["sha256"]) == (0, name_of(content))


FILES = (b"first" * 100, b"", b"third" * 3000)


@given(st.integers(0, len(framed(*FILES))))
@settings(max_examples=60, deadline=None)
def test_a_transfer_cut_at_any_byte_leaves_whole_files_or_none(
    helper, tmp_path_factory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("objects")
    status, events = run(helper, "receive", folder, data=framed(*FILES)[:cut])
    there = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(there) == {e["sha256"] for e in events}
    assert all(name_of(content) == name for name, content in there.items())
    ends = {len(framed(*FILES[:n])) for n in range(len(FILES) + 1)}
    assert status == (0 if cut in ends else 3)
    # sent again, all of it arrives
    assert run(helper, "receive", folder, data=framed(*FILES))[0] == 0
    assert {p.name for p in folder.iterdir()} == {name_of(c) for c in FILES}


def test_a_file_with_another_digest_is_refused(helper, tmp_path) -> None:
    stream = framed(b"right").replace(b"right", b"wrong")
    status, events = run(helper, "receive", tmp_path, data=stream)
    assert (status, events[0]["event"]) == (2, "refused")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "head", [b"../../etc/passwd 3 x\nabc", b"x" * 500, b"%064d -5 x\n" % 0, b"%064d 3 z\nabc" % 0]
)
def test_a_malformed_stream_is_refused(helper, tmp_path, head: bytes) -> None:
    status, _ = run(helper, "receive", tmp_path, data=head)
    assert status in (2, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_not_there(helper, tmp_path) -> None:
    run(helper, "receive", tmp_path, data=framed(b"one", b"two"))
    (tmp_path / name_of(b"one")).write_bytes(b"0ne")
    _, events = run(helper, "have", tmp_path, name_of(b"one"), name_of(b"two"), name_of(b"three"))
    assert [e["sha256"] for e in events] == [name_of(b"two")]
    assert not (tmp_path / name_of(b"one")).exists()


def test_a_disk_that_refuses_in_the_middle_leaves_nothing(helper, tmp_path) -> None:
    limited = f"trap '' XFSZ; ulimit -f 8; exec {helper} receive {tmp_path}"
    done = subprocess.run(
        ["sh", "-c", limited], input=framed(b"x" * 50000), capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert b"cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------ keeping a board


@pytest.fixture
def root(tmp_path) -> Path:
    """A board's sysfs: real files in a real folder."""
    policy = tmp_path / "root" / POLICY
    policy.mkdir(parents=True)
    for name, value in {**BEFORE, "scaling_max_freq": "1500000"}.items():
        (policy / name).write_text(f"{value}\n")
    return tmp_path / "root"


def clocks(root: Path) -> dict[str, str]:
    return {name: (root / POLICY / name).read_text().strip() for name in BEFORE}


def keep_argv(helper: Path, root: Path, *words: str) -> list[str]:
    lock = str(root.parent / "lock")
    return [str(helper), "--root", str(root), "keep", lock, "somebody", "pin", *words]


def until(condition, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_clocks_are_pinned_and_put_back(helper, root) -> None:
    kept = Keeper(keep_argv(helper, root), "here")
    assert kept.kept.pinned
    assert clocks(root) == PINNED
    kept.close()
    assert clocks(root) == BEFORE
    assert not (root.parent / "lock.saved").exists()


@contextmanager
def started(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        assert b'"kept"' in line, line
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_clocks_are_put_back_after_every_signal(helper, root, number: int) -> None:
    with started(keep_argv(helper, root)) as process:
        assert clocks(root) == PINNED
        process.send_signal(number)
        assert until(lambda: clocks(root) == BEFORE)
        assert until(lambda: not (root.parent / "lock.saved").exists())


def test_clocks_are_put_back_after_a_silence(helper, root) -> None:
    with started(keep_argv(helper, root, "silence", "1")) as process:
        assert process.wait(20) == 0
        assert clocks(root) == BEFORE


def test_what_nobody_put_back_the_next_one_does(helper, root) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for name, value in PINNED.items():
        (root / POLICY / name).write_text(value)
    saved = root.parent / "lock.saved"
    saved.write_text(f"boot {boot}\n0 ondemand 600000\n")
    Keeper(keep_argv(helper, root), "here").close()
    assert clocks(root) == BEFORE
    # settings of another boot are gone anyway
    saved.write_text("boot other\n0 powersave 600000\n")
    Keeper(keep_argv(helper, root), "here").close()
    assert clocks(root) == BEFORE


def test_a_hostile_leftover_writes_nothing_else(helper, root) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    target = root.parent / "victim"
    target.write_text("untouched")
    saved = root.parent / "lock.saved"
    saved.write_text(f"boot {boot}\n0 ../../x 5\n-1 $(reboot) 3\n" + "9" * 300 + "\n")
    Keeper(keep_argv(helper, root), "here").close()
    assert clocks(root) == BEFORE
    saved.symlink_to(target)
    Keeper(keep_argv(helper, root), "here").close()
    assert target.read_text() == "untouched"


def test_clocks_that_may_not_be_set_stay(helper, root) -> None:
    for path in (root / POLICY).iterdir():
        path.chmod(0o444)
    if os.geteuid() == 0:
        (root / POLICY / "scaling_governor").unlink()  # nothing stops root: take it away
    kept = Keeper(keep_argv(helper, root), "here")
    assert not kept.kept.pinned
    assert kept.kept.note
    kept.close()
    assert (root / POLICY / "scaling_min_freq").read_text().strip() == "600000"


def test_the_second_user_waits_and_is_told_who_measures(helper, root) -> None:
    with started(keep_argv(helper, root)) as first:
        argv = [*keep_argv(helper, root)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
            waiting = json.loads(second.stdout.readline())
            assert waiting["event"] == "waiting"
            assert waiting["owner"].startswith("somebody, process")
            assert waiting["age_s"] >= 0
            first.kill()  # a lock never outlives its owner
            assert json.loads(second.stdout.readline())["event"] == "kept"
            assert clocks(root) == PINNED
            second.stdin.close()
            assert second.wait(20) == 0
    assert clocks(root) == BEFORE


def test_a_runner_of_an_earlier_owner_is_waited_for(helper, root) -> None:
    busy = root.parent / "lock.busy"
    Keeper(keep_argv(helper, root), "here").close()
    code = (
        f"import fcntl, time; file = open({str(busy)!r}); fcntl.flock(file, fcntl.LOCK_SH); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE) as runner:
        runner.stdout.readline()
        argv = keep_argv(helper, root)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert json.loads(process.stdout.readline())["event"] == "waiting"
            runner.kill()
            assert json.loads(process.stdout.readline())["event"] == "kept"
            process.stdin.close()


def test_a_waiting_user_is_warned_and_goes_on(helper, root) -> None:
    with (
        started(keep_argv(helper, root, "silence", "1")),
        pytest.warns(UserWarning, match="waits?"),
    ):
        Keeper(keep_argv(helper, root), "here").close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('hello')", "nonsense"),
        ("print('x' * 100000)", "nonsense"),
        ('print(\'{"event":"refused","reason":"no"}\')', "cannot be kept"),
        ("import sys; sys.exit('broken')", "broken"),
        ("import time; time.sleep(60)", "hangs"),
        ("import os, time; os.close(1); time.sleep(60)", "falls silent"),
        (r"import sys; sys.exit('\x1b]0;owned\x07')", r"\?\]0;owned\?"),
    ],
)
def test_a_keeper_that_is_none_is_an_error(monkeypatch, code: str, words: str) -> None:
    if words == "hangs":
        monkeypatch.setattr(keeper, "_ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(keeper, "_RELEASE_TIMEOUT_S", 1.0)
    with pytest.raises(DeviceError, match=words):
        Keeper(["python3", "-c", code], "here")


def test_a_keeper_behind_a_broken_link_is_tried_again() -> None:
    with pytest.raises(LinkLost):
        Keeper(["sh", "-c", "exit 255"], "here", lost_status=255)


# ----------------------------------------------------------------------------------- the probe


def facts_of(helper: Path, root: Path) -> BoardFacts:
    done = subprocess.run([helper, "--root", root, "probe", "/"], capture_output=True, timeout=60)
    return parse_facts(done.stdout, "here")


def libc_path(root: Path) -> Path:
    loader = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
    path = root / loader[own_arch()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path.parent / "libc.so.6"


def test_this_machine_is_known() -> None:
    facts = local_facts()
    assert facts.emulator is None
    assert facts.machine == own_arch()
    assert facts.processors is not None
    assert facts.ram_bytes is not None
    assert facts.state.load is not None


def test_c_libraries_are_told_apart(helper, root) -> None:
    assert facts_of(helper, root).libc is None
    musl = root / "lib" / f"ld-musl-{own_arch()}.so.1"
    musl.parent.mkdir(parents=True, exist_ok=True)
    musl.touch()
    assert facts_of(helper, root).libc == "musl"
    libc = libc_path(root)
    libc.write_bytes(b"\x7fELF" + b"\0" * 100 + b"GNU C Library (Debian GLIBC 2.31-13) stable "
                     b"release version 2.31.\n" + b"\0" * 100)  # fmt: skip
    facts = facts_of(helper, root)
    assert (facts.libc, facts.glibc) == ("glibc 2.31", (2, 31))
    libc.write_bytes(b"GNU C Library nonsense" + b"\xff" * 50)
    assert facts_of(helper, root).glibc is None


def test_state_is_read_from_sysfs(helper, root) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"
        "processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n",
        "proc/device-tree/model": "Board \x1b[31m\"'\\ \xff one\0",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        "sys/class/thermal/thermal_zone0/type": "battery\n",
        "sys/class/thermal/thermal_zone0/temp": "20000\n",
        "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "61000\n",
        f"{POLICY}/cpuinfo_max_freq": "1800000\n",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="latin-1")
    libc_path(root).write_bytes(b"GNU C Library release version 2.36.\n" + b"\0" * 100)
    facts = facts_of(helper, root)
    assert facts.model is not None
    assert facts.model.isprintable()
    assert facts.state.throttled is True
    assert facts.state.throttle_events == 5
    assert facts.state.temperature_c == 61
    assert facts.microarchitecture == "cortex-a53 cortex-a72"
    assert facts.clock_hz == 1.8e9
    # whatever a board calls itself, its target file is a file with one description
    target = parse_data(target_text("x", facts, "ssh://x").encode(), Target, "draft")
    assert target.description.isprintable()
    assert target.power is None


FACTS = {
    "event": "board", "protocol": 1, "machine": "aarch64", "emulator": None, "kernel": "6.1",
    "libc": "glibc 2.36", "processors": 4, "parts": [0xD08] * 4, "implementer": 0x41,
    "processor_hz": None, "processor_name": None, "features": "fp", "model": "Raspberry Pi 4",
    "clocks": [{"policy": 0, "max_hz": 1.5e9, "min_hz": 6e8, "now_hz": 6e8, "may_be_set": True,
                "governor": "ondemand"}],
    "caches": [], "ram_bytes": 1 << 32, "free_bytes": 1 << 30,
    "state": {"clock_hz": None, "temperature_c": None, "load": None, "throttled": None,
              "throttle_events": None, "governor": None},
}  # fmt: skip


def facts(**changes) -> BoardFacts:
    return parse_facts(json.dumps({**FACTS, **changes}).encode(), "board")


def test_a_board_is_matched_to_its_target() -> None:
    assert matching_targets(facts()) == ("rpi4",)
    assert matching_targets(facts(parts=[0xD03] * 4)) == ()
    assert matching_targets(facts(emulator="it is one")) == ()
    check_belongs(facts(), load_target("rpi4"), "board")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "x86_64", "parts": []}, "is x86_64, not aarch64"),
        ({"parts": [0xD0B] * 4}, "has cortex-a76 cores, not cortex-a72"),
        ({"processors": 1, "parts": [0xD08]}, "has 1 processors, not 4"),
    ],
)
def test_a_board_of_another_target_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        check_belongs(facts(**changes), load_target("rpi4"), "board")


@pytest.mark.parametrize(
    ("libc", "words"),
    [("glibc 2.31", "2.34 or newer"), ("musl", "is musl"), (None, "no C library for aarch64")],
)
def test_a_wrong_c_library_is_named(libc: str | None, words: str) -> None:
    program = b"\0GLIBC_2.17\0..\0GLIBC_2.34\0GLIBC_2.4\0"
    assert needed_glibc(program) == (2, 34)
    check_libc(facts(), program, "the runner", "board")
    with pytest.raises(DeviceError, match=words):
        check_libc(facts(libc=libc), program, "the runner", "board")


@given(st.binary(max_size=200))
def test_nonsense_is_never_facts(answer: bytes) -> None:
    with pytest.raises(DeviceError, match="nonsense"):
        parse_facts(answer, "board")
