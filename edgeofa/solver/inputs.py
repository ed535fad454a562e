"""What a verb needs before it can solve: tables, the accuracy model, and the problems of both.

Nothing here imports the training framework: an accuracy model is numbers in a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

from edgeofa.accuracy.base import AccuracyModel, MacsProxy
from edgeofa.accuracy.mlp import MlpAccuracy
from edgeofa.devices.base import Evidence
from edgeofa.errors import MissingMaterial, StaleTable, UsageError
from edgeofa.graph.ir import DType
from edgeofa.solver.budgets import Budgets
from edgeofa.solver.core import Problem
from edgeofa.solver.explain import Explanation, explain
from edgeofa.solver.network import NetworkProof, best_by_network, found_by_network
from edgeofa.solver.problem import build_problem
from edgeofa.solver.question import Question
from edgeofa.solver.select import Selection, answer
from edgeofa.spaces import Space, load_space
from edgeofa.tables.store import find_table, list_tables, read_table
from edgeofa.tables.table import Table
from edgeofa.targets import Target, load_target, target_names

_T = TypeVar("_T", bound=str)
#: more choices of tables than this are not solved one by one
_MAX_CANDIDATES = 64


@dataclass(frozen=True, eq=False)
class Inputs:
    """One table with the problem that it poses; with several targets, the first one's table."""

    space: Space
    table: Table
    accuracy: AccuracyModel
    problem: Problem


@dataclass(frozen=True)
class Plan:
    """How a target would run the network, and the table that says so."""

    target: str
    backend: str
    precision: DType
    threads: int
    table: str
    evidence: Evidence


@dataclass(frozen=True)
class Answer(Plan):
    """What ``edgeofa solve`` prints: the selection, and the tables that it was made on.

    The first target's stand by themselves, the ``others`` follow. ``network`` is the proof where
    the accuracy model is a network; ``explanation`` where it was asked for.
    """

    space: str
    confidence: float | None
    selection: Selection
    others: tuple[Plan, ...] = ()
    network: NetworkProof | None = None
    explanation: Explanation | None = None


def load_candidates(
    target: Target,
    space: Space,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    *,
    proxy: bool = False,
) -> list[Inputs]:
    """The inputs of every precision and back end asked for of which the target has a table.

    Args:
        backend: one of the target's, or ``auto`` for all of them.
        precision: one of the target's, or ``auto`` for all of them.
        proxy: plan with the MACs proxy, for weights that are not trained: no accuracy is claimed.

    Raises:
        UsageError: a back end or a precision that the target has not.
        MissingMaterial: there is no table at all, or no trained supernet.
    """
    tables = find_tables(target, space, backend, precision, threads)
    return pose_candidates([tables], space, MacsProxy(space) if proxy else _trained(space))


def load_named(
    targets: Sequence[str],
    space: str | None,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    *,
    proxy: bool = False,
    predictor: Path | None = None,
    confidence: float | None = None,
) -> list[Inputs]:
    """Like :func:`load_candidates`, for one network on several targets at once.

    Each target brings its own tables; every combination of them is a candidate, since a board's
    precision and back end say nothing about another's.

    Args:
        targets: keys or files of targets, or names under which tables were imported.
        space: by default the first target's own, or the one that its imported tables are of.
        predictor: an accuracy model's file or folder, by default the trained supernet's.
        confidence: see :mod:`edgeofa.solver.margins`.
    """
    if len(set(targets)) != len(targets):
        raise UsageError("a target is named twice", where=", ".join(targets))
    if proxy and predictor is not None:
        raise UsageError(
            "--random-weights plans without an accuracy model, --predictor with one",
            where=predictor,
            hint="leave one of the two out",
        )
    chosen = load_space(space or _default_space(targets[0]))
    tables = [
        find_tables(load_target(name), chosen, backend, precision, threads)
        if _is_target(name)
        else _imported(name, chosen, backend, precision, threads)
        for name in targets
    ]
    if predictor is not None:
        from edgeofa.accuracy.load import load_model

        accuracy = load_model(predictor, chosen)
    else:
        accuracy = MacsProxy(chosen) if proxy else _trained(chosen)
    return pose_candidates(tables, chosen, accuracy, confidence=confidence)


