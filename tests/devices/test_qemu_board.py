"""Microcontroller boards under qemu-system-arm: the whole chain from a graph to a latency."""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sample_graphs import images, int8_graph

from edgeofa.backends.firmware import link as firmware_link
from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import DoesNotFit, link, read_network
from edgeofa.devices.base import Failure, Job, Measurement
from edgeofa.devices.qemu_board import QemuBoardDevice
from edgeofa.devices.registry import device_for
from edgeofa.errors import FileFormatError, SetupError, UsageError
from edgeofa.graph.reference import quantize_array, run
from edgeofa.targets import load_target

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(
        not all(map(shutil.which, ("qemu-system-arm", "arm-none-eabi-gcc"))),
        reason="needs qemu-system-arm and gcc-arm-none-eabi",
    ),
]
TARGETS = ("nucleo-l4r5zi", "nucleo-h7a3zi", "nrf5340", "stm32f746-disco", "corstone-300")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    backend = FirmwareBackend()
    found = {}
    for case in ("network", "dense_after_mean"):
        found[case] = backend.compile(int8_graph(case), folder / f"{case}.zip").path
    return found


@pytest.mark.parametrize("name", [n for n in TARGETS if n != "stm32f746-disco"])
def test_outputs_are_the_graphs_own_and_times_are_modelled(
    name: str, artifacts: dict[str, Path]
) -> None:
    if name == "nucleo-h7a3zi" and shutil.which("llvm-mca-19") is None:
        pytest.skip("needs llvm-19")
    device = device_for(load_target(name))
    assert isinstance(device, QemuBoardDevice)
    jobs, expected = [], []
    for case, path in artifacts.items():
        graph = int8_graph(case)
        quantization = graph.input_tensor.quantization
        assert quantization is not None
        image = quantize_array(images(graph.input_tensor.shape, 1), quantization)
        jobs.append(Job(path, "firmware", input=image, want_output=True))
        expected.append(run(graph, image))
    finished: list[int] = []
    outcomes = device.run(jobs, progress=finished.append)
    assert sum(finished) == len(jobs)
    for outcome, wanted in zip(outcomes, expected, strict=True):
        assert isinstance(outcome, Measurement), outcome.reason
        assert outcome.output is not None
        np.testing.assert_array_equal(outcome.output, wanted.ravel())
        assert outcome.evidence == ("estimated" if name == "corstone-300" else "modelled")
        assert outcome.model_error >= 0.05
        total_ms = outcome.samples_ns[0] / 1e6
        assert sum(outcome.parts_ms.values()) == pytest.approx(total_ms)
        # what is not in a layer is the call of each
        assert 0.5 * total_ms < sum(outcome.layers_ms) <= total_ms * 1.05
        assert outcome.stack_bytes is not None
        assert 0 < outcome.stack_bytes < 8192


def test_counts_do_not_move(artifacts: dict[str, Path]) -> None:
    """Alone, in another image, and again: the same number to the last digit."""
    device = QemuBoardDevice(load_target("nucleo-l4r5zi"))
    jobs = [Job(path, "firmware") for path in artifacts.values()]
    first = [o.samples_ns for o in device.run(jobs) if isinstance(o, Measurement)]
    again = [o.samples_ns for o in device.run(jobs) if isinstance(o, Measurement)]
    assert first == again
    (alone,) = device.run([jobs[0]])
    assert isinstance(alone, Measurement)
    # another place in flash shares other lines with its neighbours
    assert alone.samples_ns[0] == pytest.approx(first[0][0], rel=0.01)


