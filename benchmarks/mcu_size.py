"""How much flash and RAM does firmware take? Each part of it, beside published figures.

    python benchmarks/mcu_size.py [--json FILE] [--model FILE.tflite ...] [--subnet TEXT]
                                  [--target NAME ...]

Without ``--model``, the two int8 models of MLPerf Tiny and one subnet of cifar_micro with random
weights (which take the memory of trained ones). Each is compiled and linked for every
microcontroller as a whole image: network, kernels, serial protocol, board and C library. The four
real boards' images are for the boards themselves and run nowhere here; sizes need no run.

``tflite-micro`` says what the interpreter itself allocates for the same model, on this machine,
whose pointers are twice as long as a microcontroller's: an upper bound of TFLM's arena.

The requirement: flash of ResNet8's whole image, and its RAM but for the stack, below the least that
X-CUBE-AI is published to take for network and runtime alone. Exits with 1 when it is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcu_speed
import numpy as np

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import link, read_network
from edgeofa.backends.litert import LiteRtBackend
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.importers.tflite import import_tflite
from edgeofa.graph.ir import Graph
from edgeofa.graph.ops import macs
from edgeofa.graph.quantize import quantize_with
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.spaces import load_space
from edgeofa.targets import load_target

TARGETS = ("nucleo-l4r5zi", "nucleo-h7a3zi", "stm32f746-disco", "nrf5340", "corstone-300")
SUBNET = "cifar_micro@32/3x3,3x3/5x3,5x3/5x3,5x3/3x3,3x3,3x3"
_KIB = 1024


@dataclass(frozen=True)
class Published:
    """Somebody else's figures in bytes; None where the source does not say."""

    runtime: str
    series: str
    weights: int
    code: int
    activations: int
    other_ram: int
    source: str

    @property
    def flash(self) -> int:
        return self.weights + self.code

    @property
    def ram(self) -> int:
        return self.activations + self.other_ram


def _kib(value: float) -> int:
    return round(value * _KIB)


_ZOO = "STMicroelectronics/stm32ai-modelzoo, image_classification/resnet/README.md, ResNet v1 8 tfs"
#: by input elements and MACs. ST's ResNet v1 8 is MLPerf Tiny's architecture, trained by ST; the
#: network and the runtime library alone, with input and output in the activations
PUBLISHED = {
    (32 * 32 * 3, 12_501_632): (
        Published(
            "X-CUBE-AI 8.1.0", "STM32H7", _kib(76.9), _kib(52.78), _kib(45.41), _kib(7.4), _ZOO
        ),
        Published(
            "X-CUBE-AI 10.0.0", "STM32H7", _kib(76.9), _kib(56.45), _kib(62.51), _kib(7.21), _ZOO
        ),
    ),
}


@dataclass(frozen=True)
class Row:
    """One image. ``network_code`` is the network's own loops and descriptions of layers,
    ``shared_code`` kernels, protocol, board and C library; ``other_ram`` protocol and C library."""

    model: str
    target: str
    macs: int
    constants: int
    network_code: int
    shared_code: int
    arena: int
    stack: int
    other_ram: int
    tflm_arena: int | None
    published: tuple[Published, ...]
    failures: tuple[str, ...]

    @property
    def flash(self) -> int:
        return self.constants + self.network_code + self.shared_code

    @property
    def ram(self) -> int:
        return self.arena + self.stack + self.other_ram


@dataclass(frozen=True)
class Report:
    rows: tuple[Row, ...]
    passed: bool


def failures(flash: int, ram: int, published: tuple[Published, ...]) -> tuple[str, ...]:
    """What one image misses: the least that is published."""
    if not published:
        return ()
    found = []
    least_flash, least_ram = (min(getattr(p, axis) for p in published) for axis in ("flash", "ram"))
    if not flash < least_flash:
        found.append(f"{flash} bytes of flash are no less than {least_flash}")
    if not ram < least_ram:
        found.append(f"{ram} bytes of RAM are no less than {least_ram}")
    return tuple(found)


