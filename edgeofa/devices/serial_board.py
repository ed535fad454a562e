"""A microcontroller board on a serial port, which is flashed, asked, and timed by its own counter.

Address: ``serial:/dev/ttyACM0``, ``serial:/dev/pts/3`` or ``serial:socket://host:port``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from filelock import FileLock, Timeout

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
from edgeofa.devices.mcu_jobs import BoardRun, check_board, images, perform, read_jobs
from edgeofa.devices.serial_port import open_port
from edgeofa.devices.serial_protocol import MAX_RUNS, BoardLink, clock_error
from edgeofa.errors import DeviceError, UsageError
from edgeofa.paths import cache_dir
from edgeofa.targets import Target

#: for one answer to ``run``, which may hold 64 inferences
_RUN_LIMIT_S = 120.0
#: crystals are within 0.01%, RC oscillators within 3%; what a wrong PLL gives is far off
_CLOCK_TOLERANCE = 0.05


class SerialBoardDevice(Device):
    """The board at ``address`` as a device of ``target``.

    Every call of ``run`` writes the image that holds its networks, unless the board runs that image
    already. Raises ``DeviceError``, and records nothing, when the board is of another kind, runs at
    another clock than its firmware believes, or does not answer in time.
    """

    evidence: Evidence = "measured"

    def __init__(self, target: Target | None, address: str):
        if target is None or target.mcu is None or target.core is None:
            raise UsageError("a serial board needs a target with a section [mcu]", where=address)
        self.name = address
        self._target = target
        self._mcu = target.mcu
        self._clock_hz = target.core.clock_hz
        self._port = port_of(address)
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
        name = "".join(c if c.isalnum() else "_" for c in self._port)
        lock = FileLock(cache_dir() / f"serial-{name}.lock", is_singleton=True)
        try:
            lock.acquire(timeout=60)
        except Timeout:
            raise DeviceError("another edgeofa uses this board", where=self.name) from None
        try:
            yield
        finally:
            lock.release()

    def run(
        self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
    ) -> list[Outcome]:
        if threads != 1:
            raise UsageError(f"{threads} threads on a core", where=self.name)
        networks, failures = read_jobs(jobs)
        found: dict[int, Outcome] = dict(failures)
        places = {id(job): number for number, job in enumerate(jobs)}
        with self.exclusive():
            for part in images(self._target, jobs, networks, emulated=False):
                if isinstance(part, Failure):
                    found[places[id(part.job)]] = part
                    continue
                found |= self._image(*part, jobs, networks)
                if progress is not None:
                    progress(len(part[1]))
        return [found[number] for number in range(len(jobs))]

    def _image(
        self,
        image: FirmwareImage,
        numbers: Sequence[int],
        jobs: Sequence[Job],
        networks: Mapping[int, CompiledNetwork],
    ) -> dict[int, Outcome]:
        if not self._runs(image):
            flash_image(self._target, image, port=self._port)
        found: dict[int, Outcome] = {}
        with open_port(self._port, self._mcu.serial.baud) as port:
            link = BoardLink(port, self._port)
            check_board(link.identify(), image, self._clock_hz, self.name)
            self._check_clock(link, image)
            for index, number in enumerate(numbers):
                job = jobs[number]
                runs = max(1, min(job.runs, MAX_RUNS))
                done = perform(link, index, job, networks[number], runs=runs, limit_s=_RUN_LIMIT_S)
                found[number] = self._measurement(job, done)
        return found

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
        )


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
