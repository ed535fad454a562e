"""One network on one device: compile with every allowed back end, run each, keep the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgeofa.backends.base import Artifact, TensorSpec
from edgeofa.backends.layout import from_runtime, to_runtime
from edgeofa.deployment import Candidate, LayerRecord, MemoryUse, OutputError
from edgeofa.devices.base import Device, Failure, Job, Latency, Measurement
from edgeofa.errors import DeviceError, SetupError, TooLarge, UnsupportedOperator, UsageError
from edgeofa.graph.ir import DType
from edgeofa.graph.reference import dequantize_array, quantize_array, run, run_real
from edgeofa.networks import Network
from edgeofa.tables.table import Status
from edgeofa.targets import Target

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
    layers: tuple[LayerRecord, ...]
    memory: MemoryUse
    error: OutputError
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class _Run:
    """One artifact that ran on the device and gave the right output."""

    artifact: Artifact
    outcome: Measurement
    latency: Latency
    status: Status
    error: OutputError


@dataclass(frozen=True)
class _Out:
    """A back end that is out; ``too_large``: only because the device's memory is too small."""

    reason: str
    too_large: bool = False


def place(
    network: Network,
    backends: Sequence[str],
    target: Target,
    device: Device,
    folder: Path,
    threads: int,
    *,
    compared: int = 1,
    sram_bytes: int | None = None,
) -> Placement:
    """Compile ``network`` into ``folder`` and run it whole on the device, one of ``target``.

    Args:
        compared: of the network's inputs, how many outputs are compared with edgeofa's own
            executor.
        sram_bytes: working memory that back ends which plan it keep to, where they can.

    Raises:
        TooLarge: the device's memory does not hold it, by any back end.
        DeviceError: no artifact could be run; the message gives each back end's reason.
    """
    tried = [
        _try(network, name, target, device, folder, threads, compared, sram_bytes)
        for name in backends
    ]
    found = [run for run in tried if isinstance(run, _Run)]
    candidates = [
        Candidate(
            backend=name,
            precision=network.graph.precision,
            measured_ms=run.latency.ms if isinstance(run, _Run) else None,
            failure=run.reason if isinstance(run, _Out) else None,
        )
        for name, run in zip(backends, tried, strict=True)
    ]
    if not found:
        _refuse(tried, candidates, device, network)
    best = min(found, key=lambda r: r.latency.ms)
    return Placement(
        artifact=best.artifact,
        runtime=device.identity().get(best.artifact.backend, "unknown"),
        latency=best.latency,
        status=best.status,
        parts_ms=best.outcome.parts_ms,
        layers=_layers(best.artifact, best.outcome),
        memory=_memory(target, best.outcome),
        error=best.error,
        candidates=tuple(
            sorted(candidates, key=lambda c: (c.measured_ms is None, c.measured_ms or 0))
        ),
    )


def _memory(target: Target, outcome: Measurement) -> MemoryUse:
    board = target.mcu
    return MemoryUse(
        arena_bytes=outcome.arena_bytes,
        stack_bytes=outcome.stack_bytes,
        resident_bytes=outcome.peak_rss_bytes,
        code_bytes=outcome.code_bytes,
        flash_bytes=outcome.image_flash_bytes,
        flash_total_bytes=None if board is None else board.flash.bytes,
        ram_bytes=outcome.image_ram_bytes,
        ram_total_bytes=None if board is None else board.ram.bytes,
    )


def _refuse(
    tried: Sequence[_Run | _Out],
    candidates: Sequence[Candidate],
    device: Device,
    network: Network,
) -> NoReturn:
    if all(isinstance(out, _Out) and out.too_large for out in tried):
        raise TooLarge(
            "; ".join(str(c.failure) for c in candidates),
            where=f"{network.graph.name} on {device.name}",
            hint="a smaller network, or a smaller input",
        )
    reasons = "; ".join(f"{c.backend}: {c.failure}" for c in candidates)
    raise DeviceError(
        f"no back end's artifact could be run ({reasons})",
        where=device.name,
        hint="edgeofa doctor",
    )


def _try(
    network: Network,
    backend: str,
    target: Target,
    device: Device,
    folder: Path,
    threads: int,
    compared: int,
    sram_bytes: int | None,
) -> _Run | _Out:
    """One back end's artifact, run and judged; or why it is out."""
    from edgeofa.backends.registry import get_backend

    precision = network.graph.precision
    try:
        compiler = get_backend(backend).for_target(target)
    except (SetupError, UsageError) as problem:
        # an extra that was left out, or a core that it has nothing for
        return _Out(str(problem))
    try:
        if precision not in compiler.precisions:
            return _Out(f"has no {precision}")
        if threads > 1 and not compiler.is_parallel:
            return _Out("computes on one thread")
        if sram_bytes is not None:
            compiler = compiler.limited(sram_bytes)
        artifact = compiler.compile(network.graph, folder / f"{backend}{compiler.suffix}")
        jobs = [
            Job(
                artifact.path,
                backend,
                warmups=_WARMUPS,
                input=_stored(artifact.input, network.inputs[i : i + 1]),
                want_output=True,
                timed=i == 0,
            )
            for i in range(min(compared, len(network.inputs)))
        ]
        outcomes = device.run(jobs, threads=threads)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                return _failed(artifact, outcome)
        found = [o for o in outcomes if isinstance(o, Measurement)]
        is_exact = compiler.exact and precision == "int8"
        error = _compare(artifact, found, network, 0.0 if is_exact else None)
        if isinstance(error, str):
            return _Out(error)
        return _timed(device, artifact, found[0], error, threads)
    except (DeviceError, UnsupportedOperator) as problem:
        # another back end may still do
        return _Out(str(problem))


