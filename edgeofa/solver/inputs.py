"""What a verb needs before it can solve: the table, the accuracy model, and the problem of both.

Nothing here imports the training framework: an accuracy model is numbers in a file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeVar

from edgeofa.accuracy.base import AccuracyModel, MacsProxy
from edgeofa.devices.base import Evidence
from edgeofa.errors import MissingMaterial, NoSubnetFits, StaleTable, UsageError
from edgeofa.graph.ir import DType
from edgeofa.solver.problem import Budgets, Problem, build_problem
from edgeofa.solver.select import Selection, select
from edgeofa.spaces import Space
from edgeofa.tables.store import find_table
from edgeofa.tables.table import Table
from edgeofa.targets import Target

_T = TypeVar("_T", bound=str)


@dataclass(frozen=True, eq=False)
class Inputs:
    """One table with the problem that it poses."""

    space: Space
    table: Table
    accuracy: AccuracyModel
    problem: Problem


@dataclass(frozen=True)
class Answer:
    """What ``edgeofa solve`` prints: the selection, and the table that it was made on."""

    target: str
    space: str
    backend: str
    precision: DType
    threads: int
    table: str
    evidence: Evidence
    selection: Selection


def load_inputs(
    target: Target,
    space: Space,
    backend: str,
    precision: DType,
    threads: int = 1,
    *,
    proxy: bool = False,
) -> Inputs:
    """The inputs for one back end and precision.

    Args:
        proxy: plan with the MACs proxy, for weights that are not trained: no accuracy is claimed.

    Raises:
        MissingMaterial: no table, or no trained supernet and no ``proxy``.
    """
    table = find_table(target, space.name, backend, precision, threads)
    accuracy = MacsProxy(space) if proxy else _trained(space)
    return Inputs(space, table, accuracy, build_problem(space, table, accuracy))


def load_candidates(
    target: Target,
    space: Space,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    *,
    proxy: bool = False,
) -> list[Inputs]:
    """The inputs of every precision asked for: of the first back end that has a table of it.

    Args:
        backend: one of the target's, or ``auto`` for its order of preference.
        precision: one of the target's, or ``auto`` for all of them.

    Raises:
        UsageError: a back end or a precision that the target has not.
        MissingMaterial: there is no table at all, or no trained supernet.
    """
    backends = _named(backend, target.backends, f"target {target.name} has no back end")
    precisions = _named(precision, target.precisions, f"target {target.name} has no precision")
    found: list[Inputs] = []
    missing: MissingMaterial | None = None
    stale: list[StaleTable] = []
    for p in precisions:
        for b in backends:
            try:
                found.append(load_inputs(target, space, b, p, threads, proxy=proxy))
                break
            except MissingMaterial as error:
                missing = missing or error
                if isinstance(error, StaleTable):
                    stale.append(error)
    if not found:
        raise missing or UsageError("nothing to choose from", where=f"target {target.name}")
    for old in stale:
        warnings.warn(f"left out: {old}", stacklevel=2)
    return found


def choose(candidates: list[Inputs], budgets: Budgets, *, k: int = 64) -> tuple[Inputs, Selection]:
    """The best subnet over all candidates; raises ``NoSubnetFits`` where none has one."""
    best: tuple[Inputs, Selection] | None = None
    refusal: NoSubnetFits | None = None
    for inputs in candidates:
        try:
            selection = select(inputs.problem, budgets, k=k)
        except NoSubnetFits as error:
            refusal = refusal or error
            continue
        if best is None or selection.best.value > best[1].best.value:
            best = inputs, selection
    if best is None:
        raise refusal or UsageError("no candidates to choose from")
    return best


def solve(candidates: list[Inputs], budgets: Budgets, *, k: int = 64) -> Answer:
    """``choose``, as a record that can be printed and stored."""
    inputs, selection = choose(candidates, budgets, k=k)
    h = inputs.table.header
    return Answer(
        target=h.target,
        space=h.space,
        backend=h.backend,
        precision=h.precision,
        threads=h.threads,
        table=inputs.table.name,
        evidence=h.evidence,
        selection=selection,
    )


def _named(wanted: str, known: tuple[_T, ...], refusal: str) -> tuple[_T, ...]:
    if wanted == "auto":
        return known
    chosen = tuple(x for x in known if x == wanted)
    if not chosen:
        raise UsageError(f"{refusal} {wanted!r}", hint=f"auto or one of {', '.join(known)}")
    return chosen


def _trained(space: Space) -> AccuracyModel:
    from edgeofa.elastic.bundles import load_bundle

    return load_bundle(space).accuracy
