"""A TVM RPC server as a device: a real one on the loopback interface, and what is none."""

from __future__ import annotations

import dataclasses
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cutting_proxy import CuttingProxy
from tvm_libraries import tvm_library

from edgeofa.backends.tvm.installed import tvm_problem
from edgeofa.devices import runner, tvm_rpc
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.registry import check_address, device_for
from edgeofa.devices.tvm_rpc import RpcAddress, TvmRpcDevice, greet, parse_address
from edgeofa.errors import DeviceError, LinkLost, UsageError
from edgeofa.targets import load_target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(tvm_problem() is not None, reason=f"{tvm_problem()}"),
]
HOST = load_target("host")
X = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
SERVER = Path(__file__).resolve().parents[1] / "tvm_rpc_server.py"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), "lab"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def address(port: int, key: str = "lab") -> str:
    return f"tvm-rpc://127.0.0.1:{port}/{key}"


def test_jobs_run_there_and_bad_ones_cost_only_themselves(port: int, tmp_path, monkeypatch) -> None:
    # what happens to lie where a person works is not imported
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    device = device_for(HOST, address(port))
    assert isinstance(device, TvmRpcDevice)
    device._timeout_s = 4.0
    fine = Job(tvm_library(tmp_path / "fine.so"), "tvm", runs=5, input=X, want_output=True)
    raising = 'return TVMFFIErrorSetRaisedFromCStr("ValueError", "a shape is wrong"), -1'
    jobs = [
        dataclasses.replace(fine, warmup_ms=2.0, min_run_ms=2.0),
        dataclasses.replace(fine, cold=True, runs=3),
        dataclasses.replace(fine, watch=True),
        Job(tvm_library(tmp_path / "raise.so", first=raising), "tvm"),
        Job(tvm_library(tmp_path / "abort.so", first="abort()"), "tvm"),
        Job(tvm_library(tmp_path / "hang.so", first="for (;;) pause()"), "tvm"),
        Job(SERVER, "tvm"),
        Job(tmp_path / "nothing.so", "tvm"),
        dataclasses.replace(fine, input=X[:, 1:]),
        dataclasses.replace(fine, backend="litert"),
        fine,
    ]
    counted: list[int] = []
    outcomes = device.run(jobs, threads=2, progress=counted.append)
    warm, cold, watched, *bad, last = outcomes
    for good in (warm, cold, watched, last):
        assert isinstance(good, Measurement), good
        assert np.array_equal(good.output, X.reshape(1, 12) * 2)
        assert good.evidence == "measured"
        assert good.load_ms is None
        assert min(good.samples_ns) >= 0
    assert len(last.samples_ns) == 5
    assert (watched.endurance.compared, watched.endurance.changed) == (5, 0)
    reasons = [o.reason for o in bad if isinstance(o, Failure)]
    for reason, expected in zip(
        reasons,
        [
            "a shape is wrong",
            "its process ended with the model",
            "no result within 4000 ms",
            "not a library of edgeofa's TVM back end",
            "nothing.so",
            "48 bytes",
            "runs no litert",
        ],
        strict=True,
    ):
        assert expected in reason
    assert sum(counted) == len(jobs) - 1


def test_a_cut_connection_is_made_again(port: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "_BREAK_REST_S", 0.01)
    job = Job(tvm_library(tmp_path / "x.so"), "tvm", input=X, want_output=True)
    # the device, the client and the job greet, and then the model is on its way
    with CuttingProxy(port, cuts=(1000, 1000, 1000, 9000)) as proxy:
        (outcome,) = TvmRpcDevice(HOST, address(proxy.port)).run([job])
        assert proxy.connections > 6
    assert isinstance(outcome, Measurement), outcome
    assert np.array_equal(outcome.output, X.reshape(1, 12) * 2)


def test_a_server_that_went_away_is_a_lost_link(port: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "_MAX_BREAKS", 1)
    with CuttingProxy(port, cuts=()) as proxy:
        device = TvmRpcDevice(HOST, address(proxy.port))
    with pytest.raises(LinkLost, match="the link broke"):
        device.run([Job(tvm_library(tmp_path / "x.so"), "tvm")])


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceError, "no TVM RPC server"),
        (struct.pack("<ii", 0xFF271, 1 << 30), DeviceError, "no TVM RPC server"),
        (struct.pack("<ii", 0xFF271, 7) + b"client:", DeviceError, "no TVM RPC server"),
        (struct.pack("<i", 0xFF273), DeviceError, "another key"),
        (b"", LinkLost, "closed"),
        (None, LinkLost, "no answer within"),
    ],
)
def test_what_is_no_server_is_told_apart(
    answer: bytes | None, error: type[DeviceError], reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends: list[socket.socket] = []
        talk = threading.Thread(target=_answer, args=(listener, answer, ends.append))
        talk.start()
        place = RpcAddress("127.0.0.1", listener.getsockname()[1], "")
        with pytest.raises(error, match=reason):
            greet(place, "there", timeout_s=0.3 if answer is None else 10.0)
        talk.join()
        for end in ends:
            end.close()


def _answer(
    listener: socket.socket, answer: bytes | None, keep: Callable[[socket.socket], None]
) -> None:
    end, _ = listener.accept()
    end.recv(64)
    if answer is None:
        keep(end)
        return
    end.sendall(answer)
    end.close()


def test_another_key_is_refused(port: int) -> None:
    with pytest.raises(DeviceError, match="another key"):
        TvmRpcDevice(HOST, address(port, "field"))


def test_nobody_there_is_said_with_the_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(LinkLost, match="rpc_server"):
        TvmRpcDevice(HOST, address(port))


@pytest.mark.parametrize(
    "text",
    [
        "tvm-rpc://",
        "tvm-rpc://board",
        "tvm-rpc://board:0",
        "tvm-rpc://board:70000",
        "tvm-rpc://board:9090/a key",
        "tvm-rpc://board:9090/" + "k" * 65,
        "tvm-rpc://bo ard:9090",
        "tvm-rpc://-timeout=1:9090:",
    ],
)
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="tvm-rpc://HOST:PORT"):
        check_address(text)


def test_addresses_are_read() -> None:
    assert parse_address("tvm-rpc://board:9090") == RpcAddress("board", 9090, "")
    assert parse_address("tvm-rpc://[fe80::1]:9090/pi") == RpcAddress("fe80::1", 9090, "pi")


def test_without_tvm_the_command_is_named(monkeypatch) -> None:
    monkeypatch.setitem(tvm_rpc.VERSIONS, "apache-tvm", "0.28.0")
    with pytest.raises(DeviceError, match=r"edgeofa knows 0\.28\.0.*\n.*pip install apache-tvm"):
        TvmRpcDevice(HOST, "tvm-rpc://127.0.0.1:1")
