"""Making a baseline: A/A runs of one build set the gate; what is wrong is not accepted."""

from __future__ import annotations

from pathlib import Path

from edgeofa import __version__
from edgeofa.devices.base import Device
from edgeofa.emulation.energy import energy_mj
from edgeofa.errors import RegressionFound, UnstableMeasurement, UsageError
from edgeofa.profiling.protocol import RULES
from edgeofa.regression.accuracy import check_accuracy, load_pictures
from edgeofa.regression.baseline import (
    MAX_HISTORY,
    Baseline,
    BlockFigure,
    GateRecord,
    HistoryPoint,
    LatencyRecord,
    StateRecord,
    baseline_path,
    digest_outputs,
    load_baseline,
    runtime_of,
    save_baseline,
)
from edgeofa.regression.blocks import measure_blocks
from edgeofa.regression.constants import check_constants
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.endurance import check_endurance
from edgeofa.regression.outputs import DoesNotRun, check_outputs, run_images
from edgeofa.regression.record import Check
from edgeofa.regression.suite import Plan, today
from edgeofa.regression.timing import HALF_WIDTH, Timing, gate_of, measure_latency, pool
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder

#: A/A runs that a gate is set from
REPEATS = 5
#: a noisier machine cannot promise to find what it should
_WIDEST_GATE = 0.25


def accept(
    target: Target, device: Device, deployed: Deployed, plan: Plan, *, reason: str = ""
) -> tuple[Path, Baseline]:
    """Measure a deployment and write its baseline; the file and its content.

    Raises:
        RegressionFound: its outputs are wrong: a baseline would only hide it.
        UnstableMeasurement: the device is too noisy for any gate.
        UsageError: the deployment carries no reference.
    """
    material = deployed.material
    if material is None:
        raise UsageError(
            "the deployment carries no reference outputs: it is older",
            where=deployed.folder,
            hint=f"edgeofa deploy --target {target.name} again",
        )
    record = deployed.record
    identity = dict(device.identity())
    with work_folder("accept") as folder:
        _must_pass(check_constants(deployed, material.graph), deployed)
        try:
            outputs = run_images(device, deployed, material.graph, material.inputs)
        except DoesNotRun as error:
            raise RegressionFound(
                f"the artifact does not run: {error.what}", where=deployed.name
            ) from error
        checked = check_outputs(
            device,
            deployed,
            material,
            outputs,
            folder,
            accepted=False,
            suspect=True,
            threads=record.threads,
        )
        _must_pass(checked, deployed)
        repeats = _repeats(device, deployed, plan.seed)
        timing, gate = pool(repeats), gate_of(repeats)
        if gate.relative > _WIDEST_GATE:
            raise UnstableMeasurement(
                f"A/A runs differ by {50 * gate.relative:.0f}%: no gate would be of use",
                where=device.name,
                hint="stop other programs on the device, then accept again",
            )
        enduring = check_endurance(
            device,
            deployed.artifact,
            record.backend,
            runs=plan.runs,
            latency_ms=timing.ms,
            emulator_s=plan.emulator_s,
            threads=record.threads,
        )
        _must_pass(enduring.check, deployed)
        blocks = measure_blocks(device, deployed, material.graph, folder)
    accuracy, images = None, None
    if plan.data is not None:
        pictures = load_pictures(plan.data, deployed, plan.images, plan.seed, plan.space)
        check = check_accuracy(device, deployed, material, pictures, baseline=None)
        _must_pass(check, deployed)
        accuracy, images = check.value, pictures.digest
    energy = energy_mj(target, timing.ms, record.threads)
    state = timing.state
    baseline = Baseline(
        target=target.name,
        deployment=deployed.name,
        backend=record.backend,
        runtime=runtime_of(identity, record.backend),
        evidence=timing.evidence,
        device=device.name,
        device_identity=identity,
        versions={"edgeofa": __version__},
        artifact=record.artifact.sha256,
        threads=record.threads,
        latency=LatencyRecord(
            ms=timing.ms,
            low_ms=timing.low_ms,
            high_ms=timing.high_ms,
            rounds=timing.rounds,
            yardsticks=timing.yardsticks,
            yardstick_ns=timing.yardstick_ns,
        ),
        gate=GateRecord(relative=gate.relative, absolute_ms=gate.absolute_ms, runs=len(repeats)),
        energy_mj=None if energy is None else energy.mj,
        load_ms=timing.load_ms,
        peak_rss_bytes=timing.peak_rss_bytes,
        heap_bytes=enduring.heap_bytes,
        arena_bytes=timing.arena_bytes,
        stack_bytes=timing.stack_bytes,
        accuracy=accuracy,
        accuracy_images=images,
        outputs=digest_outputs(outputs),
        blocks=tuple(
            BlockFigure(block=name, ms=b.ms, low_ms=b.low_ms, high_ms=b.high_ms)
            for name, b in blocks.items()
        ),
        state=StateRecord(
            clock_hz=state.clock_hz,
            governor=state.governor,
            temperature_c=state.temperature_c,
            throttled=state.throttled,
            load=state.load,
        ),
        date=today(),
        reason=reason,
    )
    path = baseline_path(plan.baselines, baseline)
    if path.exists():
        baseline = baseline.model_copy(update={"history": _history(load_baseline(path))})
    return save_baseline(plan.baselines, baseline), baseline


def _must_pass(check: Check, deployed: Deployed) -> None:
    if check.status not in ("passed", "skipped"):
        raise RegressionFound(
            f"not accepted, {check.name}: {check.summary}",
            where=deployed.name,
            hint="edgeofa test says more",
        )


def _repeats(device: Device, deployed: Deployed, seed: int) -> list[Timing]:
    """A/A runs; on a clock those with too wide an interval are no measure of the build."""
    record = deployed.record
    if device.evidence != "measured":
        # the same count of the same code every time
        return [measure_latency(device, deployed.artifact, record.backend, threads=record.threads)]
    kept: list[Timing] = []
    for number in range(3 * REPEATS):
        timing = measure_latency(
            device,
            deployed.artifact,
            record.backend,
            threads=record.threads,
            seed=seed + number,
        )
        if timing.half_width <= HALF_WIDTH and timing.rounds >= RULES.min_rounds:
            kept.append(timing)
        if len(kept) == REPEATS:
            return kept
    raise UnstableMeasurement(
        f"only {len(kept)} of {3 * REPEATS} runs are steady enough",
        where=device.name,
        hint="stop other programs on the device, let it cool, then accept again",
    )


def _history(old: Baseline) -> tuple[HistoryPoint, ...]:
    latency = old.latency
    point = HistoryPoint(
        date=old.date,
        latency_ms=latency.ms,
        low_ms=latency.low_ms,
        high_ms=latency.high_ms,
        artifact=old.artifact,
        reason=old.reason,
    )
    return (*old.history, point)[-MAX_HISTORY:]
