"""Microcontroller targets: their files, what they need, energy, and stale tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from table_samples import make_table

from edgeofa.devices.registry import device_kinds
from edgeofa.emulation.cortex_m import cortex_model, model_names
from edgeofa.emulation.energy import energy_mj
from edgeofa.errors import FileFormatError
from edgeofa.setup import requirements
from edgeofa.targets import load_target, target_path

MCUS = ("nucleo-l4r5zi", "nucleo-h7a3zi", "nrf5340", "stm32f746-disco", "corstone-300")


@pytest.mark.parametrize("name", MCUS)
def test_shipped_targets_are_whole(name: str) -> None:
    target = load_target(name)
    mcu = target.mcu
    assert mcu is not None
    assert target.memory is not None
    assert target.core is not None
    assert target.device == "qemu-board"
    assert target.backends == ("firmware",)
    assert (mcu.flash.bytes, mcu.ram.bytes) == (
        target.memory.flash_bytes,
        target.memory.ram_bytes,
    )
    assert mcu.cpu == target.core.microarchitecture == mcu.cycle_model
    assert mcu.cycle_model in model_names()
    # an emulated board holds what the real one holds
    assert mcu.emulation.flash.bytes >= mcu.flash.bytes
    assert mcu.emulation.ram.bytes >= mcu.ram.bytes
    # QEMU's clock is a power of two near the board's
    assert 0.5 < mcu.emulation.clock_hz * 2**mcu.emulation.icount_shift / 1e9 < 2


def test_how_a_board_is_reached_changes_no_number(tmp_path: Path) -> None:
    text = target_path("nucleo-l4r5zi").read_text()
    same, other = tmp_path / "same.toml", tmp_path / "other.toml"
    same.write_text(text.replace("baud = 115200", "baud = 921600").replace('"openocd"', '"gdb"'))
    other.write_text(text.replace("miss_cycles = 24", "miss_cycles = 12"))
    assert load_target(str(same)).digest == load_target("nucleo-l4r5zi").digest
    assert load_target(str(other)).digest != load_target("nucleo-l4r5zi").digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('cycle_model = "cortex-m4"', 'cycle_model = "cortex-m5"', "cycle_model"),
        ("line_bytes = 32", "line_bytes = 33", "power of two"),
        ("origin = 0x08000000", "origin = 0xFFFFFFFF", "above 4 GiB"),
        ('method = "openocd"', 'method = "carrier pigeon"', "method"),
        ("baud = 115200", "baud = 0", "baud"),
        ("stack_bytes = 8192", "stack_byte = 8192", "did you mean stack_bytes"),
    ],
)
def test_mistakes_are_named_with_their_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "board.toml"
    text = target_path("nucleo-l4r5zi").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=message) as caught:
        load_target(str(path))
    assert "line " in str(caught.value)


def test_a_board_needs_its_section(tmp_path: Path) -> None:
    text = target_path("nucleo-l4r5zi").read_text()
    path = tmp_path / "board.toml"
    path.write_text(text[: text.index("[mcu]")])
    with pytest.raises(FileFormatError, match="needs the sections"):
        load_target(str(path))


def test_only_these_targets_need_their_tools() -> None:
    needed = {r.name for r in requirements(load_target("nucleo-l4r5zi"))}
    assert {"arm-none-eabi-gcc", "qemu-system-arm (4.2 to 8.1)"} <= needed
    assert "llvm-mca" in {r.name for r in requirements(load_target("nucleo-h7a3zi"))}
    linux = {r.name for r in requirements(load_target("rpi4"))}
    assert not {"arm-none-eabi-gcc", "qemu-system-arm (4.2 to 8.1)"} & linux
    assert {"qemu-board", "serial"} <= set(device_kinds())


def test_energy_is_power_times_time() -> None:
    energy = energy_mj(load_target("nucleo-l4r5zi"), 100.0)
    assert energy is not None
    # published: 165.13 ms and 6.92 mJ
    published = energy_mj(load_target("nucleo-l4r5zi"), 165.13)
    assert published is not None
    assert published.low_mj < 6.91938 < published.high_mj
    assert energy.mj == pytest.approx(4.3)
    assert energy.low_mj < energy.mj < energy.high_mj
    assert energy_mj(load_target("nrf5340"), 100.0) is None


def test_tables_of_other_kernels_or_another_model_are_stale() -> None:
    import dataclasses

    from edgeofa.backends.registry import get_backend
    from edgeofa.tables.freshness import staleness

    target = load_target("nucleo-l4r5zi")
    fresh = dataclasses.replace(
        make_table().header,
        target=target.name,
        target_digest=target.digest,
        backend="firmware",
        runtime_version=get_backend("firmware").version(),
        device={"cycle_model": cortex_model("cortex-m4").identity},
    )
    assert staleness(fresh, target) is None
    kernels = dataclasses.replace(fresh, runtime_version="0123456789ab")
    assert "other kernels" in str(staleness(kernels, target))
    model = dataclasses.replace(fresh, device={"cycle_model": "cortex-m4 0123"})
    assert "cycle model" in str(staleness(model, target))
