"""``edgeofa test``: every check of every deployment, on the device, against its baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edgeofa import __version__
from edgeofa.devices.base import Device
from edgeofa.emulation.energy import energy_mj
from edgeofa.errors import DeviceError
from edgeofa.regression.accuracy import check_accuracy, load_pictures
from edgeofa.regression.baseline import (
    Baseline,
    digest_outputs,
    find_baseline,
    runtime_of,
)
from edgeofa.regression.blocks import measure_blocks, moved_blocks
from edgeofa.regression.cause import changes, likely_cause
from edgeofa.regression.constants import check_constants
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.endurance import check_endurance
from edgeofa.regression.history import point_of_run, stored_points
from edgeofa.regression.memory import check_load_and_memory, check_memory
from edgeofa.regression.outputs import DoesNotRun, check_outputs, run_images
from edgeofa.regression.record import (
    Check,
    DeploymentTest,
    Moved,
    Point,
    Status,
    TestReport,
    worst,
)
from edgeofa.regression.timing import (
    Comparison,
    Timing,
    compare,
    comparison_text,
    measure_latency,
    settle,
)
from edgeofa.report.progress import Steps
from edgeofa.targets import Target
from edgeofa.workfolder import work_folder


@dataclass(frozen=True)
class Plan:
    """How to test; see ``docs/verbs/test.md``."""

    baselines: Path
    runs: int = 1000
    #: wall seconds that an emulated device spends on the runs in a row
    emulator_s: float = 12.0
    data: Path | None = None
    #: file of the space of ``data``, where it is not a shipped one
    space: str | None = None
    images: int = 50
    seed: int = 0


@dataclass
class _Session:
    """The checks of one deployment, as they come in."""

    device: Device
    target: Target
    deployed: Deployed
    plan: Plan
    folder: Path
    identity: dict[str, str]
    baseline: Baseline | None = None
    checks: list[Check] = field(default_factory=list)
    timing: Timing | None = None
    moved: tuple[Moved, ...] = ()
    #: whether the artifact runs at all
    runs: bool = True

    @property
    def threads(self) -> int:
        return self.deployed.record.threads

    @property
    def backend(self) -> str:
        return self.deployed.record.backend

    def add(self, name: str, status: Status, summary: str, **more: object) -> None:
        self.checks.append(Check(name=name, status=status, summary=summary, **more))


def run_tests(
    target: Target, device: Device, found: Sequence[Deployed], plan: Plan, steps: Steps
) -> TestReport:
    """Test deployments of one target. A device that fails is a check of status ``error``, so that
    a report of what was found before is still written; baselines that are not comparable are a
    ``UsageError`` before anything is measured."""
    for deployed in found:
        _baseline_of(target, device, deployed, plan)
    tests = []
    for deployed in found:
        with steps(f"test {deployed.name}"):
            tests.append(test_deployment(target, device, deployed, plan))
        if tests[-1].status == "error":
            break
    return TestReport(
        status=worst(t.status for t in tests),
        target=target.name,
        deployments=tuple(tests),
        date=today(),
        edgeofa=__version__,
    )


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def test_deployment(
    target: Target, device: Device, deployed: Deployed, plan: Plan
) -> DeploymentTest:
    """All checks of one deployment; ``UsageError`` when its baselines are of another device."""
    begin = time.monotonic()
    identity = dict(device.identity())
    path_and_baseline = _baseline_of(target, device, deployed, plan)
    with work_folder("test") as folder:
        session = _Session(device, target, deployed, plan, folder, identity)
        if path_and_baseline is not None:
            session.baseline = path_and_baseline[1]
        for check in (_outputs, _latency, _endurance, _accuracy):
            try:
                with _timed(session):
                    check(session)
            except DeviceError as error:
                name = check.__name__.removeprefix("_")
                session.add(name, "error", str(error).splitlines()[0][:600])
                break
    baseline, timing = session.baseline, session.timing
    versions = {"edgeofa": __version__}
    changed: tuple[str, ...] = ()
    cause = ""
    if baseline is not None:
        artifact = deployed.record.artifact.sha256
        changed = changes(baseline, artifact, identity, versions, timing)
        slower = any(c.name == "latency" and c.status == "failed" for c in session.checks)
        if slower and timing is not None:
            cause = likely_cause(baseline, artifact, identity, timing, session.moved)
    return DeploymentTest(
        deployment=deployed.name,
        folder=str(deployed.folder),
        target=target.name,
        device=device.name,
        evidence=device.evidence,
        runtime=f"{deployed.record.backend} {identity.get(deployed.record.backend, 'unknown')}",
        artifact=deployed.record.artifact.sha256,
        baseline=None if path_and_baseline is None else str(path_and_baseline[0]),
        checks=tuple(session.checks),
        changes=changed,
        cause=cause,
        history=_history(session),
        device_identity=identity,
        seconds=round(time.monotonic() - begin, 3),
    )


def _baseline_of(
    target: Target, device: Device, deployed: Deployed, plan: Plan
) -> tuple[Path, Baseline] | None:
    return find_baseline(
        plan.baselines,
        target.name,
        deployed.name,
        deployed.record.backend,
        device.evidence,
        device.identity(),
    )


@contextmanager
def _timed(session: _Session) -> Iterator[None]:
    """The seconds of a step go to the last check that it adds."""
    begin, before = time.monotonic(), len(session.checks)
    yield
    if len(session.checks) > before:
        seconds = round(time.monotonic() - begin, 3)
        session.checks[-1] = session.checks[-1].model_copy(update={"seconds": seconds})


def _outputs(session: _Session) -> None:
    material, baseline = session.deployed.material, session.baseline
    if material is None:
        session.add(
            "outputs", "skipped", "the deployment carries no reference: it is older; deploy again"
        )
        return
    session.checks.append(check_constants(session.deployed, material.graph))
    try:
        outputs = run_images(session.device, session.deployed, material.graph, material.inputs)
    except DoesNotRun as error:
        session.add("outputs", "failed", f"the artifact does not run: {error.what}")
        session.runs = False
        return
    accepted = (
        baseline is not None
        and baseline.artifact == session.deployed.record.artifact.sha256
        and baseline.outputs == digest_outputs(outputs)
        and session.checks[-1].status != "failed"
    )
    session.checks.append(
        check_outputs(
            session.device,
            session.deployed,
            material,
            outputs,
            session.folder,
            accepted=accepted,
            suspect=baseline is not None and not accepted,
            threads=session.threads,
        )
    )


def _latency(session: _Session) -> None:
    if not session.runs:
        return
    baseline = session.baseline
    measure = _measurement(session)
    if baseline is None:
        session.timing = timing = measure()
        session.add(
            "latency",
            "passed",
            f"{timing}; no baseline yet (edgeofa baseline accept)",
            value=timing.ms,
            unit="ms",
            evidence=timing.evidence,
        )
        _energy(session, timing)
        return
    old, gate = baseline.timing, baseline.limits
    timing, found, times = settle(measure, lambda new: compare(new, old, gate))
    session.timing = timing
    summary = comparison_text(timing, old, gate, found, times)
    status: Status = "passed"
    if found.change == "unstable":
        status = "unstable"
    elif found.change == "slower":
        status = "failed"
        session.moved = _slower_blocks(session, baseline)
        if session.moved:
            first = session.moved[0]
            summary += f"; most in block {first.block}: {first.old_ms:.3f} → {first.new_ms:.3f} ms"
    session.add(
        "latency",
        status,
        summary,
        value=timing.ms,
        baseline=baseline.latency.ms,
        unit="ms",
        evidence=timing.evidence,
        blocks=session.moved,
    )
    _energy(session, timing, found, gate.relative)
    session.checks += check_load_and_memory(timing, baseline)


def _measurement(session: _Session) -> Callable[[], Timing]:
    def measure() -> Timing:
        return measure_latency(
            session.device,
            session.deployed.artifact,
            session.backend,
            threads=session.threads,
            seed=session.plan.seed,
        )

    return measure


def _slower_blocks(session: _Session, baseline: Baseline) -> tuple[Moved, ...]:
    material = session.deployed.material
    if material is None or not baseline.blocks:
        return ()
    now = measure_blocks(session.device, session.deployed, material.graph, session.folder)
    found = moved_blocks(
        {b.block: b.ms for b in baseline.blocks}, {name: b.ms for name, b in now.items()}
    )
    return tuple(m for m in found if m.new_ms > m.old_ms)


def _energy(
    session: _Session, timing: Timing, found: Comparison | None = None, gate: float = 0.0
) -> None:
    energy = energy_mj(session.target, timing.ms, session.threads)
    if energy is None:
        session.add("energy", "skipped", f"target {session.target.name} has no power figures")
        return
    old = None if session.baseline is None else session.baseline.energy_mj
    span = f"{energy.low_mj:.2f} to {energy.high_mj:.2f}"
    summary = f"{energy.mj:.2f} mJ, modelled from the latency ({span})"
    status: Status = "passed"
    if old is not None and found is not None:
        summary += f", baseline {old:.2f} mJ: {100 * (energy.mj / old - 1):+.1f}%"
        if found.change in ("slower", "unstable") and energy.mj > old * (1 + gate):
            status = "failed" if found.change == "slower" else "unstable"
    session.add(
        "energy", status, summary, value=energy.mj, baseline=old, unit="mJ", evidence="modelled"
    )


def _endurance(session: _Session) -> None:
    if session.timing is None or session.plan.runs == 0:
        return
    found = check_endurance(
        session.device,
        session.deployed.artifact,
        session.backend,
        runs=session.plan.runs,
        latency_ms=session.timing.ms,
        emulator_s=session.plan.emulator_s,
        threads=session.threads,
    )
    old = None if session.baseline is None else session.baseline.heap_bytes
    if found.heap_bytes is not None and old is not None:
        session.checks.append(check_memory("heap", found.heap_bytes, old))
    session.checks.append(found.check)


def _accuracy(session: _Session) -> None:
    material, plan = session.deployed.material, session.plan
    if plan.data is None or material is None or session.timing is None:
        return
    pictures = load_pictures(plan.data, session.deployed, plan.images, plan.seed, plan.space)
    baseline = session.baseline
    same = baseline is not None and baseline.accuracy_images == pictures.digest
    session.checks.append(
        check_accuracy(
            session.device,
            session.deployed,
            material,
            pictures,
            baseline=baseline.accuracy if baseline is not None and same else None,
        )
    )


def _history(session: _Session) -> tuple[Point, ...]:
    """What was accepted of this deployment so far, and this run last."""
    points = stored_points(
        session.plan.baselines,
        session.target.name,
        session.deployed.name,
        session.backend,
        session.device.evidence,
    )
    if session.timing is not None:
        runtime = runtime_of(session.identity, session.backend)
        artifact = session.deployed.record.artifact.sha256
        points.append(point_of_run(session.timing, today(), runtime, artifact))
    return tuple(points)