def _failed(artifact: Artifact, failure: Failure) -> _Out:
    if not failure.too_large:
        return _Out(failure.reason)
    # without the way out, which differs between a choice and a model of one's own
    reason, peak = failure.reason.split("\n")[0], artifact.peak_layer
    if peak is not None:
        reason += (
            f": it works in {artifact.peak_bytes} bytes, most at {peak.name} ({peak.kind}), "
            f"{peak.live_bytes}, and has {artifact.weight_bytes} bytes of constants"
        )
    return _Out(reason, too_large=True)


def _layers(artifact: Artifact, outcome: Measurement) -> tuple[LayerRecord, ...]:
    """The artifact's layers, with their times where the device gave one for each."""
    known = len(outcome.layers_ms) == len(artifact.layers)
    times = outcome.layers_ms if known else (None,) * len(artifact.layers)
    return tuple(
        LayerRecord(
            layer=layer.name,
            kind=layer.kind,
            macs=layer.macs,
            live_bytes=layer.live_bytes,
            latency_ms=ms,
        )
        for layer, ms in zip(artifact.layers, times, strict=True)
    )


def _timed(
    device: Device, artifact: Artifact, outcome: Measurement, error: OutputError, threads: int
) -> _Run | _Out:
    """The latency with its interval: by the protocol where there is a clock."""
    from edgeofa.profiling.protocol import measure

    if device.evidence != "measured":
        ms, spread = float(np.median(outcome.samples_ns)) / 1e6, outcome.model_error
        latency = Latency(ms, ms * (1 - spread), ms * (1 + spread), outcome.evidence)
        return _Run(artifact, outcome, latency, "ok", error)
    estimate = measure(
        device,
        {"network": artifact.path},
        backend=artifact.backend,
        sentinel="network",
        cold=False,
        threads=threads,
    )["network"]
    if estimate.status == "failed":
        return _Out(estimate.reason)
    latency = Latency(estimate.ms, estimate.low_ms, estimate.high_ms, estimate.evidence)
    return _Run(artifact, outcome, latency, estimate.status, error)


def _stored(spec: TensorSpec, image: NDArray[np.float32]) -> NDArray[Any]:
    """A preprocessed NHWC image as the artifact's input tensor takes it."""
    q = spec.quantization
    return to_runtime(image if q is None else quantize_array(image, q), spec)


def _real(spec: TensorSpec, output: NDArray[Any]) -> NDArray[np.float32]:
    """An artifact's output tensor in real numbers."""
    value, q = from_runtime(output, spec), spec.quantization
    return value.astype(np.float32) if q is None else dequantize_array(value, q)


def _compare(
    artifact: Artifact,
    outcomes: Sequence[Measurement],
    network: Network,
    tolerance: float | None,
) -> OutputError | str:
    """How far the device's outputs are off, one for each of the first inputs; a reason where one is
    too far off to be the same network's.

    Args:
        tolerance: of the largest output; by default the precision's.
    """
    allowed = _TOLERANCE[network.graph.precision] if tolerance is None else tolerance
    relative, difference = 0.0, 0.0
    for number, outcome in enumerate(outcomes):
        if outcome.output is None:
            return "the runner returned no output"
        expected = _expected(network, number)
        real = _real(artifact.output, outcome.output).reshape(expected.shape)
        if not np.isfinite(real).all():
            return "the output is not finite"
        largest = max(float(np.abs(expected).max()), 1e-30)
        off = float(np.abs(real - expected).max())
        if off / largest > allowed:
            return (
                f"the output is off by {off / largest:.1e} of the largest, allowed is {allowed:g}"
            )
        relative, difference = max(relative, off / largest), max(difference, off)
    q = network.graph.output_tensor.quantization
    return OutputError(
        max_relative=relative,
        max_steps=None if q is None else round(difference / q.scale),
        images=len(outcomes),
        sqnr_db=network.sqnr_db,
        sqnr_images=None if network.sqnr_db is None else len(network.inputs),
    )


def _expected(network: Network, number: int) -> NDArray[Any]:
    """The reference's output for one input, in real numbers."""
    graph, image = network.graph, network.inputs[number : number + 1]
    if graph.precision == "float32":
        # in double precision, so that the difference is the runtime's own
        return run(graph, image.astype(np.float64))
    return run_real(graph, image)
