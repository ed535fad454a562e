"""Flashing: GDB and stm32flash end to end on QEMU, esptool against a ROM loader that is played here
(about 18 s), the other methods by their command lines."""

from __future__ import annotations

import json
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from espressif_rom import DEFL_DATA, ESP32_C3, ESP32_S3, Fault, espressif_rom
from host_board import build_host_board, on_pty
from rom_bootloader import rom_bootloader
from sample_graphs import images, int8_graph
from typer.testing import CliRunner

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import FirmwareImage, link, read_network
from edgeofa.cli.main import app, command
from edgeofa.devices import serial_board
from edgeofa.devices.base import Job, Measurement
from edgeofa.devices.flash import copy, esptool, openocd, pyocd
from edgeofa.devices.flash.base import FlashRequest
from edgeofa.devices.flash.place import flash_image, flash_network
from edgeofa.devices.registry import check_address
from edgeofa.devices.serial_board import SerialBoardDevice, port_of
from edgeofa.devices.serial_port import open_port
from edgeofa.emulation.qemu_system import emulated_board
from edgeofa.errors import DeviceError, SetupError, UsageError
from edgeofa.graph.reference import quantize_array, run
from edgeofa.microcontroller import Flashing, Region, SerialLine
from edgeofa.targets import Target, load_target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(
        not all(map(shutil.which, ("qemu-system-arm", "arm-none-eabi-gcc"))),
        reason="needs qemu-system-arm and gcc-arm-none-eabi",
    ),
]
needs_gdb = pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="needs gdb-multiarch")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "dense.zip"
    return FirmwareBackend().compile(int8_graph("dense_after_mean"), path).path


def _with(target: Target, **changes: object) -> Target:
    assert target.mcu is not None
    return target.model_copy(update={"mcu": target.mcu.model_copy(update=changes)})


def _mps_board(server: str) -> Target:
    """A target whose real board is the one that QEMU emulates, reached through a debugger."""
    target = load_target("nucleo-l4r5zi")
    assert target.mcu is not None
    emulated = target.mcu.emulation
    return _with(
        target,
        board="mps",
        flash=emulated.flash,
        ram=emulated.ram,
        serial=SerialLine(baud=115200, check_clock=False),
        flashing=Flashing(method="gdb", gdb_server=server),
    )


@needs_gdb
def test_a_board_behind_a_debugger_is_flashed_run_and_measured(
    artifact: Path, tmp_path: Path
) -> None:
    other = FirmwareBackend().compile(int8_graph("depthwise_same"), tmp_path / "other.zip").path
    mcu = load_target("nucleo-l4r5zi").mcu
    assert mcu is not None
    with emulated_board(mcu, tmp_path / "board", debugger=True) as board:
        assert board.gdb is not None
        device = SerialBoardDevice(_mps_board(board.gdb), f"serial:{board.port}")
        # an empty board, then one that runs something else, then the right image already
        for case, path in (
            ("dense_after_mean", artifact),
            ("depthwise_same", other),
            ("depthwise_same", other),
        ):
            graph = int8_graph(case)
            quantization = graph.input_tensor.quantization
            assert quantization is not None
            image = quantize_array(images(graph.input_tensor.shape, 1), quantization)
            job = Job(path, "firmware", runs=3, input=image, want_output=True)
            (outcome,) = device.run([job])
            assert isinstance(outcome, Measurement), outcome.reason
            np.testing.assert_array_equal(outcome.output, run(graph, image).ravel())
            assert len(outcome.samples_ns) == 3
            assert len(set(outcome.samples_ns)) == 1
            assert len(outcome.layers_ms) == len(graph.ops)


