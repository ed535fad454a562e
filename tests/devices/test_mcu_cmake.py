"""Firmware by hand: CMake reads core and memory map from the same target file."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from sample_graphs import int8_graph

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import link, read_network
from edgeofa.paths import data_dir
from edgeofa.targets import load_target

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("cmake", "make", "arm-none-eabi-gcc"))),
    reason="needs cmake, make and gcc-arm-none-eabi",
)


def test_cmake_builds_the_firmware_of_a_network(tmp_path: Path) -> None:
    name = "nucleo-l4r5zi"
    artifact = FirmwareBackend().compile(int8_graph("dense_after_mean"), tmp_path / "net.zip").path
    with zipfile.ZipFile(artifact) as archive:
        archive.extractall(tmp_path / "network")
    root, build = data_dir(), tmp_path / "build"
    configure = ["cmake", "-G", "Unix Makefiles", "-S", str(root), "-B", str(build)]
    configure.append(
        f"-DCMAKE_TOOLCHAIN_FILE={root}/firmware_scripts/toolchains/arm-none-eabi.cmake"
    )
    configure += [f"-DEDGEOFA_MCU={name}", f"-DEDGEOFA_NETWORK={tmp_path / 'network'}"]
    for command in (configure, ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "warning" not in done.stderr.lower()
    # the same code at the same addresses as edgeofa's own build; its digest is another
    by_hand = (build / "firmware.bin").stat().st_size
    own = link(load_target(name), [read_network(artifact)], emulated=False)
    assert by_hand == pytest.approx(own.bin.stat().st_size, abs=400)


def test_a_folder_without_a_network_is_named(tmp_path: Path) -> None:
    root = data_dir()
    command = ["cmake", "-G", "Unix Makefiles", "-S", str(root), "-B", str(tmp_path / "build")]
    command.append(f"-DCMAKE_TOOLCHAIN_FILE={root}/firmware_scripts/toolchains/arm-none-eabi.cmake")
    command += ["-DEDGEOFA_MCU=nucleo-l4r5zi", f"-DEDGEOFA_NETWORK={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "EDGEOFA_NETWORK is not a folder" in done.stderr
