"""One network on one device: compile with every allowed back end, run each, keep the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeofa.backends.base import Artifact, Backend, TensorSpec
from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.deployment import Candidate, OutputError
from edgeofa.devices.base import Device, Failure, Job, Latency, Outcome
from edgeofa.errors import DeviceError
from edgeofa.graph.reference import dequantize_array, quantize_array, run_real
from edgeofa.networks import Network

#: a number of invokes after which the caches hold what they hold in steady use
_WARMUPS = 2


@dataclass(frozen=True, eq=False)
class Placement:
    """The fastest artifact on the device, and all that were tried, fastest first."""

    artifact: Artifact
    runtime_version: str
    latency: Latency
    parts_ms: dict[str, float]
    error: OutputError
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class _Run:
    """One artifact on the device, with what it gave for the first image."""

    artifact: Artifact
    runtime_version: str
    latency: Latency
    parts_ms: dict[str, float]
    output: NDArray[Any]


def place(
    network: Network, backends: Sequence[str], device: Device, folder: Path, threads: int
) -> Placement:
    """Compile ``network`` into ``folder`` and run it whole on the device.

    The outputs of the first image are compared with edgeofa's own executor.

    Raises:
        DeviceError: no artifact could be run; the message gives each back end's reason.
    """
    from edgeofa.backends.registry import get_backend

    graph = network.graph
    image = network.inputs[:1]
    expected = run_real(graph, image)
    compilers = [get_backend(name) for name in backends]
    compilers = [c for c in compilers if graph.precision in c.precisions]
    artifacts = [c.compile(graph, folder / f"model-{c.name}{c.suffix}") for c in compilers]
    jobs = [
        Job(
            a.path,
            a.backend,
            warmups=_WARMUPS,
            input=_stored(a.input, image),
            want_output=True,
        )
        for a in artifacts
    ]
    found: list[_Run] = []
    tried: list[Candidate] = []
    for compiler, artifact, outcome in zip(
        compilers, artifacts, device.run(jobs, threads=threads), strict=True
    ):
        run = _finish(device, compiler, artifact, outcome, threads)
        failure = run if isinstance(run, str) else None
        if isinstance(run, _Run):
            found.append(run)
        tried.append(
            Candidate(
                backend=artifact.backend,
                precision=artifact.precision,
                measured_ms=run.latency.ms if isinstance(run, _Run) else None,
                failure=failure,
            )
        )
    if not found:
        reasons = "; ".join(f"{c.backend}: {c.failure}" for c in tried)
        raise DeviceError(
            f"no back end's artifact could be run ({reasons})",
            where=device.name,
            hint="edgeofa doctor",
        )
    best = min(found, key=lambda r: r.latency.ms)
    return Placement(
        artifact=best.artifact,
        runtime_version=best.runtime_version,
        latency=best.latency,
        parts_ms=best.parts_ms,
        error=_compare(best, expected, network),
        candidates=tuple(sorted(tried, key=lambda c: (c.measured_ms is None, c.measured_ms or 0))),
    )


def _finish(
    device: Device, compiler: Backend, artifact: Artifact, outcome: Outcome, threads: int
) -> _Run | str:
    """The artifact with its latency and interval, or why there is none."""
    from edgeofa.profiling.protocol import measure

    if isinstance(outcome, Failure):
        return outcome.reason
    if outcome.output is None:
        return "the runner returned no output"
    if device.evidence == "measured":
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
    else:
        ms, error = float(np.median(outcome.samples_ns)) / 1e6, outcome.model_error
        latency = Latency(ms, ms * (1 - error), ms * (1 + error), outcome.evidence)
    runtime = f"{compiler.name} {compiler.version()}"
    return _Run(artifact, runtime, latency, outcome.parts_ms, outcome.output)


def _stored(spec: TensorSpec, image: NDArray[np.float32]) -> NDArray[Any]:
    """A preprocessed NHWC image as the artifact's input tensor takes it."""
    q = spec.quantization
    return to_runtime(image if q is None else quantize_array(image, q), spec)


def _real(spec: TensorSpec, output: NDArray[Any]) -> NDArray[np.float32]:
    """An artifact's output tensor in real numbers."""
    value, q = from_runtime(output, spec), spec.quantization
    return value.astype(np.float32) if q is None else dequantize_array(value, q)


def _compare(run: _Run, expected: NDArray[Any], network: Network) -> OutputError:
    real = _real(run.artifact.output, run.output).reshape(expected.shape)
    difference = float(np.abs(real - expected).max())
    q = network.graph.output_tensor.quantization
    return OutputError(
        max_relative=difference / max(float(np.abs(expected).max()), 1e-30),
        max_steps=None if q is None else round(difference / q.scale),
        sqnr_db=network.sqnr_db,
        images=1,
    )
