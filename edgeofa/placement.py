"""One network on one device: compile with every allowed back end, run each, keep the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeofa.backends.base import Artifact, TensorSpec
from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.deployment import Candidate, OutputError
from edgeofa.devices.base import Device, Failure, Job, Latency, Measurement
from edgeofa.errors import DeviceError, UnsupportedOperator
from edgeofa.graph.ir import DType
from edgeofa.graph.reference import dequantize_array, quantize_array, run, run_real
from edgeofa.networks import Network
from edgeofa.tables.table import Status

#: a number of invokes after which the caches hold what they hold in steady use
_WARMUPS = 2
#: largest difference of an output, relative to the largest output, that the same network can have.
#: Runtimes round an int8 layer differently (XNNPACK is not TFLite's reference), and over a hundred
#: layers of random weights that adds up; a wrong network is further off.
_TOLERANCE: dict[DType, float] = {"float32": 1e-4, "int8": 0.5}


@dataclass(frozen=True, eq=False)
class Placement:
    """The fastest artifact on the device, and all that were tried, fastest first."""

    artifact: Artifact
    runtime: str
    latency: Latency
    status: Status
    parts_ms: dict[str, float]
    error: OutputError
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class _Run:
    """One artifact that ran on the device and gave the right output."""

    artifact: Artifact
    latency: Latency
    status: Status
    parts_ms: dict[str, float]
    error: OutputError


def place(
    network: Network, backends: Sequence[str], device: Device, folder: Path, threads: int
) -> Placement:
    """Compile ``network`` into ``folder`` and run it whole on the device.

    The outputs of the first image are compared with edgeofa's own executor.

    Raises:
        DeviceError: no artifact could be run; the message gives each back end's reason.
    """
    tried = [_try(network, name, device, folder, threads) for name in backends]
    found = [run for run in tried if isinstance(run, _Run)]
    candidates = [
        Candidate(
            backend=name,
            precision=network.graph.precision,
            measured_ms=run.latency.ms if isinstance(run, _Run) else None,
            failure=run if isinstance(run, str) else None,
        )
        for name, run in zip(backends, tried, strict=True)
    ]
    if not found:
        reasons = "; ".join(f"{c.backend}: {c.failure}" for c in candidates)
        raise DeviceError(
            f"no back end's artifact could be run ({reasons})",
            where=device.name,
            hint="edgeofa doctor",
        )
    best = min(found, key=lambda r: r.latency.ms)
    return Placement(
        artifact=best.artifact,
        runtime=device.identity().get(best.artifact.backend, "unknown"),
        latency=best.latency,
        status=best.status,
        parts_ms=best.parts_ms,
        error=best.error,
        candidates=tuple(
            sorted(candidates, key=lambda c: (c.measured_ms is None, c.measured_ms or 0))
        ),
    )


def _try(network: Network, backend: str, device: Device, folder: Path, threads: int) -> _Run | str:
    """One back end's artifact, run and judged; or why it is out."""
    from edgeofa.backends.registry import get_backend

    compiler = get_backend(backend)
    if network.graph.precision not in compiler.precisions:
        return f"has no {network.graph.precision}"
    image = network.inputs[:1]
    try:
        artifact = compiler.compile(network.graph, folder / f"{backend}{compiler.suffix}")
        job = Job(
            artifact.path,
            backend,
            warmups=_WARMUPS,
            input=_stored(artifact.input, image),
            want_output=True,
        )
        (outcome,) = device.run([job], threads=threads)
        if isinstance(outcome, Failure):
            return outcome.reason
        error = _compare(artifact, outcome, network, image)
        if isinstance(error, str):
            return error
        return _timed(device, artifact, outcome, error, threads)
    except (DeviceError, UnsupportedOperator) as problem:
        # another back end may still do
        return str(problem)


def _timed(
    device: Device, artifact: Artifact, outcome: Measurement, error: OutputError, threads: int
) -> _Run | str:
    """The latency with its interval: by the protocol where there is a clock."""
    from edgeofa.profiling.protocol import measure

    if device.evidence != "measured":
        ms, spread = float(np.median(outcome.samples_ns)) / 1e6, outcome.model_error
        latency = Latency(ms, ms * (1 - spread), ms * (1 + spread), outcome.evidence)
        return _Run(artifact, latency, "ok", outcome.parts_ms, error)
    estimate = measure(
        device,
        {"network": artifact.path},
        backend=artifact.backend,
        sentinel="network",
        cold=False,
        threads=threads,
    )["network"]
    if estimate.status == "failed":
        return estimate.reason
    latency = Latency(estimate.ms, estimate.low_ms, estimate.high_ms, estimate.evidence)
    return _Run(artifact, latency, estimate.status, outcome.parts_ms, error)


def _stored(spec: TensorSpec, image: NDArray[np.float32]) -> NDArray[Any]:
    """A preprocessed NHWC image as the artifact's input tensor takes it."""
    q = spec.quantization
    return to_runtime(image if q is None else quantize_array(image, q), spec)


def _real(spec: TensorSpec, output: NDArray[Any]) -> NDArray[np.float32]:
    """An artifact's output tensor in real numbers."""
    value, q = from_runtime(output, spec), spec.quantization
    return value.astype(np.float32) if q is None else dequantize_array(value, q)


def _compare(
    artifact: Artifact, outcome: Measurement, network: Network, image: NDArray[np.float32]
) -> OutputError | str:
    """How far the device's output is off; a reason where it is too far to be the same network."""
    graph = network.graph
    if outcome.output is None:
        return "the runner returned no output"
    if graph.precision == "float32":
        # in double precision, so that the difference is the runtime's own
        expected = run(graph, image.astype(np.float64))
    else:
        expected = run_real(graph, image)
    real = _real(artifact.output, outcome.output).reshape(expected.shape)
    if not np.isfinite(real).all():
        return "the output is not finite"
    largest = max(float(np.abs(expected).max()), 1e-30)
    difference = float(np.abs(real - expected).max())
    if difference / largest > _TOLERANCE[graph.precision]:
        return (
            f"the output is off by {difference / largest:.1e} of the largest, "
            f"allowed is {_TOLERANCE[graph.precision]:g}"
        )
    q = graph.output_tensor.quantization
    return OutputError(
        max_relative=difference / largest,
        max_steps=None if q is None else round(difference / q.scale),
        images=len(image),
        sqnr_db=network.sqnr_db,
        sqnr_images=None if network.sqnr_db is None else len(network.inputs),
    )
