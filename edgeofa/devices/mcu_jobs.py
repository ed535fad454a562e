"""Jobs on a microcontroller: networks into as few images as they fit, then run one by one.

Real and emulated boards differ in how an image gets there and in where the time comes from; all
else is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeofa.backends.firmware.link import (
    MAX_NETWORKS,
    CompiledNetwork,
    DoesNotFit,
    FirmwareImage,
    link,
    read_network,
)
from edgeofa.devices.base import Failure, Job
from edgeofa.devices.serial_protocol import BoardInfo, BoardLink, MemoryUse
from edgeofa.errors import DeviceError, EdgeofaError, SetupError, UsageError
from edgeofa.targets import Target

#: of the board's flash for weights; code is not counted before it is linked
_WEIGHT_SHARE = 0.75
#: code that a network's own inner loops take, about
_CODE_BYTES = 6000
_SEED = 1


@dataclass(frozen=True)
class BoardRun:
    """One network's inferences: cycles by the board's own timer, output, memory; and what the image
    that they ran in takes, stack included."""

    cycles: tuple[int, ...]
    layer_cycles: tuple[int, ...]
    output: NDArray[Any] | None
    memory: MemoryUse
    flash_bytes: int
    code_bytes: int
    ram_bytes: int


def read_jobs(jobs: Sequence[Job]) -> tuple[dict[int, CompiledNetwork], dict[int, Failure]]:
    """The networks of ``jobs`` by number, and the jobs that have none that can run."""
    networks: dict[int, CompiledNetwork] = {}
    failures: dict[int, Failure] = {}
    for number, job in enumerate(jobs):
        if job.backend != "firmware":
            raise UsageError(
                f"a microcontroller runs no artifact of the back end {job.backend}",
                hint="--backend firmware",
            )
        try:
            network = read_network(job.path)
        except EdgeofaError as error:
            failures[number] = Failure(job, str(error))
            continue
        if job.input is not None and job.input.nbytes != network.input_bytes:
            reason = f"an input of {job.input.nbytes} bytes, it takes {network.input_bytes}"
            failures[number] = Failure(job, reason)
        else:
            networks[number] = network
    return networks, failures


@dataclass(frozen=True)
class Refused:
    """A network that no image can hold (``too_large``), or that the compiler does not take."""

    network: CompiledNetwork
    reason: str
    too_large: bool = False


def images(
    target: Target, networks: Iterable[CompiledNetwork], *, emulated: bool
) -> Iterator[FirmwareImage | Refused]:
    """As few images as hold all ``networks``, each network once.

    The order of ``networks`` makes no difference, so that the same ones give the same images.
    """
    distinct = {network.sha256: network for network in networks}
    pending = _partition(target, [distinct[digest] for digest in sorted(distinct)])
    while pending:
        group = pending.pop(0)
        try:
            yield link(target, group, emulated=emulated)
        except SetupError:
            raise
        except DeviceError as error:
            if len(group) == 1:
                yield Refused(group[0], str(error), isinstance(error, DoesNotFit))
            elif isinstance(error, DoesNotFit):
                middle = len(group) // 2
                pending = [group[:middle], group[middle:], *pending]
            else:
                # one of them is to blame
                pending = [[network] for network in group] + pending


def _partition(target: Target, networks: Sequence[CompiledNetwork]) -> list[list[CompiledNetwork]]:
    """Groups that one flash should hold."""
    if target.mcu is None:
        raise UsageError("not a microcontroller: no section [mcu]", where=f"target {target.name}")
    room = target.mcu.flash.bytes * _WEIGHT_SHARE
    groups: list[list[CompiledNetwork]] = []
    left = 0.0
    for network in networks:
        size = network.weight_bytes + _CODE_BYTES
        if not groups or size > left or len(groups[-1]) == MAX_NETWORKS:
            groups.append([])
            left = room
        groups[-1].append(network)
        left -= size
    return groups


def numbers_in(image: FirmwareImage, networks: Mapping[int, CompiledNetwork]) -> list[int]:
    """Numbers of the jobs whose networks the image holds."""
    held = set(image.networks)
    return [number for number, network in networks.items() if network.sha256 in held]


def check_board(found: BoardInfo, image: FirmwareImage, clock_hz: float, where: str) -> None:
    """``DeviceError`` unless the board runs this very image, at the clock of the target."""
    if found.target != image.target:
        raise DeviceError(
            f"the firmware there is for {found.target[:40]}, not for {image.target}",
            where=where,
            hint="is it the right port? then: edgeofa flash",
        )
    if found.digest != image.digest:
        raise DeviceError(
            f"a stale firmware runs there ({found.digest[:16]}…, not {image.digest[:16]}…)",
            where=where,
            hint="edgeofa flash",
        )
    if found.clock_hz != round(clock_hz):
        raise DeviceError(
            f"the firmware runs at {found.clock_hz / 1e6:g} MHz, the target file says "
            f"{clock_hz / 1e6:g} MHz",
            where=where,
            hint="correct clock_hz in the target file, or flash again",
        )
    if found.networks != len(image.networks):
        raise DeviceError(
            f"{found.networks} networks in it instead of {len(image.networks)}", where=where
        )


def perform(
    link_: BoardLink,
    image: FirmwareImage,
    job: Job,
    network: CompiledNetwork,
    *,
    runs: int,
    limit_s: float,
) -> BoardRun:
    """Run ``network`` of ``image``: once with the job's input for its output, then ``runs`` times
    for time, and once more for the layers where an output is wanted.

    A network overwrites its input, so the runs after the first one compute on what it left; no
    kernel's time depends on values.
    """
    index = image.networks.index(network.sha256)
    info = link_.select(index)
    if (info.input_bytes, info.output_bytes) != (network.input_bytes, network.output_bytes):
        raise DeviceError(f"network {index} has other sizes there than in the image")
    if job.input is None:
        link_.fill_input(_SEED)
    else:
        link_.set_input(np.ascontiguousarray(job.input).tobytes())
    output: NDArray[Any] | None = None
    cycles: tuple[int, ...] = link_.run(1, limit_s=limit_s)
    if job.want_output:
        output = np.frombuffer(link_.output(network.output_bytes), np.int8)
    memory = link_.memory()
    if runs > 1:
        cycles = link_.run(runs, limit_s=limit_s)
    layers: tuple[int, ...] = ()
    if job.want_output:
        link_.run(1, layers=True, limit_s=limit_s)
        layers = link_.layer_cycles()
    code = image.code_bytes[index]
    return BoardRun(cycles, layers, output, memory, image.flash_bytes, code, image.ram_bytes)