@needs_gdb
def test_a_network_that_hangs_a_real_board_costs_only_itself(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an image that holds what is asked for again is not written again."""
    hanging = tmp_path / "hanging.zip"
    with zipfile.ZipFile(artifact) as source, zipfile.ZipFile(hanging, "w") as target:
        for name in source.namelist():
            text = source.read(name).decode()
            start = "int edgeofa_run(void)\n{"
            target.writestr(name, text.replace(start, f"{start}\n    for (;;) {{}}"))
    written: list[str] = []

    def counted(target: Target, image: FirmwareImage, **more: object) -> None:
        written.append(image.digest)
        flash_image(target, image, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(serial_board, "flash_image", counted)
    mcu = load_target("nucleo-l4r5zi").mcu
    assert mcu is not None
    with emulated_board(mcu, tmp_path / "board", debugger=True) as board:
        assert board.gdb is not None
        mps = _mps_board(board.gdb)
        device = SerialBoardDevice(mps, f"serial:{board.port}", run_limit_s=1.0)
        jobs = [Job(path, "firmware") for path in (artifact, hanging, artifact)]
        outcomes = device.run(jobs)
        assert [isinstance(o, Measurement) for o in outcomes] == [True, False, True]
        # once for the empty board, once after it hung
        assert len(written) == 2
        (again,) = device.run([Job(artifact, "firmware", runs=2)])
        assert isinstance(again, Measurement)
        assert len(again.samples_ns) == 2
        assert len(written) == 2
        # a new one is added to what was asked for before, and then nothing is written again
        other = FirmwareBackend().compile(int8_graph("depthwise_same"), tmp_path / "other.zip").path
        for _ in range(2):
            both = device.run([Job(path, "firmware") for path in (artifact, other)])
            assert all(isinstance(o, Measurement) for o in both)
        device.run([Job(artifact, "firmware")])
        assert len(written) == 3


@needs_gdb
def test_a_server_that_is_not_there(artifact: Path) -> None:
    target = load_target("nucleo-l4r5zi")
    with pytest.raises(DeviceError, match=r"localhost:1: Connection (refused|timed out)"):
        flash_network(target, artifact, method="gdb", server="localhost:1", emulated=True)
    with pytest.raises(DeviceError, match="needs the address of a server"):
        flash_network(target, artifact, method="gdb", emulated=True)


@pytest.mark.skipif(shutil.which("stm32flash") is None, reason="needs stm32flash")
def test_a_rom_bootloader_takes_the_image_and_boots_it(artifact: Path, tmp_path: Path) -> None:
    target = load_target("nucleo-l4r5zi")
    assert target.mcu is not None
    command()
    with rom_bootloader(target.mcu, tmp_path) as board:
        options = ["--target", target.name, "--method", "stm32flash", "--emulated"]
        done = CliRunner().invoke(
            app, ["flash", str(artifact), *options, "--port", board.port, "--json"]
        )
        assert done.exit_code == 0, done.output + str(done.exception)
        record = json.loads(done.stdout)
        assert record["verified"] == ["read back", "running firmware"]
        assert record["bytes"] == len(board.memory)
        watch = ["monitor", "--target", target.name, "--port", board.port, "--network", "0"]
        # the emulator's clock is none: what monitor finds there is only said
        shown = CliRunner().invoke(app, watch)
        assert shown.exit_code == 0, shown.output + str(shown.exception)
        assert record["digest"][:16] in shown.stdout
        assert "layer 0" in shown.stdout


@pytest.mark.skipif(shutil.which("stm32flash") is None, reason="needs stm32flash")
def test_power_that_fails_in_the_middle_of_flashing(artifact: Path, tmp_path: Path) -> None:
    target = load_target("nucleo-l4r5zi")
    assert target.mcu is not None
    image = link(target, [read_network(artifact)], emulated=True)
    chosen = _with(target, flashing=Flashing(method="stm32flash"))
    with (
        rom_bootloader(target.mcu, tmp_path, lose_after=3000) as board,
        pytest.raises(DeviceError, match=r"stm32flash (failed|did not end within)"),
    ):
        flash_image(chosen, image, port=board.port, timeout_s=20)


def test_a_stale_firmware_that_cannot_be_replaced_is_not_measured(
    artifact: Path, tmp_path: Path
) -> None:
    target = _with(load_target("nucleo-l4r5zi"), flashing=Flashing(method="copy", volume="NONE"))
    program = build_host_board(tmp_path)
    with on_pty(program) as name:
        device = SerialBoardDevice(target, f"serial:{name}")
        with pytest.raises(DeviceError, match="no drives with the label NONE"):
            device.run([Job(artifact, "firmware")])


@pytest.fixture(scope="module")
def image(artifact: Path) -> FirmwareImage:
    return link(load_target("nucleo-l4r5zi"), [read_network(artifact)], emulated=False)


def test_command_lines(image: FirmwareImage) -> None:
    mcu = load_target("nucleo-l4r5zi").mcu
    assert mcu is not None
    request = FlashRequest(image, mcu, port="/dev/ttyACM0")
    assert openocd.command(request) == [
        "openocd",
        "-f",
        "board/st_nucleo_l4.cfg",
        "-c",
        f"program {{{image.elf}}} verify reset exit",
    ]
    assert pyocd.command(request)[:4] == ["pyocd", "flash", "--target", "stm32l4r5zitx"]
    with pytest.raises(DeviceError, match="esptool's name of the chip"):
        esptool.command(request)
    chip = mcu.model_copy(update={"flashing": Flashing(method="esptool", esptool_chip="esp32c3")})
    words = esptool.command(FlashRequest(image, chip, port="/dev/ttyUSB0"))
    assert words[-3:] == ["write-flash", "0x8000000", str(image.bin)]


needs_esptool = pytest.mark.skipif(find_spec("esptool") is None, reason="needs esptool")


def _esp32(target: Target) -> Target:
    return _with(
        target,
        flash=Region(origin=0x10000, bytes=0x100000),
        flashing=Flashing(method="esptool", esptool_chip="esp32c3"),
    )


@needs_esptool
def test_esptool_writes_an_image_and_has_its_digest_compared(image: FirmwareImage) -> None:
    target = _esp32(load_target("nucleo-l4r5zi"))
    with espressif_rom() as rom:
        done = flash_image(target, image, port=rom.port, ask=False, timeout_s=60)
        # the port is free again
        with open_port(rom.port, 115200):
            pass
    assert done.verified == ("read back",)
    written = image.bin.read_bytes()
    assert bytes(rom.flash[0x10000 : 0x10000 + len(written)]) == written
    assert rom.commands.count(DEFL_DATA) >= 1
    assert rom.commands[-1] != DEFL_DATA


@needs_esptool
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("chip", "This chip is ESP32-S3, not ESP32-C3"),
        ("digest", "MD5 of file does not match data in flash"),
        ("checksum", "Checksum error"),
        ("cut", r"esptool failed"),
        ("silent", "esptool did not end within 4 s: the image may be written in part"),
    ],
)
def test_flashing_by_esptool_that_goes_wrong(
    image: FirmwareImage, fault: Fault | Literal["chip"], message: str
) -> None:
    target = _esp32(load_target("nucleo-l4r5zi"))
    arguments = (ESP32_S3, "none") if fault == "chip" else (ESP32_C3, fault)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with espressif_rom(*arguments, after=1000) as rom:
        limit = 4 if fault == "silent" else 60
        with pytest.raises(DeviceError, match=message) as caught:
            flash_image(target, image, port=rom.port, ask=False, timeout_s=limit)
        assert caught.value.where == "target nucleo-l4r5zi"
        if fault != "cut":
            with open_port(rom.port, 115200):
                pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(shutil.which("openocd") is None, reason="needs openocd")
def test_openocd_without_a_board_is_a_clear_error(image: FirmwareImage) -> None:
    with pytest.raises(DeviceError, match="openocd failed"):
        flash_image(load_target("nucleo-l4r5zi"), image, timeout_s=60)


def test_a_missing_tool_is_named(
    image: FirmwareImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="pyocd is missing"):
        flash_image(
            _with(
                load_target("nucleo-l4r5zi"),
                flashing=Flashing(method="pyocd", pyocd_target="stm32l4r5zitx"),
            ),
            image,
        )


def test_a_usb_drive(image: FirmwareImage, tmp_path: Path) -> None:
    mcu = load_target("nucleo-l4r5zi").mcu
    assert mcu is not None
    drive = tmp_path / "NODE_L4R5ZI"
    drive.mkdir()
    request = FlashRequest(image, mcu)
    assert copy.flash(request, [tmp_path]) is False
    assert (drive / "firmware.bin").read_bytes() == image.bin.read_bytes()
    (drive / "FAIL.TXT").write_text("The interface firmware FAILED")
    with pytest.raises(DeviceError, match="could not write it: The interface"):
        copy.flash(request, [tmp_path])
    with pytest.raises(DeviceError, match="no drives"):
        copy.flash(request, [drive])


def test_addresses_of_serial_boards() -> None:
    assert port_of("serial:/dev/ttyACM0") == port_of("serial:///dev/ttyACM0") == "/dev/ttyACM0"
    assert port_of("serial:socket://desk:4000") == "socket://desk:4000"
    check_address("serial:/dev/ttyACM0")
    for wrong in ("serial:", "serial:COM3", "ssh:/dev/ttyACM0"):
        with pytest.raises(UsageError, match="not the address"):
            port_of(wrong)
    with pytest.raises(UsageError, match="needs a target"):
        SerialBoardDevice(None, "serial:/dev/ttyACM0")
