"""Do artifacts compute what the graph says? Outputs of every back end against the reference.

    python benchmarks/output_parity.py [--json FILE] [--subnets N] [--seed S] [--space NAME ...]

For random subnets of each space, with random weights and, where there is a bundle, trained ones:

- float32: the largest error of LiteRT's and onnxruntime's output, relative to the largest output;
- int8: how many elements of all activations differ between the graph's reference and tflite-micro
  (the requirement is none); how far LiteRT (XNNPACK, and its own kernels) and onnxruntime are from
  the reference, in steps of the output's scale (stated, not required: XNNPACK is no oracle);
- the signal to quantisation noise of int8 against float32, required of trained subnets only.

Exits with 1 when a requirement is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.backends.litert import LiteRtBackend
from edgeofa.backends.registry import get_backend
from edgeofa.devices.base import Failure, Job
from edgeofa.devices.local import LocalDevice
from edgeofa.errors import DeviceError, MissingMaterial
from edgeofa.graph import reference
from edgeofa.graph.ir import Array, Graph
from edgeofa.jsonio import dumps
from edgeofa.networks import RandomWeights, TrainedWeights, WeightSource
from edgeofa.paths import write_atomic
from edgeofa.spaces import Space, Subnet, load_space, space_names
from edgeofa.targets import load_target

FLOAT_LIMIT = 1e-4
SQNR_LIMIT_DB = 20.0
BACKENDS = ("litert", "onnxruntime")


@dataclass(frozen=True)
class Steps:
    """Difference of two int8 outputs: the largest, and the share of elements that differ."""

    largest: int
    differing: float


@dataclass(frozen=True)
class Row:
    """One subnet. ``tflite_micro_differing`` counts elements over all activations, of
    ``activation_elements``; None where tflite-micro is not installed."""

    space: str
    subnet: str
    weights: Literal["trained", "random"]
    float32_error: dict[str, float]
    tflite_micro_differing: int | None
    activation_elements: int
    int8_steps: dict[str, Steps]
    sqnr_db: float

    @property
    def failures(self) -> list[str]:
        found = [
            f"{name} float32 error {error:.1e}"
            for name, error in self.float32_error.items()
            if not error <= FLOAT_LIMIT
        ]
        if self.tflite_micro_differing is None:
            found.append("tflite-micro is not installed: the int8 reference was not checked")
        elif self.tflite_micro_differing:
            found.append(f"{self.tflite_micro_differing} elements differ from tflite-micro")
        if self.weights == "trained" and not self.sqnr_db >= SQNR_LIMIT_DB:
            found.append(f"SQNR {self.sqnr_db:.1f} dB")
        return found


@dataclass(frozen=True)
class Parity:
    """All rows, and what the requirements say about them."""

    rows: tuple[Row, ...]
    float32_limit: float
    sqnr_limit_db: float
    passed: bool


def run_artifact(graph: Graph, backend: str, x: Array, device: LocalDevice) -> Array:
    """The output of a compiled graph on this machine, in the graph's layout."""
    compiler = get_backend(backend).for_target(load_target("host"))
    with tempfile.TemporaryDirectory() as folder:
        artifact = compiler.compile(graph, Path(folder) / f"model{compiler.suffix}")
        job = Job(artifact.path, backend, input=to_runtime(x, artifact.input), want_output=True)
        (outcome,) = device.run([job])
    if isinstance(outcome, Failure) or outcome.output is None:
        raise DeviceError(getattr(outcome, "reason", "no output"), where=f"{backend}, {graph.name}")
    return from_runtime(outcome.output, artifact.output)


