"""Which layer computes something else than the graph says?

Comparing whole networks hides it: runtimes round differently, and the differences pile up over a
hundred layers. So each operator is judged by itself. The artifact is cut behind every operator and
run; the oracle then computes that one operator *from what the device computed before it*. What is
left is this operator's own error: one step of int8 from rounding, and no more.

    device:   x ── op 1 ──► d1 ── op 2 ──► d2 ── op 3 ──► d3
    oracle:            op 2(d1) ? d2   op 3(d2) ? d3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.devices.base import Device, Failure, Job
from edgeofa.errors import DeviceError
from edgeofa.graph import float_kernels, int8_kernels
from edgeofa.graph.ir import Array, Graph, Op
from edgeofa.graph.reference import quantization
from edgeofa.regression.cuts import Cuts

#: TFLite's reference rounds twice, XNNPACK and onnxruntime once: at most one step apart
STEP_LIMIT = 1
#: float32, of the largest output of the layer: sums in another order
RELATIVE_LIMIT = 1e-4
#: random inputs of each operator
_PROBES = 2
_PROBE_SEED = 20


@dataclass(frozen=True)
class LayerFinding:
    """The first layer whose output is not what its own inputs give.

    ``steps`` is the largest difference in int8 steps (None in float32), ``relative`` the same
    over the layer's largest output; ``share`` how many of its elements are beyond the limit, and
    ``channels`` the first few output channels that they lie in; ``image`` the stored input, None
    for random values.
    """

    layer: str
    kind: str
    number: int
    steps: int | None
    relative: float
    share: float
    channels: tuple[int, ...]
    image: int | None


@dataclass(frozen=True)
class Walk:
    """All layers of one image: the finding, else ``worst`` is the largest rounding difference."""

    finding: LayerFinding | None
    layers: int
    worst: float


def walk_layers(
    device: Device,
    cuts: Cuts,
    graph: Graph,
    image: Array,
    number: int,
    folder: Path,
    backend: str,
    threads: int,
) -> Walk:
    """Cut, run and judge every operator on one stored input (batch 1, as stored).

    Args:
        number: of the image, for the finding.
        folder: an existing one for the parts.

    Raises ``DeviceError`` when a part does not run where the whole did.
    """
    ends = [op.output for op in graph.ops if cuts.has(op.output)]
    parts = [(graph.input, end, image) for end in ends]
    found_values = _run_parts(device, cuts, graph, parts, folder, backend, threads)
    values = {graph.input: image} | dict(zip(ends, found_values, strict=True))
    worst = 0.0
    for place, op in enumerate(graph.ops):
        expected = _one(graph, op, [values[i] for i in op.inputs])
        found = values.setdefault(op.output, expected)
        finding, difference = _judge(graph, op, place, found, expected, number)
        if finding is not None:
            return Walk(finding, place + 1, difference)
        worst = max(worst, difference)
    return Walk(None, len(graph.ops), worst)


def probe_layers(
    device: Device,
    cuts: Cuts,
    graph: Graph,
    folder: Path,
    backend: str,
    threads: int,
) -> Walk:
    """Run every operator that has one input by itself, on random values of its whole range.

    Stored images leave channels asleep, and what depends on a sleeping channel is not seen.
    """
    rng = np.random.default_rng(_PROBE_SEED)
    probes: list[tuple[int, Array]] = []
    parts = []
    for place, op in enumerate(graph.ops):
        source = op.inputs[0]
        if len(op.inputs) > 1 or not (cuts.has(source) and cuts.has(op.output)):
            continue
        for _ in range(_PROBES):
            probes.append((place, _random(graph, source, rng)))
            parts.append((source, op.output, probes[-1][1]))
    values = _run_parts(device, cuts, graph, parts, folder, backend, threads)
    worst = 0.0
    for (place, x), found in zip(probes, values, strict=True):
        op = graph.ops[place]
        finding, difference = _judge(graph, op, place, found, _one(graph, op, [x]), None)
        if finding is not None:
            return Walk(finding, len(graph.ops), difference)
        worst = max(worst, difference)
    return Walk(None, len(graph.ops), worst)


def _random(graph: Graph, number: int, rng: np.random.Generator) -> Array:
    shape = graph.shape(number)
    if graph.precision == "int8":
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.standard_normal(shape).astype(np.float32)


def _run_parts(
    device: Device,
    cuts: Cuts,
    graph: Graph,
    parts: Sequence[tuple[int, int, Array]],
    folder: Path,
    backend: str,
    threads: int,
) -> list[Array]:
    """Outputs, in the graph's layout, of (source, sink, the value at the source)."""
    jobs = []
    for source, sink, value in parts:
        path = folder / f"part-{source:05}-{sink:05}"
        if not path.exists():
            path.write_bytes(cuts.part(source, sink))
        stored = to_runtime(value, cuts.spec(source))
        jobs.append(Job(path, backend, warmups=0, input=stored, want_output=True, timed=False))
    values = []
    outcomes = device.run(jobs, threads=threads)
    for (_, sink, _), outcome in zip(parts, outcomes, strict=True):
        if isinstance(outcome, Failure) or outcome.output is None:
            reason = outcome.reason if isinstance(outcome, Failure) else "no output"
            name = graph.tensors[sink].name
            raise DeviceError(
                f"the network cut behind {name} does not run: {reason}", where=device.name
            )
        value = from_runtime(outcome.output, cuts.spec(sink))
        values.append(value.reshape(graph.shape(sink)))
    return values


def _one(graph: Graph, op: Op, inputs: list[Array]) -> Array:
    """One operator from the device's own inputs."""
    if graph.precision == "float32":
        return float_kernels.apply(op, [x.astype(np.float64) for x in inputs])
    qs = [quantization(graph, number) for number in op.inputs]
    return int8_kernels.apply(op, inputs, qs, quantization(graph, op.output))


def _judge(
    graph: Graph, op: Op, place: int, found: Array, expected: Array, image: int | None
) -> tuple[LayerFinding | None, float]:
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    difference[~np.isfinite(difference)] = np.inf
    largest = float(difference.max())
    if graph.precision == "int8":
        zero_point = quantization(graph, op.output).zero_point
        scale = float(np.abs(expected.astype(np.float64) - zero_point).max())
        limit = float(STEP_LIMIT)
    else:
        scale = float(np.abs(expected).max())
        limit = RELATIVE_LIMIT * max(scale, 1e-30)
    if largest <= limit:
        return None, largest if graph.precision == "int8" else largest / max(scale, 1e-30)
    beyond = difference > limit
    channels = np.flatnonzero(beyond.reshape(-1, beyond.shape[-1]).any(axis=0))
    finding = LayerFinding(
        layer=op.name,
        kind=op.kind,
        number=place,
        steps=int(min(largest, 255)) if graph.precision == "int8" else None,
        relative=min(largest / max(scale, 1e-30), 1e30),
        share=float(beyond.mean()),
        channels=tuple(int(c) for c in channels[:8]),
        image=image,
    )
    return finding, largest
