"""The frontier as a record: what ``edgeofa frontier`` prints and writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.errors import UsageError
from edgeofa.paths import write_atomic
from edgeofa.solver.budgets import Limits
from edgeofa.solver.frontier import FrontierPoint, frontier, frontier_point
from edgeofa.solver.inputs import Inputs, Plan
from edgeofa.solver.question import Goal, parse_goal
from edgeofa.solver.surface import non_dominated, surface
from edgeofa.tables.table import Table

#: figures are compared to this many parts of their unit (ns, nJ); bytes are whole anyway
_PARTS = 10**6
UNITS = {"latency": "ms", "energy": "mJ", "weight": "bytes", "peak": "bytes"}


@dataclass(frozen=True)
class FrontierRecord:
    """All non-dominated subnets of a space, in ascending order of the first cost.

    ``tables`` are the choices of one plan a target that were looked at; a point's ``plan`` says by
    index which of them it is of. ``slack``: for every subnet there is a point that is as accurate
    and costs at most this much more, in the unit of each goal; 0 where the frontier is exact.
    """

    targets: tuple[str, ...]
    space: str
    goals: tuple[Goal, ...]
    tables: tuple[tuple[Plan, ...], ...]
    resolutions: tuple[int, ...]
    claims_accuracy: bool
    slack: tuple[float, ...]
    points: tuple[FrontierPoint, ...]

    def cost(self, point: FrontierPoint, goal: int) -> float:
        """What a point costs of one goal, in ms, mJ or bytes."""
        return _cost(point, self.goals[goal])

    def label(self, goal: int) -> str:
        """A goal in words: ``predicted latency on rpi4, ms (modelled)``."""
        g = self.goals[goal]
        words = {"weight": "weights", "peak": "peak activations"}.get(g.cost, f"predicted {g.cost}")
        on = f" on {self.targets[g.board]}" if len(self.targets) > 1 else ""
        kinds = {plans[g.board].evidence for plans in self.tables}
        evidence = f" ({', '.join(sorted(kinds))})" if g.cost in ("latency", "energy") else ""
        return f"{words}{on}, {UNITS[g.cost]}{evidence}"

    def drawn(self, goal: int) -> tuple[str, list[float]]:
        """Label and costs of a goal for a picture, where bytes are kilobytes."""
        costs = [self.cost(p, goal) for p in self.points]
        if UNITS[self.goals[goal].cost] != "bytes":
            return self.label(goal), costs
        return self.label(goal).replace("bytes", "KB"), [c / 1024 for c in costs]


def frontier_record(
    candidates: Sequence[Inputs],
    goals: Sequence[Goal] = (Goal("latency"),),
    *,
    peaks: Sequence[int | None] = (),
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> FrontierRecord:
    """The frontier of accuracy against one cost or two, over all candidate tables together.

    Args:
        peaks: leave out every block above these bytes, one a target.

    Raises:
        NoSubnetFits: ``peaks`` leave nothing.
        UsageError: no or more than two costs.
    """
    if not 1 <= len(goals) <= 2 or len(set(goals)) != len(goals):
        raise UsageError("a frontier is against one cost or two different ones")
    limits = Limits((), peaks[0] if peaks else None, tuple(peaks[1:]))
    points: list[FrontierPoint] = []
    slack = [0.0] * len(goals)
    for n, inputs in enumerate(candidates):
        found, lost = _one(inputs, goals, limits, n, progress)
        points += found
        slack = [max(a, b) for a, b in zip(slack, lost, strict=True)]
    kept = _merged(points, goals)
    first = candidates[0]
    tables = tuple(
        tuple(_plan(board.table) for board in inputs.problem.boards) for inputs in candidates
    )
    return FrontierRecord(
        targets=tuple(plan.target for plan in tables[0]),
        space=first.space.name,
        goals=tuple(goals),
        tables=tables,
        resolutions=tuple(sorted({r for c in candidates for r in c.problem.resolutions})),
        claims_accuracy=first.accuracy.claims_accuracy,
        slack=tuple(slack),
        points=tuple(kept),
    )


def _plan(table: Table) -> Plan:
    h = table.header
    return Plan(h.target, h.backend, h.precision, h.threads, table.name, h.evidence)


def _one(
    inputs: Inputs,
    goals: Sequence[Goal],
    limits: Limits,
    plan: int,
    progress: Callable[[int, int], None],
) -> tuple[list[FrontierPoint], list[float]]:
    """The frontier of one candidate, and its slack in the goals' units."""
    problem = inputs.problem
    first = goals[0]
    if len(goals) == 1 and first.cost != "peak":
        found = frontier(problem, first.cost, board=first.board, limits=limits)
        return list(found.points(plan)), [0.0]
    # of equal peaks the fastest networks are wanted, so that peak alone is peak and latency
    pair = [*goals, Goal("latency")] if len(goals) == 1 else list(goals)
    whole = surface(problem, pair, limits=limits, progress=progress)
    points = [
        frontier_point(problem, int(c), path, plan)
        for c, path in zip(whole.contexts, whole.paths, strict=True)
    ]
    lost = []
    for goal, units in zip(goals, whole.slack, strict=False):
        board = problem.boards[goal.board]
        scale = 1.0 if goal.cost in ("weight", "peak") else board.table.fit.b / _PARTS
        lost.append(units * scale)
    return points, lost


