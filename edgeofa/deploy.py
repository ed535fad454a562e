"""The walk: solve, build, compile, run on the device, verdict; on a miss tighten and solve again.

table, accuracy model, budgets ─► subnet ─► graph ─► artifacts ─► measurements ─► verdict
          ▲                                                                          │
          └──────────────── miss: a tighter latency, three turns at most ◄───────────┘
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from edgeofa.deployment import Attempt, Budget, Deployment
from edgeofa.devices.base import Device
from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.graph.ir import DType
from edgeofa.networks import Network, load_weights
from edgeofa.paths import cache_dir
from edgeofa.placement import Placement, place
from edgeofa.report.progress import Steps
from edgeofa.spaces import Subnet
from edgeofa.targets import Target

if TYPE_CHECKING:
    from edgeofa.solver.inputs import Inputs
    from edgeofa.solver.question import Prefer
    from edgeofa.solver.select import Selection

#: turns of the walk before a miss is the verdict
MAX_TURNS = 3
#: after a miss the next turn aims a little below what would just have been enough
_TIGHTEN = 0.99


@dataclass(frozen=True)
class Request:
    """What to deploy; see ``docs/verbs/deploy.md``."""

    target: str
    budget: Budget
    space: str | None = None
    precision: str = "auto"
    backend: str = "auto"
    threads: int = 1
    data: Path | None = None
    out: Path | None = None
    random_weights: bool = False
    #: of subnets that the accuracy model cannot tell apart: fastest or accurate
    prefer: Prefer = "fastest"
    seed: int = 0
    #: a configured device, an address or a kind; the target's own by default
    device: str | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """A subnet with the table that it was chosen by."""

    inputs: Inputs
    selection: Selection

    @property
    def subnet(self) -> Subnet:
        return self.selection.best.subnet

    @property
    def precision(self) -> DType:
        return self.inputs.table.header.precision

    @property
    def predicted_ms(self) -> float:
        return self.selection.best.latency.ms

    @property
    def accuracy(self) -> float | None:
        return self.selection.best.accuracy


@dataclass(frozen=True, eq=False)
class Turn:
    """One turn of the walk: what was planned with, chosen, built, and found on the device."""

    target: Target
    planned: Budget
    choice: Choice
    network: Network
    placement: Placement
    cost: Budget
    missed: tuple[str, ...]

    @property
    def attempt(self) -> Attempt:
        return Attempt(
            planned=self.planned,
            subnet=str(self.choice.subnet),
            precision=self.choice.precision,
            predicted_ms=self.choice.predicted_ms,
            measured_ms=self.placement.latency.ms,
            missed=self.missed,
            candidates=self.placement.candidates,
        )


def deploy(request: Request, steps: Steps, device: Device | None = None) -> tuple[Deployment, Path]:
    """Make one deployment; returns its record and the folder with artifact and report.

    Args:
        device: a device of the target; by default the one that is configured for it.

    Raises:
        NoSubnetFits: no subnet is within the budgets (the message names the fastest).
        MissingMaterial: no table, checkpoint or data set.
        DeviceError: no back end's artifact could be run.
    """
    from edgeofa.devices.registry import device_for
    from edgeofa.regression.material import make_material
    from edgeofa.report.record import make_record, write_results
    from edgeofa.solver.inputs import load_candidates
    from edgeofa.spaces import load_space
    from edgeofa.targets import load_target

    if request.budget.latency_ms is None:
        raise UsageError(
            "a subnet is chosen by its latency",
            where="--latency",
            hint="--latency 20ms; only a model of your own (--model) goes without",
        )
    target = load_target(request.target)
    space = load_space(request.space or target.default_space)
    backends = target.backends if request.backend == "auto" else (request.backend,)
    with steps("load tables and accuracy model"):
        candidates = _compilable(
            load_candidates(
                target,
                space,
                request.backend,
                request.precision,
                request.threads,
                proxy=request.random_weights,
            )
        )
    with steps("reach the device"):
        device = device or device_for(target, request.device)
    folder = request.out or Path("deployments") / (
        f"{target.name}-{space.name}-{request.budget.latency_ms:g}ms"
    )
    # a budget that cannot be met is found out before a supernet is loaded
    asked = request.budget
    with steps("solve"):
        choice = _choose(candidates, asked, request, target)
    with steps("load weights"):
        weights = load_weights(space, request.data, request.seed, random=request.random_weights)
    folder.mkdir(parents=True, exist_ok=True)
    # artifacts lie in a working folder until the best of them is known
    with alone(folder), TemporaryDirectory(prefix=".work-", dir=folder) as work:
        turns: list[Turn] = []
        planned = asked
        while True:
            with steps("build network"):
                network = weights.network(choice.subnet, choice.precision)
            with steps("compile and run on the device"):
                place_in = Path(work) / f"turn-{len(turns)}"
                placement = place(network, backends, target, device, place_in, request.threads)
            cost = cost_of(target, placement, request.threads)
            missed = asked.missed_by(cost)
            turns.append(Turn(target, planned, choice, network, placement, cost, missed))
            if not missed or len(turns) == MAX_TURNS:
                break
            planned = planned.tightened(asked, cost, _TIGHTEN)
            steps.note(
                f"{placement.latency.ms:.2f} ms on {device.name}, over budget "
                f"({', '.join(missed)}): solving again for {planned.latency_ms:.2f} ms"
            )
            try:
                with steps("solve"):
                    choice = _choose(candidates, planned, request, target)
            except NoSubnetFits:
                steps.note("no subnet fits the tightened budget")
                break
        best = min(turns, key=lambda t: (len(t.missed), t.placement.latency.ms))
        with steps("measure accuracy"):
            accuracy = weights.accuracy(best.network)
        with steps("report"):
            record = make_record(request, device, weights, turns, best, accuracy, steps.seconds)
            material = make_material(best.network.graph, best.network.inputs)
            deployment = write_results(record, best.placement.artifact, material, folder)
    return deployment, folder


def _compilable(candidates: Sequence[Inputs]) -> list[Inputs]:
    """Those whose back end can compile here: no subnet is planned for an extra that was left out.

    Raises ``SetupError`` with the command that brings it where there is no other.
    """
    from edgeofa.backends.registry import why_not

    reasons = {c.table.header.backend: why_not(c.table.header.backend) for c in candidates}
    found = [c for c in candidates if reasons[c.table.header.backend] is None]
    missing = next((reason for reason in reasons.values() if reason is not None), None)
    if not found and missing is not None:
        raise missing
    return found


def cost_of(target: Target, placement: Placement, threads: int) -> Budget:
    """What the placed network costs, on every axis that a budget can be given for."""
    from edgeofa.emulation.energy import energy_mj

    energy = energy_mj(target, placement.latency.ms, threads)
    return Budget(
        latency_ms=placement.latency.ms,
        energy_mj=None if energy is None else energy.mj,
        flash_bytes=placement.artifact.weight_bytes + (placement.memory.code_bytes or 0),
        sram_bytes=placement.artifact.peak_bytes,
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a second deployment out of ``folder`` while this one writes there."""
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"deploy-{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            "another deployment is writing here", where=folder, hint="wait for it, or use --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _choose(candidates: list[Inputs], budget: Budget, request: Request, target: Target) -> Choice:
    """The most accurate subnet within the budget, and the target's memory, over all candidates."""
    from edgeofa.fitting import room_on
    from edgeofa.solver.budgets import Budgets
    from edgeofa.solver.inputs import choose
    from edgeofa.solver.question import Question

    room = room_on(target, budget.sram_bytes, budget.flash_bytes)
    budgets = Budgets(
        latency_ms=budget.latency_ms,
        energy_mj=budget.energy_mj,
        weight_bytes=room.flash_bytes,
        peak_bytes=room.ram_bytes,
    )
    question = Question((budgets,), prefer=request.prefer)
    return Choice(*choose(candidates, question, seed=request.seed))