def test_a_network_that_hangs_costs_only_itself(artifacts: dict[str, Path], tmp_path: Path) -> None:
    hanging = tmp_path / "hanging.zip"
    with zipfile.ZipFile(artifacts["dense_after_mean"]) as source:
        files = {name: source.read(name) for name in source.namelist()}
    text = files["edgeofa_network.c"].decode()
    files["edgeofa_network.c"] = text.replace(
        "int edgeofa_run(void)\n{", "int edgeofa_run(void)\n{\n    for (;;) {}"
    ).encode()
    with zipfile.ZipFile(hanging, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    broken = tmp_path / "broken.zip"
    files["edgeofa_network.c"] = b"this is no C"
    with zipfile.ZipFile(broken, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    good = artifacts["dense_after_mean"]
    device = QemuBoardDevice(load_target("nucleo-l4r5zi"), job_timeout_s=2.0)
    outcomes = device.run([Job(p, "firmware") for p in (hanging, good, broken, good)])
    assert [isinstance(o, Failure) for o in outcomes] == [True, False, True, False]
    reasons = [o.reason for o in outcomes if isinstance(o, Failure)]
    assert "no answer to run within 2 s" in reasons[0]
    assert "arm-none-eabi-gcc failed" in reasons[1]


def test_bad_jobs(artifacts: dict[str, Path], tmp_path: Path) -> None:
    device = QemuBoardDevice(load_target("nucleo-l4r5zi"))
    path = artifacts["dense_after_mean"]
    (outcome,) = device.run([Job(path, "firmware", input=np.zeros(5, np.int8))])
    assert isinstance(outcome, Failure)
    assert "an input of 5 bytes" in outcome.reason
    (tmp_path / "noise.zip").write_bytes(b"PK\3\4noise")
    (outcome,) = device.run([Job(tmp_path / "noise.zip", "firmware")])
    assert isinstance(outcome, Failure)
    assert "not a compiled network" in outcome.reason
    with pytest.raises(UsageError, match="runs no artifact of the back end litert"):
        device.run([Job(path, "litert")])
    with pytest.raises(UsageError, match="2 threads"):
        device.run([Job(path, "firmware")], threads=2)


def test_a_missing_compiler_is_nobodys_failure(
    artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = QemuBoardDevice(load_target("nucleo-l4r5zi"))
    monkeypatch.setattr(firmware_link, "find_compiler", lambda: None)
    with pytest.raises(SetupError, match="arm-none-eabi-gcc is missing"):
        device.run([Job(path, "firmware") for path in artifacts.values()])


def test_an_archive_that_writes_elsewhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.c", "")
    with pytest.raises(FileFormatError, match="a file"):
        read_network(path)


def test_a_damaged_archive_is_refused(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """Whatever the damage, there is a network or an error of edgeofa's own."""
    good, rng, refused = artifacts["dense_after_mean"].read_bytes(), random.Random(0), 0
    for _ in range(100):
        content = bytearray(good)
        for _ in range(3):
            # half of them in the directory at the end
            last = len(content) - 1
            content[rng.choice([rng.randint(0, last), rng.randint(last - 300, last)])] = (
                rng.randrange(256)
            )
        (tmp_path / "damaged.zip").write_bytes(content)
        try:
            read_network(tmp_path / "damaged.zip")
        except FileFormatError:
            refused += 1
    assert refused > 50


def test_a_folder_of_sources_is_the_same_network(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    path = artifacts["dense_after_mean"]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert read_network(tmp_path) == read_network(path)
    (tmp_path / "edgeofa_network.h").unlink()
    with pytest.raises(FileFormatError, match="not a compiled network"):
        read_network(tmp_path)


def test_what_does_not_fit_says_by_how_many_bytes(artifacts: dict[str, Path]) -> None:
    network = read_network(artifacts["network"])
    target = load_target("nucleo-l4r5zi")
    assert target.mcu is not None
    fitting = link(target, [network], emulated=True)
    for name, used in (("flash", fitting.flash_bytes), ("ram", fitting.ram_bytes)):
        region = getattr(target.mcu, name)
        small = region.model_copy(update={"bytes": used - 1000})
        mcu = target.mcu.model_copy(update={name: small})
        with pytest.raises(DoesNotFit) as caught:
            link(target.model_copy(update={"mcu": mcu}), [network], emulated=True)
        assert 900 <= caught.value.over_bytes <= 1100
        assert ("flash" if name == "flash" else "RAM") in str(caught.value)


def test_images_are_reproducible(
    artifacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [read_network(p) for p in artifacts.values()]
    built = []
    for place in ("one", "two"):
        monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / place))
        image = link(load_target("nucleo-l4r5zi"), networks, emulated=False)
        built.append((image.digest, image.elf.read_bytes(), image.bin.read_bytes()))
    assert built[0] == built[1]


@pytest.mark.parametrize("name", [n for n in TARGETS if n != "corstone-300"])
def test_images_of_real_boards_link_within_their_memory(
    name: str, artifacts: dict[str, Path]
) -> None:
    target = load_target(name)
    assert target.mcu is not None
    image = link(target, [read_network(artifacts["network"])], emulated=False)
    assert image.flash_bytes <= target.mcu.flash.bytes
    assert image.bin.stat().st_size == pytest.approx(image.flash_bytes, abs=64)
    # the first word of the image is the stack's top, the second the reset code, with its Thumb bit
    stack, reset = np.frombuffer(image.bin.read_bytes()[:8], "<u4")
    ram, flash = target.mcu.ram, target.mcu.flash
    assert ram.origin < stack <= ram.origin + ram.bytes
    assert flash.origin < reset < flash.origin + flash.bytes
    assert reset % 2 == 1


def test_the_emulated_only_target_has_no_real_image(artifacts: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="emulated only"):
        link(load_target("corstone-300"), [read_network(artifacts["network"])], emulated=False)
