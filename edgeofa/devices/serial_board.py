"""A microcontroller board on a serial port, which is flashed, asked, and timed by its own counter.

Address: ``serial:/dev/ttyACM0``, ``serial:/dev/pts/3`` or ``serial:socket://host:port``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import (
    CompiledNetwork,
    FirmwareImage,
    compiler_flags,
    find_compiler,
)
from edgeofa.devices.base import (
    Device,
    DeviceState,
    Evidence,
    Failure,
    Job,
    Measurement,
    Outcome,
    Progress,
)
from edgeofa.devices.flash.place import flash_image, wait_for
from edgeofa.devices.mcu_jobs import (
    BoardRun,
    Refused,
    check_board,
    images,
    numbers_in,
    perform,
    read_jobs,
)
from edgeofa.devices.serial_port import alone_on, open_port
from edgeofa.devices.serial_protocol import MAX_RUNS, BoardLink, clock_error
from edgeofa.errors import DeviceError, UsageError
from edgeofa.targets import Target

#: for one answer to ``run``, which may hold 64 inferences
_RUN_LIMIT_S = 120.0
#: crystals are within 0.01%, RC oscillators within 3%; what a wrong PLL gives is far off
_CLOCK_TOLERANCE = 0.05


class SerialBoardDevice(Device):
    """The board at ``address`` as a device of ``target``.

    ``run`` writes an image that holds all its networks, unless the one that was written last does.
    Raises ``DeviceError``, and records nothing, when the board is of another kind, runs at another
    clock than its firmware believes, or does not answer in time and cannot be flashed again.
    """

    evidence: Evidence = "measured"

    def __init__(self, target: Target | None, address: str, *, run_limit_s: float = _RUN_LIMIT_S):
        if target is None or target.mcu is None or target.core is None:
            raise UsageError("a serial board needs a target with a section [mcu]", where=address)
        self.name = address
        self._target = target
        self._mcu = target.mcu
        self._clock_hz = target.core.clock_hz
        self._port = port_of(address)
        self._limit_s = run_limit_s
        #: what was flashed last: rounds of a measurement ask for the same networks again
        self._image: FirmwareImage | None = None
        #: networks that were asked for together, by digest
        self._known: dict[str, CompiledNetwork] = {}
        #: images whose clock was compared with ours
        self._checked: set[str] = set()

    @staticmethod
    def check_address(address: str) -> None:
        """``UsageError`` for text that is not the address of a serial board."""
        port_of(address)

    def identity(self) -> dict[str, str]:
        version = find_compiler() or "no compiler"
        return {
            "model": self._target.description,
            "core": f"{self._mcu.cpu} at {self._clock_hz / 1e6:g} MHz",
            "port": self._port,
            "compiler": version,
            "flags": " ".join(compiler_flags(self._mcu)),
            "kernels": FirmwareBackend().version(),
        }

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with alone_on(self._port):
            yield

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if threads != 1:
            raise UsageError(f"{threads} threads on a core", where=self.name)
        networks, failures = read_jobs(jobs)
        found: dict[int, Outcome] = dict(failures)
        with self.exclusive():
            for part in self._images(networks):
                if isinstance(part, Refused):
                    digest = part.network.sha256
                    refused = [n for n, network in networks.items() if network.sha256 == digest]
                    found |= {n: Failure(jobs[n], part.reason, part.too_large) for n in refused}
                else:
                    self._image = part
                    self._collect(part, _held(part, networks), jobs, found, progress)
        return [found[number] for number in range(len(jobs))]

    def _images(self, networks: Mapping[int, CompiledNetwork]) -> list[FirmwareImage | Refused]:
        """Images that hold ``networks``: the board's own if it does, else one that also holds what
        was asked for before, because rounds of a measurement ask for some and then for all."""
        wanted = {network.sha256: network for network in networks.values()}
        if self._image is not None and wanted.keys() <= set(self._image.networks):
            return [self._image]
        if self._known.keys() & wanted.keys():
            known = self._known | wanted
            parts = list(images(self._target, known.values(), emulated=False))
            if sum(isinstance(part, FirmwareImage) for part in parts) == 1:
                self._known = known
                return parts
        self._known = wanted
        return list(images(self._target, wanted.values(), emulated=False))

    def _collect(
        self,
        image: FirmwareImage,
        networks: Mapping[int, CompiledNetwork],
        jobs: Sequence[Job],
        found: dict[int, Outcome],
        progress: Progress | None,
    ) -> None:
        """Run what ``image`` holds. A network that hangs the board costs itself; the board is
        flashed again, which resets it, and goes on; where that fails, nothing is recorded."""
        pending = dict(networks)
        while pending:
            if not self._runs(image):
                flash_image(self._target, image, port=self._port)
            with open_port(self._port, self._mcu.serial.baud) as port:
                link = BoardLink(port, self._port)
                check_board(link.identify(), image, self._clock_hz, self.name)
                self._check_clock(link, image)
                for number in list(pending):
                    job, network = jobs[number], pending.pop(number)
                    runs = max(1, min(job.runs, MAX_RUNS))
                    try:
                        done = perform(link, image, job, network, runs=runs, limit_s=self._limit_s)
                    except DeviceError as error:
                        found[number] = Failure(job, str(error))
                        break
                    found[number] = self._measurement(job, done)
                    if progress is not None:
                        progress(1)

    def _runs(self, image: FirmwareImage) -> bool:
        """Whether the board runs this image already; what else it does is flashing's affair."""
        try:
            wait_for(image, self._port, self._mcu.serial.baud, self._clock_hz, limit_s=0.0)
        except DeviceError:
            return False
        return True

    def _check_clock(self, link: BoardLink, image: FirmwareImage) -> None:
        if image.digest in self._checked or not self._mcu.serial.check_clock:
            return
        error = clock_error(link, self._clock_hz)
        if abs(error) > _CLOCK_TOLERANCE:
            raise DeviceError(
                f"the board's clock is {1 + error:.2f} times the {self._clock_hz / 1e6:g} MHz that "
                "its firmware believes in",
                where=self.name,
                hint="is it another board, or another crystal than the target file says?",
            )
        self._checked.add(image.digest)

    def _measurement(self, job: Job, run: BoardRun) -> Measurement:
        cycle_ns = 1e9 / self._clock_hz
        state = DeviceState(clock_hz=self._clock_hz)
        return Measurement(
            job=job,
            samples_ns=tuple(cycles * cycle_ns for cycles in run.cycles),
            evidence="measured",
            output=run.output,
            before=state,
            after=state,
            layers_ms=tuple(cycles * cycle_ns / 1e6 for cycles in run.layer_cycles),
            arena_bytes=run.memory.arena_used,
            stack_bytes=run.memory.stack_used,
            image_flash_bytes=run.flash_bytes,
            code_bytes=run.code_bytes,
            image_ram_bytes=run.ram_bytes,
        )


def _held(
    image: FirmwareImage, networks: Mapping[int, CompiledNetwork]
) -> dict[int, CompiledNetwork]:
    return {number: networks[number] for number in numbers_in(image, networks)}


def port_of(address: str) -> str:
    """The port in an address; ``UsageError`` for anything else."""
    kind, _, port = address.partition(":")
    if kind != "serial" or not port.startswith(("/", "socket://")):
        raise UsageError(
            f"not the address of a serial board: {address[:80]!r}",
            hint="serial:/dev/ttyACM0, or serial:socket://host:port",
        )
    # serial:///dev/ttyACM0 is the same as serial:/dev/ttyACM0
    return "/" + port.lstrip("/") if port.startswith("/") else port
