"""What a misbehaving runtime costs: its own job, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeofa.devices.base import Failure, Job
from edgeofa.devices.protocol import RunnerResult, parse_event
from edgeofa.devices.runner import JobResult, RunnerCommand, run_jobs
from edgeofa.errors import DeviceError, UsageError
from edgeofa.paths import data_dir

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> RunnerCommand:
    """The runner, with sanitizers, and a runtime that does what its model file says."""
    folder = tmp_path_factory.mktemp("native")
    library, runner = folder / "libLiteRt.so", folder / "runner"
    sources = sorted((data_dir() / "targets" / "runtime" / "linux").glob("*.c"))
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    warnings = ["-Werror", "-Wall", "-Wextra"]
    for command in (
        ["-shared", "-fPIC", "-o", library, HERE / "fake_runtime.c"],
        ["-std=c11", "-g", "-O1", *sanitizers, *warnings, "-o", runner, *sources, "-ldl"],
    ):
        subprocess.run(["cc", *command], check=True, timeout=120)
    # the library is loaded into children that exit without freeing; signals stay the runner's
    options = "detect_leaks=0:handle_segv=0:handle_abort=0"
    environment = {**os.environ, "ASAN_OPTIONS": options}
    return RunnerCommand((str(runner), "--library", str(library)), env=environment)


def orders(folder: Path, *words: str) -> list[Job]:
    jobs = []
    for number, word in enumerate(words):
        path = folder / f"model-{number}"
        path.write_text(word, encoding="utf-8")
        jobs.append(Job(path, "litert", runs=2))
    return jobs


def test_crashes_and_hangs_cost_only_their_job(runtime, tmp_path) -> None:
    words = ("fine", "abort", "fine", "segfault", "hang", "exit", "chatter", "fine")
    jobs = orders(tmp_path, *words)
    outcomes = run_jobs(runtime, jobs, tmp_path, job_timeout_s=1.0)
    assert [isinstance(o, JobResult) for o in outcomes] == [w == "fine" for w in words]
    reasons = {w: o.reason for w, o in zip(words, outcomes, strict=True) if isinstance(o, Failure)}
    assert "Aborted" in reasons["abort"]
    assert "weights are cursed" in reasons["abort"]
    assert "nothing special" not in reasons["abort"]
    assert "Segmentation fault" in reasons["segfault"]
    assert "hung" in reasons["hang"]
    assert "without a result" in reasons["exit"]


def test_a_dead_runner_is_restarted_behind_the_guilty_job(runtime, tmp_path) -> None:
    counted: list[int] = []
    jobs = orders(tmp_path, "fine", "patricide", "fine", "patricide", "fine")
    outcomes = run_jobs(runtime, jobs, tmp_path, progress=counted.append)
    assert [isinstance(o, JobResult) for o in outcomes] == [True, False, True, False, True]
    assert sum(counted) == 5


def test_jobs_do_not_outlive_the_runner(runtime, tmp_path) -> None:
    (tmp_path / "hang").write_text("hang", encoding="utf-8")
    process = subprocess.Popen(
        runtime.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=runtime.env
    )
    process.stdin.write(f"model {tmp_path / 'hang'}\n\n".encode())
    process.stdin.flush()
    process.stdin.close()
    process.stdout.readline()
    pid = json.loads(process.stdout.readline())["pid"]
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_a_runner_that_nobody_hears_ends_with_its_job(runtime, tmp_path) -> None:
    """As when edgeofa was killed, or the link to a board is gone."""
    (tmp_path / "hang").write_text("hang", encoding="utf-8")
    process = subprocess.Popen(
        runtime.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=runtime.env
    )
    process.stdin.write(f"model {tmp_path / 'hang'}\n\n".encode())
    process.stdin.close()
    process.stdout.readline()
    pid = json.loads(process.stdout.readline())["pid"]
    process.stdout.close()
    assert process.wait(30) == 4
    assert not Path(f"/proc/{pid}").exists()


COOLER = "sys/class/thermal/cooling_device"
MONITOR = "sys/class/hwmon/hwmon"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("files", "throttled", "events"),
    [
        ({}, None, 7),
        ({f"{COOLER}0/type": "pwm-fan", f"{COOLER}0/cur_state": "2"}, None, 7),
        ({f"{COOLER}0/type": "thermal-cpufreq-0", f"{COOLER}0/cur_state": "0"}, False, 7),
        ({f"{COOLER}0/type": "thermal-cpufreq-0", f"{COOLER}0/cur_state": "3"}, True, 7),
        ({f"{MONITOR}1/name": "rpi_volt", f"{MONITOR}1/in0_lcrit_alarm": "1"}, True, 7),
        ({f"{MONITOR}1/name": "rpi_volt", f"{MONITOR}1/in0_lcrit_alarm": "0"}, False, 7),
        ({FIRMWARE: "50000"}, False, 12),
        ({FIRMWARE: "4"}, True, 7),
    ],
)
def test_the_state_of_the_device_is_read_where_it_is_told_to(
    runtime, tmp_path, files: dict[str, str], throttled: bool | None, events: int
) -> None:
    root = tmp_path / "root"
    for name, value in {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1400000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4",
        "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
        "sys/class/thermal/thermal_zone0/temp": "51500",
        "proc/loadavg": "0.25 0.10 0.05 1/100 1234",
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n", encoding="utf-8")
    command = RunnerCommand((*runtime.argv, "--root", str(root)), env=runtime.env)
    (outcome,) = run_jobs(command, orders(tmp_path, "fine"), tmp_path)
    assert isinstance(outcome, JobResult)
    state = outcome.record.after
    assert state is not None
    assert (state.clock_hz, state.governor) == (1.4e9, "ondemand")
    assert (state.temperature_c, state.load) == (51.5, 0.25)
    assert (state.throttled, state.throttle_events) == (throttled, events)


def test_a_full_disk_fails_the_job_that_met_it(runtime, tmp_path) -> None:
    (job,) = orders(tmp_path, "fine")
    (tmp_path / "output-000000").symlink_to("/dev/full")
    outcomes = run_jobs(runtime, [Job(job.path, "litert", want_output=True)], tmp_path)
    assert isinstance(outcomes[0], Failure)
    assert "No space left" in outcomes[0].reason


def run_raw(runtime: RunnerCommand, listing: bytes, *options: str) -> tuple[int, list[dict]]:
    done = subprocess.run(
        [*runtime.argv, *options],
        input=listing,
        capture_output=True,
        timeout=60,
        check=False,
        env=runtime.env,
    )
    assert b"Sanitizer" not in done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        (b"model x\nruns 0\n", "runs"),
        (b"model x\nruns 99999\n", "runs"),
        (b"model x\nruns -1\n", "runs"),
        (b"runs 1\n\n", "without a model"),
        (b"model x\nspeed 11\n", "unknown key"),
        (b"model x\nnonsense\n", "without a value"),
        (b"model " + b"x" * 5000 + b"\n", "longer"),
        (b"model x\0y\n", "zero byte"),
        (b"model x\ncold 2\n", "cold"),
    ],
)
def test_a_malformed_job_list_is_fatal(runtime, listing: bytes, reason: str) -> None:
    status, events = run_raw(runtime, listing)
    assert status == 2
    assert events[-1]["event"] == "fatal"
    assert reason in events[-1]["reason"]


@given(st.binary(max_size=400))
def test_no_job_list_crashes_the_runner(runtime, listing: bytes) -> None:
    status, events = run_raw(runtime, listing)
    assert status in (0, 2)
    assert events[-1]["event"] in ("end", "fatal")


def test_options_are_checked(runtime) -> None:
    for options in (
        ("--threads", "0"),
        ("--kernels", "magic"),
        ("--cpu", "x"),
        ("--nonsense", "1"),
    ):
        status, events = run_raw(runtime, b"", *options)
        assert (status, events[-1]["event"]) == (2, "fatal")


def test_an_unwritable_result_ends_the_runner(runtime, tmp_path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            runtime.argv,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=runtime.env,
        )
    assert done.returncode == 4
    assert b"No space left" in done.stderr


def script(tmp_path: Path, text: str) -> RunnerCommand:
    path = tmp_path / "runner.py"
    path.write_text(text, encoding="utf-8")
    return RunnerCommand((sys.executable, str(path)))


HELLO = (
    'print(\'{"event":"runner","protocol":2,"runtime":"litert","version":"","pinned":false}\','
    " flush=True)\n"
)


@pytest.mark.parametrize(
    "text",
    [
        "print('hello')",
        'print(\'{"event":"end","jobs":0}\')',
        HELLO.replace('"protocol":2', '"protocol":9'),
        HELLO + 'print(\'{"event":"error","job":0,"reason":"?"}\')',
        HELLO + "print('x' * 3000000)",
        HELLO
        + 'print(\'{"event":"start","job":7,"pid":1}\\n{"event":"error","job":7,"reason":""}\')',
        HELLO + """print('{"event":"start","job":0,"pid":1}\\n' * 9)""",
        "import sys; sys.exit(3)",
    ],
)
def test_a_foreign_program_is_refused(tmp_path, text: str) -> None:
    with pytest.raises(DeviceError):
        run_jobs(script(tmp_path, text), orders(tmp_path, "fine"), tmp_path)


def test_a_flood_of_errors_is_not_kept(tmp_path) -> None:
    """A board could fill our disk otherwise."""
    text = HELLO + "import sys\nfor _ in range(3000): sys.stderr.write('flood ' * 100)\n"
    with pytest.raises(DeviceError, match="flood") as caught:
        run_jobs(script(tmp_path, text), orders(tmp_path, "fine"), tmp_path)
    assert len(caught.value.what) < 3000
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 10_000


def test_a_missing_runner_is_a_device_error(tmp_path) -> None:
    with pytest.raises(DeviceError, match="does not start"):
        run_jobs(RunnerCommand(("/nonexistent/runner",)), orders(tmp_path, "fine"), tmp_path)


def test_paths_that_would_break_the_list_are_refused(runtime, tmp_path) -> None:
    with pytest.raises(UsageError, match="control characters"):
        run_jobs(runtime, [Job(tmp_path / "a\nruns 3", "litert")], tmp_path)


@given(st.binary(max_size=300))
def test_parsing_never_raises_anything_but_validation_errors(line: bytes) -> None:
    with pytest.raises(ValidationError):
        parse_event(line)


def test_samples_must_be_finite_and_bounded() -> None:
    record = {
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
    assert isinstance(parse_event(json.dumps(record).encode()), RunnerResult)
    for samples in ([], [-1.0], [float("nan")], [1.0] * 5000):
        with pytest.raises(ValidationError):
            parse_event(json.dumps({**record, "samples_ns": samples}).encode())


def test_an_interrupted_caller_leaves_no_process(runtime, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        run_jobs(runtime, orders(tmp_path, "fine", "hang"), tmp_path, progress=stop)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_runner_ends_that_is_given_no_job(runtime) -> None:
    runner = subprocess.Popen(
        [*runtime.argv, "--silence", "1"],
        env=runtime.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        # the pipe stays open, as behind a link that froze
        assert runner.wait(timeout=60) == 4
    finally:
        runner.kill()
        runner.communicate()


def test_a_runner_ends_whose_results_are_not_taken(runtime, tmp_path) -> None:
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    (tmp_path / "fine").write_text("fine", encoding="utf-8")
    jobs = tmp_path / "jobs"
    jobs.write_text(f"model {tmp_path / 'fine'}\n\n" * 60, encoding="utf-8")
    try:
        with jobs.open("rb") as given:
            runner = subprocess.Popen(
                [*runtime.argv, "--silence", "1"],
                env=runtime.env,
                stdin=given,
                stdout=writable,
            )
        assert runner.wait(timeout=60) == 4
    finally:
        os.close(readable)
        os.close(writable)
