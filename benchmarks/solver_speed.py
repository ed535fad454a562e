"""The exact solver: right answers, and how fast.

    python benchmarks/solver_speed.py [--json FILE] [--seed N]

1. against plain enumeration on small random spaces, every combination of budgets, K best;
2. against HiGHS (scipy, the extra ``solvers``) on the full ofa_mbv3, all resolutions;
3. seconds for one budget, for four budgets, and for the whole frontier, on the full ofa_mbv3.

Exits with 1 when an optimum differs, when HiGHS is not there to compare with, or when the frontier
takes a second or more.

The published table of ofa_mbv3 is taken where it covers all 25 resolutions. Where it does not, the
figures are made up from each block's MACs with noise of its own: the solver's work does not depend
on where they come from, and no claim about a device is made. The scores are made up too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from edgeofa.accuracy.base import MacsProxy
from edgeofa.errors import MissingMaterial, UsageError
from edgeofa.jsonio import dumps
from edgeofa.solver.crosscheck import enumerated_scores, highs_optimum
from edgeofa.solver.exact import k_best
from edgeofa.solver.frontier import frontier
from edgeofa.solver.problem import Budgets, Limits, Problem, build_problem
from edgeofa.spaces import Space, load_space
from edgeofa.spaces.automaton import Automaton, Edge, Option
from edgeofa.spaces.blocks import Block, block_macs
from edgeofa.tables.store import find_table
from edgeofa.tables.table import Header, Row, Table
from edgeofa.targets import load_target

SMALL_SPACES = 60
REPEATS = 5
K = 64
#: the mark of the acceptance, for the frontier of the full ofa_mbv3
FRONTIER_LIMIT_S = 1.0


class NoisyProxy(MacsProxy):
    """The MACs proxy with a factor for each place and layer: layers differ in worth."""

    def __init__(self, space: Space, seed: int):
        super().__init__(space)
        rng = random.Random(seed)
        self._place_worth = {
            (i, j, layer): rng.uniform(0.3, 1.0) / (1 + j)
            for i, j in space.slots
            for layer in space.stages[i].layers_at(j)
        }

    def option_score(self, context: int, automaton: Automaton, edge: Edge, option: Option) -> float:
        if edge.place is None or option.layer is None:
            return 0.0
        worth = self._place_worth[*edge.place, option.layer]
        return worth * super().option_score(context, automaton, edge, option)


def made_up_table(space: Space, seed: int, *, independent: bool = False) -> Table:
    """Rows from the MACs with up to 10% of noise, or of numbers that know nothing of each other."""
    rng = random.Random(seed)

    def row(block: Block) -> Row:
        if independent:
            ms, mj = rng.randint(1, 40) / 8, rng.randint(1, 40) / 8
            weight, peak = rng.randint(1, 40), rng.randint(1, 40)
        else:
            ms = (0.05 + block_macs(block) / 4e6) * rng.uniform(0.9, 1.1)
            mj = 4 * ms * rng.uniform(0.9, 1.1)
            weight = block.cin * block.mid + block.mid * (block.kernel**2 + block.cout)
            peak = block.size**2 * (block.cin + block.mid)
        ms, mj = round(ms, 6), round(mj, 6)
        return Row(block.key, ms, ms, ms, mj, mj, mj, peak, weight, 1, 1, "estimated", "ok")

    header = Header(
        target="made-up",
        target_digest="",
        space=space.name,
        backend="none",
        precision="int8",
        threads=1,
        evidence="estimated",
        runtime="",
        runtime_version="",
        runtime_digest="",
        device={},
        protocol_version=1,
        seed=seed,
        date="",
        edgeofa_version="",
        resolutions=space.resolutions,
        additivity=None,
    )
    return Table(header, {b.key: row(b) for b in space.all_blocks()})


def small_space(rng: random.Random) -> Space:
    """One to three stages of at most three layers, from the shape of a shipped space."""
    base = load_space("cifar_micro").model_dump()
    stages = [
        {
            **base["stages"][0],
            "out": 16 + 8 * i,
            "stride": 1,
            "depths": rng.choice([[1], [2], [1, 2], [1, 3]]),
            "kernels": rng.choice([[3], [3, 5]]),
            "expands": rng.choice([[3], [2, 4]]),
            "first_expands": None,
        }
        for i in range(rng.choice([1, 2]))
    ]
    resolutions = rng.choice([(20,), (20, 24), (20, 24, 32)])
    return Space.model_validate({**base, "stages": stages, "resolutions": resolutions})


@dataclass(frozen=True)
class Enumeration:
    spaces: int
    largest_space: int
    problems: int
    equal: int


@dataclass(frozen=True)
class Highs:
    problems: int
    equal: int
    highs_s: float
    edgeofa_s: float


@dataclass(frozen=True)
class Seconds:
    """Median and worst of ``runs``."""

    median_s: float
    worst_s: float
    runs: int


@dataclass(frozen=True)
class Report:
    table: str
    resolutions: int
    subnets: float
    enumeration: Enumeration
    highs: Highs | None
    build_problem: Seconds
    one_budget: Seconds
    four_budgets: Seconds
    four_budgets_proven: bool
    frontier: Seconds
    frontier_points: int
    frontier_points_per_resolution: int


def against_enumeration(seed: int) -> Enumeration:
    """K best of every combination of budgets, each set to what some subnet costs exactly."""
    rng = random.Random(seed)
    largest = problems = equal = 0
    for n in range(SMALL_SPACES):
        space = small_space(rng)
        table = made_up_table(space, seed + n, independent=True)
        problem = build_problem(space, table, NoisyProxy(space, seed + n))
        largest = max(largest, space.count())
        for used in itertools.product([False, True], repeat=4):
            model = problem.totals(space.sample(rng))
            latency, energy, weight = (
                c if u else None for c, u in zip(model.sums, used, strict=False)
            )
            limits = Limits((latency, energy, weight), model.peak_bytes if used[3] else None)
            ranking = k_best(problem, limits, 10)
            problems += 1
            wanted = enumerated_scores(problem, limits)[:10]
            equal += ranking.proven and [r.totals.score for r in ranking.best] == wanted
    return Enumeration(SMALL_SPACES, largest, problems, equal)


def budgets_of(problem: Problem) -> list[Budgets]:
    """Latency budgets over the range of the space."""
    front = frontier(problem)
    low, high = (problem.plan_ms(int(front.cost[n])) for n in (0, -1))
    return [Budgets(latency_ms=low * (high / low) ** x) for x in (0.2, 0.4, 0.6, 0.8)]


def four_limits(problem: Problem, budgets: Budgets) -> Limits:
    """Energy, weights and peak, each tighter than what the latency alone would take."""
    alone = k_best(problem, problem.limits(budgets), 1).best[0].totals
    return Limits(
        (alone.latency_ns, int(alone.energy_nj * 0.95), int(alone.weight_bytes * 0.9)),
        int(alone.peak_bytes * 0.95),
    )


def against_highs(problem: Problem) -> Highs | None:
    try:
        import scipy  # noqa: F401
    except ImportError:
        return None
    equal = 0
    seconds = {"highs": 0.0, "edgeofa": 0.0}
    budgets = budgets_of(problem)
    cases = [problem.limits(b) for b in budgets[1:3]] + [four_limits(problem, budgets[1])]
    for limits in cases:
        start = time.perf_counter()
        wanted = highs_optimum(problem, limits)
        seconds["highs"] += time.perf_counter() - start
        start = time.perf_counter()
        ranking = k_best(problem, limits, 1)
        seconds["edgeofa"] += time.perf_counter() - start
        found = ranking.best[0].totals.score if ranking.best else None
        equal += ranking.proven and found == wanted
    return Highs(len(cases), equal, seconds["highs"], seconds["edgeofa"])


def timed(runs: list[Callable[[], object]]) -> Seconds:
    taken = []
    for run in runs:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return Seconds(median(taken), max(taken), len(taken))


def full_table(space: Space, seed: int) -> tuple[Table, str]:
    """The published table where it covers every resolution, else a made-up one, and which."""
    try:
        table = find_table(load_target("rpi4"), space.name, "litert", "int8")
    except (MissingMaterial, UsageError):
        table = None
    if table is not None and set(space.resolutions) <= set(table.header.resolutions):
        return table, f"rpi4/{table.name}, {table.header.evidence}"
    covered = 0 if table is None else len(table.header.resolutions)
    return (
        made_up_table(space, seed),
        f"made up from MACs (the published table covers {covered} of {len(space.resolutions)} "
        "resolutions)",
    )


def measure(seed: int) -> Report:
    space = load_space("ofa_mbv3")
    table, source = full_table(space, seed)
    scores = NoisyProxy(space, seed)
    problem = build_problem(space, table, scores)
    budgets = budgets_of(problem)
    limits = [problem.limits(b) for b in budgets]
    four = [four_limits(problem, b) for b in budgets]
    return Report(
        table=source,
        resolutions=len(problem.resolutions),
        subnets=float(space.count()),
        enumeration=against_enumeration(seed),
        highs=against_highs(problem),
        build_problem=timed([lambda: build_problem(space, table, scores)] * REPEATS),
        one_budget=timed([lambda x=x: k_best(problem, x, K) for x in limits * REPEATS]),  # type: ignore[misc]
        four_budgets=timed([lambda x=x: k_best(problem, x, K) for x in four * REPEATS]),  # type: ignore[misc]
        four_budgets_proven=all(k_best(problem, x, K).proven for x in four),
        frontier=timed([lambda: frontier(problem)] * REPEATS),
        frontier_points=len(frontier(problem)),
        frontier_points_per_resolution=len(frontier(problem, per_resolution=True)),
    )


def text(report: Report) -> str:
    e, h = report.enumeration, report.highs

    def seconds(s: Seconds) -> str:
        return f"{s.median_s:.3f} s median, {s.worst_s:.3f} s worst of {s.runs}"

    rows = [
        (
            "enumeration",
            f"{e.equal} of {e.problems} problems equal (10 best each; {e.spaces} spaces of up to "
            f"{e.largest_space} subnets, all combinations of 4 budgets)",
        ),
        ("HiGHS", "not installed (the extra `solvers`)")
        if h is None
        else (
            "HiGHS",
            f"{h.equal} of {h.problems} optima equal; {h.highs_s:.1f} s against "
            f"{h.edgeofa_s:.2f} s",
        ),
        (
            "ofa_mbv3",
            f"{report.resolutions} resolutions, 10^{math.log10(report.subnets):.1f} subnets; "
            f"table: {report.table}",
        ),
        ("build problem", seconds(report.build_problem)),
        ("one budget", f"{seconds(report.one_budget)} ({K} best)"),
        (
            "four budgets",
            f"{seconds(report.four_budgets)} ({K} best, "
            f"{'all proven' if report.four_budgets_proven else 'NOT all proven'})",
        ),
        (
            "frontier",
            f"{seconds(report.frontier)}; {report.frontier_points} points "
            f"({report.frontier_points_per_resolution} before the resolutions are merged)",
        ),
    ]
    return "\n".join(f"{name:<14} {what}" for name, what in rows)


def failures(report: Report) -> list[str]:
    """What the acceptance asks for and this run did not show."""
    e, h = report.enumeration, report.highs
    found = []
    if e.equal != e.problems:
        found.append(f"{e.problems - e.equal} optima differ from plain enumeration")
    if h is None:
        found.append("HiGHS is not installed, nothing was compared with it (the extra `solvers`)")
    elif h.equal != h.problems:
        found.append(f"{h.problems - h.equal} optima differ from HiGHS")
    if not report.four_budgets_proven:
        found.append("an answer to four budgets is not proven")
    if not report.frontier.median_s < FRONTIER_LIMIT_S:
        found.append(f"the frontier takes {report.frontier.median_s:.2f} s")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = measure(arguments.seed)
    print(text(report))
    if arguments.json:
        arguments.json.write_text(dumps(dataclasses.asdict(report)) + "\n", encoding="utf-8")
    missed = failures(report)
    for failure in missed:
        print(f"MISSED: {failure}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
