"""The walk: solve, build, compile, run on the device, verdict; on a miss tighten and solve again.

table, accuracy model, budgets ─► subnet ─► graph ─► artifacts ─► measurements ─► verdict
          ▲                                                                          │
          └──────────────── miss: a tighter latency, three turns at most ◄───────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeofa.deployment import Attempt, Budget, Deployment
from edgeofa.devices.base import Device
from edgeofa.errors import MissingMaterial, NoSubnetFits, UsageError
from edgeofa.graph.ir import DType
from edgeofa.networks import Network, RandomWeights, TrainedWeights, WeightSource
from edgeofa.placement import Placement, place
from edgeofa.report.progress import Steps
from edgeofa.spaces import Space, Subnet
from edgeofa.targets import Target

if TYPE_CHECKING:
    from edgeofa.solver.inputs import Inputs
    from edgeofa.solver.select import Selection

#: turns of the walk before a miss is the verdict
MAX_TURNS = 3
#: after a miss the next turn aims a little below what would just have been enough
_TIGHTEN = 0.99
#: subnets of the additive model that the better accuracy model chooses among
_RERANKED = 64


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
    from edgeofa.report.record import make_record, write_report
    from edgeofa.spaces import load_space
    from edgeofa.targets import load_target

    target = load_target(request.target)
    space = load_space(request.space or target.default_space)
    backends = _backends(request, target)
    with steps("load tables and accuracy model"):
        inputs = _load_inputs(request, target, space, backends)
    with steps("reach the device"):
        device = device or device_for(target)
    folder = request.out or Path("deployments") / (
        f"{target.name}-{space.name}-{request.budget.latency_ms:g}ms"
    )
    # a budget that cannot be met is found out before a supernet is loaded
    with steps("solve"):
        choice = choose(inputs, request.budget)
    with steps("load weights"):
        weights = load_weights(request, space)
    turns: list[Turn] = []
    limit = request.budget.latency_ms
    while True:
        with steps("build network"):
            network = weights.network(choice.subnet, choice.precision)
        with steps("compile and run on the device"):
            placement = place(network, backends, device, folder, request.threads)
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
                choice = choose(inputs, request.budget.model_copy(update={"latency_ms": limit}))
        except NoSubnetFits:
            steps.note(f"no subnet fits {limit:.2f} ms")
            break
    with steps("report"):
        deployment = make_record(request, target, device, weights, turns, steps.seconds)
        write_report(deployment, folder)
    return deployment, folder


def load_weights(request: Request, space: Space) -> WeightSource:
    """The bundle's weights, or random ones where asked for."""
    from edgeofa.elastic.bundles import load_bundle

    if request.random_weights:
        return RandomWeights(space, request.seed)
    return TrainedWeights(load_bundle(space.name), request.data, request.seed)


def _backends(request: Request, target: Target) -> tuple[str, ...]:
    if request.backend == "auto":
        return target.backends
    if request.backend not in target.backends:
        raise UsageError(
            f"target {target.name} has no back end {request.backend!r}",
            hint=f"auto or one of {', '.join(target.backends)}",
        )
    return (request.backend,)


def _precisions(request: Request, target: Target) -> tuple[DType, ...]:
    if request.precision == "auto":
        return target.precisions
    chosen = tuple(p for p in target.precisions if p == request.precision)
    if not chosen:
        raise UsageError(
            f"target {target.name} has no precision {request.precision!r}",
            hint=f"auto or one of {', '.join(target.precisions)}",
        )
    return chosen


def _load_inputs(
    request: Request, target: Target, space: Space, backends: tuple[str, ...]
) -> list[Inputs]:
    """One table a precision: that of the first back end that has one."""
    from edgeofa.solver.inputs import load_inputs

    found: list[Inputs] = []
    missing: list[MissingMaterial] = []
    for precision in _precisions(request, target):
        for backend in backends:
            try:
                inputs = load_inputs(
                    target,
                    space,
                    backend,
                    precision,
                    request.threads,
                    allow_proxy=request.random_weights,
                )
            except MissingMaterial as error:
                missing.append(error)
                continue
            found.append(inputs)
            break
    if not found:
        raise missing[0]
    return found


def choose(inputs: list[Inputs], budget: Budget) -> Choice:
    """The most accurate subnet within the budget over all precisions that have a table."""
    from edgeofa.solver.problem import Budgets
    from edgeofa.solver.select import select

    budgets = Budgets(
        latency_ms=budget.latency_ms,
        energy_mj=budget.energy_mj,
        weight_bytes=budget.flash_bytes,
        peak_bytes=budget.sram_bytes,
    )
    choices: list[Choice] = []
    refusals: list[NoSubnetFits] = []
    for candidate in inputs:
        try:
            selection = select(
                candidate.problem,
                candidate.space,
                candidate.table,
                candidate.accuracy,
                budgets,
                k=_RERANKED,
            )
        except NoSubnetFits as error:
            refusals.append(error)
        else:
            choices.append(Choice(candidate, selection))
    if not choices:
        raise refusals[0]
    # of equals the first: precisions come in the target's order of preference
    return max(choices, key=lambda c: c.selection.best.score if c.accuracy is None else c.accuracy)
