"""A microcontroller board that need not be there: its firmware under qemu-system-arm.

The emulated board runs the same kernels with the same flags as the real one, and is asked over the
same serial protocol. Its own timer counts instructions, so the latency is modelled from the blocks
that a plugin saw executed (see emulation/cortex_m.py), layer by layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import (
    CompiledNetwork,
    FirmwareImage,
    compiler_flags,
    find_compiler,
)
from edgeofa.devices.base import Device, Failure, Job, Measurement, Outcome, Progress
from edgeofa.devices.mcu_jobs import (
    BoardRun,
    Refused,
    check_board,
    images,
    numbers_in,
    perform,
    read_jobs,
)
from edgeofa.devices.native import build, source_digest
from edgeofa.devices.serial_port import open_port
from edgeofa.devices.serial_protocol import BoardLink
from edgeofa.emulation.cortex_m import CycleCost, cortex_model, cycle_cost, relative_error
from edgeofa.emulation.cortex_m_trace import Executed, Run, parse_runs
from edgeofa.emulation.mca import BlockPrices
from edgeofa.emulation.qemu import SYSTEM, require_qemu
from edgeofa.emulation.qemu_system import TRACE, emulated_board
from edgeofa.emulation.thumb import THUMB
from edgeofa.errors import DeviceError, FileFormatError, UsageError
from edgeofa.paths import cache_dir
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder

#: of the emulator, which does some 100 million counted instructions per second
_JOB_TIMEOUT_S = 300.0
#: an emulated board takes its time where many share a processor
_REPLY_S = 20.0
PLUGIN = "edgeofa-cortex-m"


class QemuBoardDevice(Device):
    """The emulated board of a target with an ``[mcu]`` section.

    ``job_timeout_s`` is the emulator's time for one inference. Raises ``SetupError`` when something
    is missing that ``edgeofa setup`` brings.
    """

    def __init__(self, target: Target, *, job_timeout_s: float = _JOB_TIMEOUT_S):
        if target.mcu is None or target.core is None:
            raise UsageError("the target is no microcontroller", where=f"target {target.name}")
        self.name = f"{target.name} (emulated)"
        self._target = target
        self._mcu = target.mcu
        self._core = target.core
        self._timeout_s = job_timeout_s
        self._model = cortex_model(target.mcu.cycle_model)
        self.evidence = self._model.evidence
        self._qemu = require_qemu(SYSTEM)
        self._plugin = build(PLUGIN, "host")
        self._prices: BlockPrices | None = None
        if self._model.engine == "mca":
            prices = cache_dir() / "prices" / "blocks.sqlite"
            self._prices = BlockPrices(target.mcu.cpu, prices, isa=THUMB)

    def identity(self) -> dict[str, str]:
        version, flags = find_compiler() or "no compiler", " ".join(compiler_flags(self._mcu))
        built = hashlib.sha256(f"{version} {flags}".encode()).hexdigest()[:16]
        facts = {
            "model": self._target.description,
            "core": f"{self._core.microarchitecture} at {self._core.clock_hz / 1e6:g} MHz, modelled"
            + ("" if self._model.validated else ", unvalidated"),
            "emulator": f"qemu-system-arm {self._qemu.version}, {self._mcu.emulation.machine}",
            "native_code": source_digest(),
            "cycle_model": self._model.identity,
            "compiler": version,
            "flags": flags,
            "firmware": f"{FirmwareBackend().version()} sha256:{built}",
        }
        return facts if self._prices is None else facts | {"block_prices": self._prices.identity}

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if threads != 1:
            raise UsageError(f"{threads} threads on a core", where=self.name)
        networks, failures = read_jobs(jobs)
        found: dict[int, Outcome] = dict(failures)
        if progress is not None and failures:
            progress(len(failures))
        with work_folder("boards") as folder:
            for part in images(self._target, networks.values(), emulated=True):
                done = self._part(part, jobs, networks, folder)
                found |= done
                if progress is not None:
                    progress(len(done))
        return [found[number] for number in range(len(jobs))]

    def _part(
        self,
        part: FirmwareImage | Refused,
        jobs: Sequence[Job],
        networks: Mapping[int, CompiledNetwork],
        folder: Path,
    ) -> dict[int, Outcome]:
        """Run an image's networks; one that kills the board costs only itself."""
        if isinstance(part, Refused):
            refused = [
                n for n, network in networks.items() if network.sha256 == part.network.sha256
            ]
            return {n: Failure(jobs[n], part.reason, part.too_large) for n in refused}
        numbers = numbers_in(part, networks)
        found: dict[int, Outcome] = {}
        while len(found) < len(numbers):
            rest = numbers[len(found) :]
            place = folder / f"{part.digest[:16]}-{rest[0]:06}"
            runs, broken = self._session(part, rest, jobs, networks, place)
            # the board has ended, and with it what it keeps a processor busy with
            traced = parse_runs(place / TRACE)
            for number, run in runs.items():
                job, wanted = jobs[number], 2 if jobs[number].want_output else 1
                mine, traced = traced[:wanted], traced[wanted:]
                if len(mine) != wanted:
                    raise FileFormatError("the trace lacks runs that were made", where=place)
                found[number] = self._measurement(job, run, mine)
            if broken is not None:
                number = numbers[len(found)]
                found[number] = Failure(jobs[number], broken)
        return found

    def _session(
        self,
        image: FirmwareImage,
        numbers: Sequence[int],
        jobs: Sequence[Job],
        networks: Mapping[int, CompiledNetwork],
        place: Path,
    ) -> tuple[dict[int, BoardRun], str | None]:
        """One start of the board: what ran, in order, and why the next one did not."""
        runs: dict[int, BoardRun] = {}
        with (
            emulated_board(self._mcu, place, elf=image.elf, plugin=self._plugin) as board,
            open_port(board.port, self._mcu.serial.baud) as port,
        ):
            link = BoardLink(port, board.port, reply_s=_REPLY_S)
            check_board(link.identify(), image, self._core.clock_hz, self.name)
            for number in numbers:
                job, network = jobs[number], networks[number]
                try:
                    runs[number] = perform(
                        link, image, job, network, runs=1, limit_s=self._timeout_s
                    )
                except DeviceError as error:
                    return runs, str(error)
        return runs, None

    def _cost(self, executed: Executed) -> CycleCost:
        mca = None if self._prices is None else self._prices.cycles
        return cycle_cost(executed, self._model, self._mcu.flash_timing, mca)

    def _measurement(self, job: Job, run: BoardRun, traced: Sequence[Run]) -> Measurement:
        cost = self._cost(traced[0].whole)
        cycle_ms = 1e3 / self._core.clock_hz
        parts = {"core": cost.core, "branches": cost.branches, "flash": cost.flash}
        layers = [self._cost(layer) for layer in traced[-1].layers]
        return Measurement(
            job=job,
            samples_ns=(cost.cycles * cycle_ms * 1e6,),
            evidence=self._model.evidence,
            model_error=relative_error(cost, self._model, self._mcu.flash_timing),
            output=run.output,
            parts_ms={name: cycles * cycle_ms for name, cycles in parts.items()},
            layers_ms=tuple(layer.cycles * cycle_ms for layer in layers),
            arena_bytes=run.memory.arena_used,
            stack_bytes=run.memory.stack_used,
            image_flash_bytes=run.flash_bytes,
            code_bytes=run.code_bytes,
            image_ram_bytes=run.ram_bytes,
        )
