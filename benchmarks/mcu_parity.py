"""Do microcontrollers compute what the graph says? Outputs of firmware against the reference.

    python benchmarks/mcu_parity.py [--json FILE] [--model FILE.tflite ...] [--subnets N] [--seed S]

For the two int8 models of MLPerf Tiny (or those of ``--model``) and random subnets of the space
that microcontrollers are for, with random weights:

- tflite-micro on the same network: elements that differ from the graph's reference;
- every emulated board, at the kernel level that its target names (and the portable one on a
  Cortex-M4): elements of the output that differ from the reference.

The requirement is none, anywhere. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcu_speed
import numpy as np

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.litert import LiteRtBackend
from edgeofa.devices.base import Job, Measurement
from edgeofa.devices.qemu_board import QemuBoardDevice
from edgeofa.graph import reference
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.importers.tflite import import_tflite
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.spaces import load_space
from edgeofa.targets import Target, load_target

BOARDS = ("nucleo-l4r5zi", "nucleo-h7a3zi", "nrf5340", "corstone-300")
SPACE = "cifar_micro"
#: random inputs of each network
INPUTS = 1
_PORTABLE = "nucleo-l4r5zi"


@dataclass(frozen=True)
class Row:
    """One network somewhere: how many elements of how many differ; None where it did not run."""

    network: str
    where: str
    differing: int | None
    elements: int
    reason: str | None = None


@dataclass(frozen=True)
class Parity:
    """All rows, and whether every one of them ran and is exact."""

    rows: tuple[Row, ...]
    passed: bool


def networks(models: list[Path], subnets: int, seed: int) -> Iterator[Graph]:
    """The models, then random subnets, every second one with hard-swish as it is."""
    for path in models:
        yield import_tflite(path)
    rng = random.Random(seed)
    space = load_space(SPACE)
    for i in range(subnets):
        graph = subnet_graph(space, space.sample(rng), i)
        shape = (4, *graph.input_tensor.shape[1:])
        images = np.random.default_rng(i).standard_normal(shape).astype(np.float32)
        yield quantize_with(graph, [images], keep_hard_swish=bool(i % 2))


def inputs(graph: Graph, seed: int) -> Array:
    """Random stored inputs, (INPUTS, ...)."""
    shape = (INPUTS, *graph.input_tensor.shape[1:])
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def tflite_micro(graph: Graph, x: Array, expected: Array) -> Row:
    """tflite-micro's outputs against the reference's."""
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError:
        return Row(graph.name, "tflite-micro", None, 0, "tflite-micro is not installed")
    interpreter = runtime.Interpreter.from_bytes(
        LiteRtBackend().serialize(graph), arena_size=1 << 24
    )
    differing = 0
    for image, wanted in zip(x, expected, strict=True):
        interpreter.set_input(image[np.newaxis], 0)
        interpreter.invoke()
        differing += int((interpreter.get_output(0).ravel() != wanted.ravel()).sum())
    return Row(graph.name, "tflite-micro", differing, expected.size)


def boards() -> Iterator[tuple[str, Target]]:
    """What to call it, and the target whose emulated board runs it."""
    for name in BOARDS:
        target = load_target(name)
        assert target.mcu is not None
        yield f"{name} ({target.mcu.kernels})", target
    target = load_target(_PORTABLE)
    assert target.mcu is not None
    plain = target.mcu.model_copy(update={"kernels": "portable"})
    yield f"{_PORTABLE} (portable)", target.model_copy(update={"mcu": plain})


def on_board(
    where: str, target: Target, cases: list[tuple[Graph, Path, Array, Array]]
) -> list[Row]:
    """All networks on one emulated board."""
    jobs = [
        Job(path, "firmware", input=image[np.newaxis], want_output=True)
        for _, path, x, _ in cases
        for image in x
    ]
    outcomes = iter(QemuBoardDevice(target).run(jobs))
    rows = []
    for graph, _, _, expected in cases:
        differing, reason = 0, None
        for wanted in expected:
            outcome = next(outcomes)
            if isinstance(outcome, Measurement) and outcome.output is not None:
                differing += int((outcome.output.ravel() != wanted.ravel()).sum())
            else:
                reason = getattr(outcome, "reason", "no output")
        rows.append(Row(graph.name, where, None if reason else differing, expected.size, reason))
    return rows


def show(row: Row) -> None:
    """One row as a line."""
    exact = row.differing == 0
    found = row.reason or f"{row.differing} of {row.elements} elements differ"
    print(f"{'' if exact else 'MISSED: '}{row.where}, {row.network}: {found}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, nargs="*", default=None)
    parser.add_argument("--subnets", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        models = options.model or mcu_speed.default_models()
        for i, graph in enumerate(networks(models, options.subnets, options.seed)):
            x = inputs(graph, options.seed + i)
            expected = reference.run(graph, x)
            artifact = FirmwareBackend().compile(graph, Path(folder) / f"{i}.zip")
            cases.append((graph, artifact.path, x, expected))
            rows.append(tflite_micro(graph, x, expected))
            show(rows[-1])
        for where, target in boards():
            found = on_board(where, target, cases)
            rows += found
            for row in found:
                show(row)
    result = Parity(tuple(rows), all(row.differing == 0 for row in rows))
    print("passed" if result.passed else "MISSED")
    if options.json:
        write_atomic(options.json, dumps(result) + "\n")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