def measure(graph: Graph, name: str, target: str, tflm_arena: int | None, folder: Path) -> Row:
    """Compile and link one network for one target."""
    described = load_target(target)
    assert described.mcu is not None
    artifact = FirmwareBackend().compile(graph, folder / f"{name}.zip")
    network = read_network(artifact.path)
    image = link(described, [network], emulated=described.mcu.board is None)
    own = image.code_bytes[0]
    published = PUBLISHED.get((graph.input_tensor.elements, macs(graph)), ())
    # a stack belongs to the application there
    ram = image.ram_bytes - described.mcu.stack_bytes
    return Row(
        model=name,
        target=target,
        macs=macs(graph),
        constants=network.weight_bytes,
        network_code=own,
        shared_code=image.flash_bytes - network.weight_bytes - own,
        arena=network.arena_bytes,
        stack=described.mcu.stack_bytes,
        other_ram=ram - network.arena_bytes,
        tflm_arena=tflm_arena,
        published=published,
        failures=failures(image.flash_bytes, ram, published),
    )


def tflm_arena(model: bytes) -> int | None:
    """What tflite-micro's interpreter allocates for a model; None where it is not installed."""
    try:
        from tflite_micro import runtime
    except ImportError:
        return None
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=1 << 22)
    with tempfile.TemporaryFile() as file:
        _printed(interpreter, file)
        file.seek(0)
        for line in file.read().decode(errors="replace").splitlines():
            if "Arena allocation total" in line:
                return int(line.split("total")[1].split()[0])
    return None


def _printed(interpreter: Any, file: Any) -> None:
    """Its allocations, which it writes past Python's own streams."""
    import os

    sys.stderr.flush()
    kept = [os.dup(n) for n in (1, 2)]
    try:
        for n in (1, 2):
            os.dup2(file.fileno(), n)
        interpreter.print_allocations()
    finally:
        for n, old in zip((1, 2), kept, strict=True):
            os.dup2(old, n)
            os.close(old)


def subnet(text: str) -> Graph:
    """An int8 subnet with random weights."""
    space = load_space(text.partition("@")[0])
    graph = subnet_graph(space, space.parse(text), 0)
    shape = (4, *graph.input_tensor.shape[1:])
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return quantize_with(graph, [images])


def show(row: Row) -> None:
    print(f"{row.model} on {row.target}: {row.macs / 1e6:.2f} M MAC")
    print(
        f"  {row.flash:8} bytes of flash: {row.constants} constants, {row.network_code} "
        f"code of the network, {row.shared_code} kernels, protocol, board"
    )
    print(
        f"  {row.ram:8} bytes of RAM: {row.arena} arena, {row.stack} stack, {row.other_ram} other"
    )
    if row.tflm_arena is not None:
        print(f"  {row.tflm_arena:8} bytes of arena in tflite-micro on this machine")
    for p in row.published:
        print(
            f"  {p.runtime}, {p.series}, without application: {p.flash} bytes of flash "
            f"({p.weights} constants), {p.ram} of RAM ({p.activations} activations)"
        )
    for failure in row.failures:
        print(f"  MISSED: {failure}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, nargs="*", default=None)
    parser.add_argument("--subnet", default=None)
    parser.add_argument("--target", nargs="*", default=list(TARGETS))
    options: Any = parser.parse_args(arguments)
    named = options.model is not None or options.subnet is not None
    files = options.model or ([] if named else mcu_speed.default_models())
    networks = [(path.stem, import_tflite(path), path.read_bytes()) for path in files]
    if options.subnet is not None or not named:
        graph = subnet(options.subnet or SUBNET)
        networks.append((graph.name, graph, LiteRtBackend().serialize(graph)))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, graph, model) in enumerate(networks):
            arena = tflm_arena(model)
            for target in options.target:
                place = Path(folder) / str(number)
                place.mkdir(exist_ok=True)
                rows.append(measure(graph, name.replace("/", "_"), target, arena, place))
                show(rows[-1])
    report = Report(tuple(rows), not any(row.failures for row in rows))
    print("passed" if report.passed else "MISSED")
    if options.json:
        write_atomic(options.json, dumps(report) + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
