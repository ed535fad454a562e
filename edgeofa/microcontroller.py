"""The ``[mcu]`` section of a target file: memory map, core, serial line, flashing, emulation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeofa.intervals import DataModel, Interval

KernelLevel = Literal["portable", "dsp", "mve"]
CycleModelName = Literal["cortex-m4", "cortex-m33", "cortex-m7", "cortex-m55"]
FlashMethod = Literal["gdb", "stm32flash", "openocd", "pyocd", "esptool", "copy"]

_NAME = r"^[a-z0-9][a-z0-9_.-]*$"


class Region(DataModel):
    """A piece of the memory map."""

    origin: int = Field(ge=0, lt=1 << 32)
    bytes: int = Field(gt=0, le=1 << 30)

    @model_validator(mode="after")
    def _addressable(self) -> Region:
        if self.origin + self.bytes > 1 << 32:
            raise ValueError("origin + bytes is above 4 GiB")
        return self


class FlashTiming(DataModel):
    """Data cache in front of the flash, fully associative, and what a miss costs.

    ``code_lines`` is the instruction cache of the same line size; its misses widen the interval
    of a modelled latency and are not part of the latency.
    """

    line_bytes: int = Field(ge=4, le=256)
    data_lines: int = Field(ge=1, le=4096)
    code_lines: int = Field(default=0, ge=0, le=4096)
    miss_cycles: float = Field(gt=0)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _power_of_two(self) -> FlashTiming:
        if self.line_bytes & (self.line_bytes - 1):
            raise ValueError("line_bytes is a power of two")
        return self


class SerialLine(DataModel):
    """The port that the board's firmware answers on: 8 data bits, no parity, one stop bit."""

    baud: int = Field(ge=1200, le=12_000_000)
    #: what the operating system calls it, where it is always the same
    port: str | None = Field(default=None, min_length=1, max_length=256)
    #: compare the board's clock with our own; an emulator's runs at its own speed
    check_clock: bool = True


class Flashing(DataModel):
    """How an image is written to the board, and what each method needs."""

    method: FlashMethod
    #: gdb: a server that runs already, such as ``localhost:3333``
    gdb_server: str | None = Field(default=None, pattern=r"^[\w.-]*:[0-9]{1,5}$")
    #: openocd: configuration files in order
    openocd_files: tuple[str, ...] = Field(default=(), max_length=8)
    #: pyocd: its name of the target
    pyocd_target: str | None = Field(default=None, pattern=_NAME)
    #: esptool: its name of the chip
    esptool_chip: str | None = Field(default=None, pattern=_NAME)
    #: copy: the label of the board's USB drive
    volume: str | None = Field(default=None, pattern=r"^[\w-]{1,32}$")


class BoardEmulation(DataModel):
    """The board of qemu-system-arm with the same core."""

    #: QEMU's ``-M``
    machine: str = Field(pattern=_NAME)
    flash: Region
    ram: Region
    #: base address of a CMSDK UART
    uart: int = Field(ge=0, lt=1 << 32)
    #: clock of SysTick on that board
    clock_hz: int = Field(gt=0)
    #: QEMU's ``-icount shift``: an instruction takes 2**shift ns, a power of two near its clock
    icount_shift: int = Field(ge=0, le=10)


class Microcontroller(DataModel):
    """What firmware for a board needs."""

    #: the board's file in ``targets/runtime/mcu/boards`` without ``.c``; none: emulated only
    board: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$")
    #: gcc's ``-mcpu`` and ``-mfpu``
    cpu: str = Field(pattern=_NAME)
    fpu: str | None = Field(default=None, pattern=_NAME)
    kernels: KernelLevel
    flash: Region
    ram: Region
    stack_bytes: int = Field(ge=1024, le=1 << 20)
    flash_wait_states: int = Field(ge=0, le=15)
    flash_timing: FlashTiming | None = None
    #: constants of the cycle model, see docs/firmware.md
    cycle_model: CycleModelName
    #: watts of the board while it computes, which hardly move with the network
    active_w: Interval | None = None
    serial: SerialLine
    flashing: Flashing
    emulation: BoardEmulation
