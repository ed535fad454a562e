"""Boards gone wrong under flashing, measuring and watching: a clear error in time, the port free
again, nothing recorded. About 15 s."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cutting_proxy import CuttingProxy
from host_board import build_host_board, on_pty, on_socket
from sample_graphs import int8_graph

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import FirmwareImage, link, read_network
from edgeofa.devices import serial_port
from edgeofa.devices.base import Failure, Job
from edgeofa.devices.flash import copy, place
from edgeofa.devices.flash.place import flash_image, flash_network
from edgeofa.devices.monitor import observe
from edgeofa.devices.serial_board import SerialBoardDevice
from edgeofa.devices.serial_port import alone_on, open_port
from edgeofa.emulation.qemu_system import emulated_board
from edgeofa.errors import DeviceError
from edgeofa.microcontroller import Flashing
from edgeofa.targets import Target, load_target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs gcc-arm-none-eabi"),
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "dense.zip"
    return FirmwareBackend().compile(int8_graph("dense_after_mean"), path).path


@pytest.fixture(scope="module")
def image(artifact: Path) -> FirmwareImage:
    return link(load_target("nucleo-l4r5zi"), [read_network(artifact)], emulated=False)


@pytest.fixture(scope="module")
def current(image: FirmwareImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board that says it runs ``image``."""
    return build_host_board(tmp_path_factory.mktemp("current"), image.digest)


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_host_board(tmp_path_factory.mktemp("stale"))


def _target(method: Flashing | None = None) -> Target:
    target = load_target("nucleo-l4r5zi")
    assert target.mcu is not None
    flashing = method or Flashing(method="copy", volume="NONE")
    mcu = target.mcu.model_copy(update={"flashing": flashing})
    return target.model_copy(update={"mcu": mcu})


@contextmanager
def _released(name: str) -> Iterator[None]:
    """The port, its lock and every descriptor are free again afterwards."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    with alone_on(name):
        pass
    if not name.startswith("socket://"):
        with open_port(name, 115200):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_board_that_still_runs_what_was_there_before(
    image: FirmwareImage, stale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image was copied to the drive, and the board never took it."""
    (tmp_path / "NODE").mkdir()
    monkeypatch.setattr(copy, "volume_folders", lambda label, _: [tmp_path / label])
    monkeypatch.setattr(copy, "_SETTLE_S", 0.0)
    monkeypatch.setattr(place, "wait_for", _soon)
    target = _target(Flashing(method="copy", volume="NODE"))
    with on_pty(stale) as name, _released(name):
        with pytest.raises(DeviceError, match="a stale firmware runs there") as caught:
            flash_image(target, image, port=name)
        assert caught.value.hint == "edgeofa flash"


_wait_for = place.wait_for


def _soon(image: FirmwareImage, port: str, baud: int, clock_hz: float) -> None:
    _wait_for(image, port, baud, clock_hz, limit_s=0.5)


def test_a_board_of_another_kind(image: FirmwareImage, artifact: Path, stale: Path) -> None:
    other = load_target("nrf5340")
    assert other.mcu is not None
    other_image = link(other, [read_network(artifact)], emulated=False)
    assert other.core is not None
    with on_pty(stale) as name, _released(name):
        with pytest.raises(DeviceError, match="for nucleo-l4r5zi, not for nrf5340"):
            _wait_for(other_image, name, 115200, other.core.clock_hz, limit_s=0.0)
        with pytest.raises(DeviceError, match="for nucleo-l4r5zi, not for nrf5340"):
            observe(other, name)


def test_a_clock_that_is_not_what_the_firmware_believes(artifact: Path, current: Path) -> None:
    with on_pty(current, "0.5") as name, _released(name):
        device = SerialBoardDevice(_target(), f"serial:{name}")
        with pytest.raises(DeviceError, match=r"clock is 0\.[45][0-9] times the 120 MHz"):
            device.run([Job(artifact, "firmware")])


def test_a_clock_that_is_not_the_target_files(image: FirmwareImage, current: Path) -> None:
    with (
        on_pty(current) as name,
        _released(name),
        pytest.raises(DeviceError, match="runs at 120 MHz, the target file says 80 MHz"),
    ):
        _wait_for(image, name, 115200, 80e6, limit_s=0.0)


@pytest.mark.parametrize("answered", [200, 400])
def test_a_cable_that_is_cut_while_a_network_is_measured(
    artifact: Path, current: Path, answered: int
) -> None:
    """``answered`` bytes come back: identification is about 100 of them, and done twice."""
    with on_socket(current, "1", str(answered)) as name, _released(name):
        device = SerialBoardDevice(_target(), f"serial:{name}")
        begun = time.monotonic()
        # before it is known to be the right board nothing can be said of the network
        try:
            (outcome,) = device.run([Job(artifact, "firmware", runs=3)])
        except DeviceError:
            outcome = None
        assert outcome is None or isinstance(outcome, Failure)
        assert time.monotonic() - begun < 60


def test_a_mute_port_is_watched_in_vain() -> None:
    with on_pty(Path("/bin/sleep"), "60") as name, _released(name):
        begun = time.monotonic()
        with pytest.raises(DeviceError, match="the port is mute"):
            observe(load_target("nucleo-l4r5zi"), name)
        assert time.monotonic() - begun < 30


def test_a_port_that_another_edgeofa_uses(
    artifact: Path, stale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_port, "_LOCK_S", 0.2)
    taken, done = threading.Event(), threading.Event()
    with on_pty(stale) as name:

        def hold() -> None:
            with alone_on(name):
                taken.set()
                done.wait(20)

        # in a process of its own a lock is another one; a thread's is too
        thread = threading.Thread(target=hold)
        thread.start()
        taken.wait(10)
        try:
            for attempt in (
                lambda: observe(load_target("nucleo-l4r5zi"), name),
                lambda: flash_network(
                    load_target("nucleo-l4r5zi"), artifact, method="stm32flash", port=name
                ),
            ):
                with pytest.raises(DeviceError, match="another edgeofa uses this board"):
                    attempt()
        finally:
            done.set()
            thread.join(10)


@pytest.mark.skipif(
    not all(map(shutil.which, ("gdb-multiarch", "qemu-system-arm"))),
    reason="needs gdb-multiarch and qemu-system-arm",
)
def test_a_debugger_that_is_cut_off_in_the_middle_of_flashing(
    artifact: Path, tmp_path: Path
) -> None:
    target = load_target("nucleo-l4r5zi")
    assert target.mcu is not None
    with emulated_board(target.mcu, tmp_path / "board", debugger=True) as board:
        assert board.gdb is not None
        with CuttingProxy(int(board.gdb.split(":")[1]), [3000]) as proxy:
            server = f"127.0.0.1:{proxy.port}"
            with pytest.raises(DeviceError, match=r"gdb-multiarch failed|nothing was written|diff"):
                flash_network(
                    target, artifact, method="gdb", server=server, emulated=True, timeout_s=30
                )