def _merged(points: Sequence[FrontierPoint], goals: Sequence[Goal]) -> list[FrontierPoint]:
    """The points that no other beats, over all tables, by ascending costs."""
    costs = np.array([[round(_cost(p, g) * _PARTS) for g in goals] for p in points]).reshape(
        len(points), len(goals)
    )
    if len(goals) == 1:
        costs = np.concatenate([costs, np.zeros_like(costs)], axis=1)
    # a share of the largest score, because models may score in any unit
    largest = max((abs(p.score) for p in points), default=0.0) or 1.0
    scores = np.array([round(p.score / largest * 2.0**50) for p in points], dtype=np.int64)
    return [points[n] for n in non_dominated(costs, scores)]


def _cost(point: FrontierPoint, goal: Goal) -> float:
    on = point.on(goal.board)
    if goal.cost == "latency":
        return on.latency_ms
    if goal.cost == "energy":
        return on.energy_mj or 0.0
    return float(on.flash_bytes if goal.cost == "weight" else on.peak_bytes)


def parse_goals(text: str | None, targets: tuple[str, ...]) -> tuple[Goal, ...]:
    """``latency,weight`` or ``latency@rpi4,latency@host``; by default the latency on each target
    (on the first two)."""
    if text is None:
        return tuple(Goal("latency", n) for n in range(min(len(targets), 2)))
    return tuple(parse_goal(part.strip(), targets) for part in text[:200].split(","))


# ------------------------------------------------------------------------------------ files


def write_frontier(record: FrontierRecord, folder: Path) -> tuple[Path, ...]:
    """``frontier-TARGETS-TABLE`` as .csv, .png and .svg in ``folder``; returns the paths.

    With several tables the name ends with the space's name.
    """
    from edgeofa.report.plots import save_frontier, save_surface

    only = record.tables[0][0].table if len(record.tables) == 1 else record.space
    name = f"frontier-{'-'.join(record.targets)}-{only}"
    if record.goals != parse_goals(None, record.targets):
        name += "-" + "-".join(f"{g.cost}{g.board or ''}" for g in record.goals)
    table = folder / f"{name}.csv"
    write_atomic(table, frontier_csv(record))
    worth = [p.score if p.accuracy is None else p.accuracy for p in record.points]
    title = f"{record.space} on {' and '.join(record.targets)}"
    if len(record.tables) == 1:
        plan = record.tables[0][0]
        threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
        title += f": {plan.backend} {plan.precision}, {threads}"
    axes = [record.drawn(g) for g in range(len(record.goals))]
    if len(axes) == 1:
        pictures = save_frontier(
            list(zip(axes[0][1], worth, strict=True)),
            folder,
            name,
            title=title,
            x_label=axes[0][0],
            claims_accuracy=record.claims_accuracy,
        )
    else:
        pictures = save_surface(
            list(zip(axes[0][1], axes[1][1], worth, strict=True)),
            folder,
            name,
            title=title,
            labels=(axes[0][0], axes[1][0]),
            claims_accuracy=record.claims_accuracy,
        )
    return table, *pictures


_COLUMNS = ("latency_ms", "planned_ms", "energy_mj", "weight_bytes", "code_bytes", "peak_bytes")


def frontier_csv(record: FrontierRecord) -> str:
    """One row a point; figures of further targets in columns that end in ``@TARGET``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    further = [f"{c}@{t}" for t in record.targets[1:] for c in _COLUMNS]
    writer.writerow(["subnet", *_COLUMNS, "score", "accuracy", "tables", *further])
    for point in record.points:
        tables = " ".join(plan.table for plan in record.tables[point.plan])
        values = [
            point.subnet,
            *(getattr(point, c) for c in _COLUMNS),
            point.score,
            point.accuracy,
            tables,
            *(getattr(on, c) for on in point.others for c in _COLUMNS),
        ]
        writer.writerow(
            "" if v is None else f"{v:.6f}" if isinstance(v, float) else v for v in values
        )
    return text.getvalue()