def tflite_micro_differences(graph: Graph, x: Array) -> int | None:
    """Elements, over all activations, in which tflite-micro and the reference differ."""
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError:
        return None
    content = LiteRtBackend().serialize(graph)
    # all tensors stay allocated: nothing may overlap, plus room for scratch buffers
    arena = 4 * sum(t.nbytes + 512 for t in graph.tensors) + 4 * len(content) + (1 << 20)
    interpreter = runtime.Interpreter.from_bytes(
        content,
        arena_size=arena,
        intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
    )
    interpreter.set_input(x, 0)
    interpreter.invoke()
    differing = 0
    for number, expected in reference.steps(graph, x):
        got = np.asarray(interpreter.GetTensor(number, 0)["tensor_data"])
        differing += int((got.reshape(expected.shape) != expected).sum())
    return differing


def compare(space: Space, subnet: Subnet, source: WeightSource) -> Row:
    """One subnet through everything."""
    plain = source.network(subnet, "float32")
    quantised = source.network(subnet, "int8")
    image = plain.inputs[:1]
    expected = reference.run(plain.graph, image)
    device = LocalDevice()
    errors = {}
    for backend in BACKENDS:
        output = run_artifact(plain.graph, backend, image, device)
        errors[backend] = float(np.abs(output - expected).max() / np.abs(expected).max())

    graph = quantised.graph
    stored = reference.quantize_array(image, reference.quantization(graph, graph.input))
    wanted = reference.run(graph, stored)
    paths = {
        "litert (XNNPACK)": ("litert", device),
        "litert (own kernels)": ("litert", LocalDevice(kernels="builtin")),
        "onnxruntime": ("onnxruntime", device),
    }
    steps = {}
    for name, (backend, runner) in paths.items():
        distance = np.abs(run_artifact(graph, backend, stored, runner).astype(int) - wanted)
        steps[name] = Steps(int(distance.max()), float((distance > 0).mean()))
    assert quantised.sqnr_db is not None
    return Row(
        space=space.name,
        subnet=str(subnet),
        weights=source.kind,
        float32_error=errors,
        tflite_micro_differing=tflite_micro_differences(graph, stored),
        activation_elements=sum(t.elements for t in graph.tensors),
        int8_steps=steps,
        sqnr_db=quantised.sqnr_db,
    )


def sources(space: Space, seed: int) -> list[WeightSource]:
    """Random weights, and the bundle's where there is one."""
    found: list[WeightSource] = [RandomWeights(space, seed)]
    try:
        from edgeofa.elastic.bundles import load_bundle

        found.append(TrainedWeights(load_bundle(space), None, seed))
    except MissingMaterial as error:
        print(f"{space.name}: random weights only ({error.what})", file=sys.stderr)
    return found


def show(row: Row) -> None:
    """One subnet as a few lines."""
    print(f"{row.space}, {row.weights} weights, {row.subnet}")
    errors = ", ".join(f"{k} {v:.1e}" for k, v in row.float32_error.items())
    print(f"  float32, largest error relative to the largest output: {errors}")
    micro = (
        "tflite-micro is not installed"
        if row.tflite_micro_differing is None
        else f"{row.tflite_micro_differing} of {row.activation_elements} elements differ"
    )
    print(f"  int8 reference against tflite-micro, all activations: {micro}")
    distances = ", ".join(
        f"{k} {v.largest} ({100 * v.differing:.0f}% differ)" for k, v in row.int8_steps.items()
    )
    print(f"  int8 outputs against the reference, largest distance in steps: {distances}")
    print(f"  SQNR of int8 against float32: {row.sqnr_db:.1f} dB")
    for failure in row.failures:
        print(f"  MISSED: {failure}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--subnets", type=int, default=3, help="per space and kind of weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--space", nargs="*", default=None, choices=space_names())
    options: Any = parser.parse_args(arguments)
    rows = []
    for name in options.space or space_names():
        space = load_space(name)
        for source in sources(space, options.seed):
            rng = random.Random(options.seed)
            for _ in range(options.subnets):
                rows.append(compare(space, space.sample(rng), source))
                show(rows[-1])
    result = Parity(tuple(rows), FLOAT_LIMIT, SQNR_LIMIT_DB, not any(r.failures for r in rows))
    print("passed" if result.passed else "MISSED")
    if options.json:
        write_atomic(options.json, dumps(result) + "\n")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