def pose_candidates(
    tables: Sequence[Sequence[Table]],
    space: Space,
    accuracy: AccuracyModel,
    *,
    confidence: float | None = None,
) -> list[Inputs]:
    """The inputs of every choice of one table a target."""
    choices = list(product(*tables))
    if len(choices) > _MAX_CANDIDATES:
        raise UsageError(
            f"{len(choices)} combinations of tables", hint="name --precision and --backend"
        )
    resolutions = None
    if isinstance(accuracy, MlpAccuracy):
        # a network knows only the resolutions that it was trained for
        covered = [set(t.header.resolutions) for several in tables for t in several]
        known = set(accuracy.encoder.resolutions).intersection(*covered)
        resolutions = tuple(sorted(known)) or None
    return [
        Inputs(
            space,
            choice[0],
            accuracy,
            build_problem(
                space,
                choice[0] if len(choice) == 1 else choice,
                accuracy,
                resolutions,
                confidence=confidence,
            ),
        )
        for choice in choices
    ]


def find_tables(
    target: Target, space: Space, backend: str, precision: str, threads: int
) -> list[Table]:
    """The tables of a target, in its order of preference; stale ones are left out with a warning.

    Raises:
        UsageError: a back end or a precision that the target has not.
        MissingMaterial: there is none.
    """
    backends = _named(backend, target.backends, f"target {target.name} has no back end")
    precisions = _named(precision, target.precisions, f"target {target.name} has no precision")
    found: list[Table] = []
    missing: MissingMaterial | None = None
    stale: list[StaleTable] = []
    for p, b in product(precisions, backends):
        try:
            found.append(find_table(target, space.name, b, p, threads, source=space.source))
        except MissingMaterial as error:
            missing = missing or error
            if isinstance(error, StaleTable):
                stale.append(error)
    if not found:
        raise missing or UsageError("nothing to choose from", where=f"target {target.name}")
    for old in stale:
        warnings.warn(f"left out: {old}", stacklevel=2)
    return found


def choose(
    candidates: Sequence[Inputs], budgets: Budgets | Question, *, k: int = 64, seed: int = 0
) -> tuple[Inputs, Selection]:
    """The best subnet over all candidates; raises ``NoSubnetFits`` where none has one.

    ``seed`` is of the search under an accuracy model that is a network.
    """
    question = budgets if isinstance(budgets, Question) else Question((budgets,), k=k)
    if not candidates:
        raise UsageError("no candidates to choose from")
    problems = [c.problem for c in candidates]
    if isinstance(candidates[0].accuracy, MlpAccuracy):
        number, selection = found_by_network(problems, question, seed)
    else:
        number, selection = answer(problems, question)
    return candidates[number], selection


def solve(
    candidates: Sequence[Inputs],
    question: Question,
    *,
    explained: bool = False,
    confidence: float | None = None,
    seconds: float = 10.0,
    seed: int = 0,
) -> Answer:
    """``choose``, as a record that can be printed and stored.

    Args:
        explained: add what binds, what more would buy, and the runner-up.
        confidence: what the candidates were made with, for the record.
        seconds: with an accuracy model that is a network, how long its ceiling is lowered.
        seed: of the search under such a model.
    """
    network = None
    if candidates and isinstance(candidates[0].accuracy, MlpAccuracy):
        problems = [c.problem for c in candidates]
        number, selection, network = best_by_network(problems, question, seconds, seed)
        inputs = candidates[number]
    else:
        inputs, selection = choose(candidates, question)
    first, *others = (_plan(board.table) for board in inputs.problem.boards)
    return Answer(
        **vars(first),
        space=inputs.space.name,
        confidence=confidence,
        selection=selection,
        others=tuple(others),
        network=network,
        explanation=explain(inputs.problem, selection, question) if explained else None,
    )


def _plan(table: Table) -> Plan:
    h = table.header
    return Plan(h.target, h.backend, h.precision, h.threads, table.name, h.evidence)


def _is_target(name: str) -> bool:
    return name.endswith(".toml") or name in target_names() or not list_tables(_folder(name))


def _folder(name: str) -> str:
    """A name that is safe as part of a path pattern; nothing has an empty one."""
    return name if name.replace("-", "").isalnum() else "-"


def _default_space(name: str) -> str:
    if _is_target(name):
        return load_target(name).default_space
    return list_tables(_folder(name))[0].header.space


def _imported(name: str, space: Space, backend: str, precision: str, threads: int) -> list[Table]:
    """Tables of a device that has no target file, as ``edgeofa import table`` leaves them."""
    fits = [
        t.path
        for t in list_tables(_folder(name))
        if t.header.space == space.name
        and t.header.threads == threads
        and backend in ("auto", t.header.backend)
        and precision in ("auto", t.header.precision)
    ]
    if not fits:
        raise MissingMaterial(
            f"no imported table of {space.name} with {backend} {precision}, {threads} thread(s)",
            where=f"target {name}",
            hint=f"edgeofa table list; edgeofa import table ... --target {name}",
        )
    return [read_table(path) for path in fits]


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
