"""The walk: solve, build, compile, run on the device, verdict; on a miss tighten and solve again.

table, accuracy model, budgets ─► subnet ─► graph ─► artifacts ─► measurements ─► verdict
          ▲                                                                          │
          └──────────────── miss: a tighter latency, three turns at most ◄───────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeofa.deployment import Attempt, Budget, Deployment
from edgeofa.devices.base import Device
from edgeofa.errors import NoSubnetFits
from edgeofa.graph.ir import DType
from edgeofa.networks import Network, RandomWeights, TrainedWeights, WeightSource
from edgeofa.placement import Placement, place
from edgeofa.report.progress import Steps
from edgeofa.spaces import Space, Subnet

if TYPE_CHECKING:
    from edgeofa.solver.inputs import Inputs
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
    seed: int = 0


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

    planned_ms: float
    choice: Choice
    network: Network
    placement: Placement

    @property
    def attempt(self) -> Attempt:
        return Attempt(
            planned_ms=self.planned_ms,
            subnet=str(self.choice.subnet),
            precision=self.choice.precision,
            predicted_ms=self.choice.predicted_ms,
            measured_ms=self.placement.latency.ms,
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
    from edgeofa.report.record import make_record, write_results
    from edgeofa.solver.inputs import load_candidates
    from edgeofa.spaces import load_space
    from edgeofa.targets import load_target

    target = load_target(request.target)
    space = load_space(request.space or target.default_space)
    backends = target.backends if request.backend == "auto" else (request.backend,)
    with steps("load tables and accuracy model"):
        candidates = load_candidates(
            target,
            space,
            request.backend,
            request.precision,
            request.threads,
            proxy=request.random_weights,
        )
    with steps("reach the device"):
        device = device or device_for(target)
    folder = request.out or Path("deployments") / (
        f"{target.name}-{space.name}-{request.budget.latency_ms:g}ms"
    )
    # a budget that cannot be met is found out before a supernet is loaded
    with steps("solve"):
        choice = _choose(candidates, request.budget, request.budget.latency_ms)
    with steps("load weights"):
        weights = load_weights(request, space)
    # artifacts lie in a working folder until the best of them is known
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".work-", dir=folder) as work:
        turns: list[Turn] = []
        limit = request.budget.latency_ms
        while True:
            with steps("build network"):
                network = weights.network(choice.subnet, choice.precision)
            with steps("compile and run on the device"):
                place_in = Path(work) / f"turn-{len(turns)}"
                placement = place(network, backends, device, place_in, request.threads)
            turns.append(Turn(limit, choice, network, placement))
            found_ms = placement.latency.ms
            if found_ms <= request.budget.latency_ms or len(turns) == MAX_TURNS:
                break
            limit *= request.budget.latency_ms / found_ms * _TIGHTEN
            steps.note(
                f"{found_ms:.2f} ms on {device.name}, over the budget of "
                f"{request.budget.latency_ms:g} ms: solving again for {limit:.2f} ms"
            )
            try:
                with steps("solve"):
                    choice = _choose(candidates, request.budget, limit)
            except NoSubnetFits:
                steps.note(f"no subnet fits {limit:.2f} ms")
                break
        best = min(turns, key=lambda t: t.placement.latency.ms)
        with steps("report"):
            record = make_record(request, target, device, weights, turns, best, steps.seconds)
            deployment = write_results(record, best.placement.artifact, folder)
    return deployment, folder


def load_weights(request: Request, space: Space) -> WeightSource:
    """The bundle's weights, or random ones where asked for."""
    from edgeofa.elastic.bundles import load_bundle

    if request.random_weights:
        return RandomWeights(space, request.seed)
    return TrainedWeights(load_bundle(space), request.data, request.seed)


def _choose(candidates: list[Inputs], budget: Budget, latency_ms: float) -> Choice:
    """The most accurate subnet within the budget, at ``latency_ms``, over all candidates."""
    from edgeofa.solver.inputs import choose
    from edgeofa.solver.problem import Budgets

    budgets = Budgets(
        latency_ms=latency_ms,
        energy_mj=budget.energy_mj,
        weight_bytes=budget.flash_bytes,
        peak_bytes=budget.sram_bytes,
    )
    return Choice(*choose(candidates, budgets))
