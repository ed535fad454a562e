"""The best subnet under a network predictor: ours, once-for-all's evolution, and others.

On once-for-all's own phone tables and accuracy predictor: for every budget, the anytime search
(exact solver inside) against the best of five seeds of the evolutionary search at its published
settings, with both times; the proven ceiling; and random search, regularised evolution, MCTS and
SMBO with as many predictor calls as ours had.

    python benchmarks/solver_quality.py --tables DIR --predictor FILE [--json FILE]

DIR holds the official ``RESOLUTION_lookup_table.yaml`` files of one device. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

# one thread for everyone; numpy reads these when it is imported
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

from edgeofa.accuracy.mlp import import_ofa_predictor  # noqa: E402
from edgeofa.paths import write_atomic  # noqa: E402
from edgeofa.solver.anytime import DEFAULT_CALLS, anytime  # noqa: E402
from edgeofa.solver.bound import bound  # noqa: E402
from edgeofa.solver.problem import Budgets, Problem, build_problem  # noqa: E402
from edgeofa.solver.searchers import SearchResult, get_searcher  # noqa: E402
from edgeofa.solver.stack import stacked  # noqa: E402
from edgeofa.spaces import load_space  # noqa: E402
from edgeofa.tables.lookup import Origin, import_lookups  # noqa: E402

BUDGETS_MS = (15, 20, 25, 30, 35, 40, 50, 60)
OTHERS = ("random", "regularised", "mcts", "smbo")
SPEED_UP = 30
_EVERYTHING = 1_000_000


def official_problem(tables: Path, predictor: Path, space_name: str) -> Problem:
    space = load_space(space_name)
    model = import_ofa_predictor(predictor, space)
    origin = Origin(
        target="official",
        target_digest="0" * 16,
        device=tables.name,
        backend="litert",
        precision="float32",
        threads=1,
        runtime="TensorFlow Lite",
        date=datetime.now(UTC).date().isoformat(),
    )
    files = sorted(tables.glob("*_lookup_table.yaml"), key=lambda p: int(p.name.split("_")[0]))
    # one problem a file: two resolutions time the blocks that they share each for itself
    problems = [build_problem(space, import_lookups([f], space, origin), model) for f in files]
    return stacked(problems)


def timed(call: object, *arguments: object, **options: object) -> tuple[SearchResult, float]:
    start = time.process_time()
    result = call(*arguments, **options)  # type: ignore[operator]
    return result, time.process_time() - start


def compare(problem: Problem, budget_ms: float, seeds: int, calls: int, seconds: float) -> dict:
    limits = problem.limits(Budgets(latency_ms=budget_ms))
    ours, ours_cpu = timed(anytime, problem, limits, calls=calls, seed=0)
    evolution = get_searcher("ofa-evolution")
    runs = [timed(evolution.search, problem, limits, _EVERYTHING, s) for s in range(seeds)]
    best = max(result.value for result, _ in runs)
    ceiling = bound(problem, limits, best=ours.value, seconds=seconds)
    others = {
        name: get_searcher(name).search(problem, limits, ours.calls, 0).value for name in OTHERS
    }
    wall, cpu = sum(r.seconds for r, _ in runs), sum(c for _, c in runs)
    return {
        "budget_ms": budget_ms,
        "ours": ours.value,
        "subnet": str(ours.best),
        "latency_ms": problem.latency_ms(problem.totals(ours.best).latency_ns),
        "calls": ours.calls,
        "ours_seconds": ours.seconds,
        "ours_cpu_seconds": ours_cpu,
        "evolution": [result.value for result, _ in runs],
        "evolution_best": best,
        "evolution_calls": sum(result.calls for result, _ in runs),
        "evolution_seconds": wall,
        "evolution_cpu_seconds": cpu,
        "ratio": cpu / ours_cpu,
        "ratio_one_seed": cpu / seeds / ours_cpu,
        "bound": ceiling.value,
        "bound_interval": ceiling.interval,
        "bound_nodes": ceiling.nodes,
        "gap": ceiling.value - ours.value,
        **others,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--space", default="ofa_mbv3_w12")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=DEFAULT_CALLS)
    parser.add_argument("--bound-seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    problem = official_problem(options.tables, options.predictor, options.space)
    print(f"{problem.space.count():.2e} subnets; resolutions {problem.resolutions}; accuracy in %")
    print(
        " ms |   ours evolution diff | CPU s: ours evolution (5) ratio one seed |"
        "  proven ceiling  gap | " + " ".join(f"{n:>11}" for n in OTHERS)
    )
    rows = []
    for budget_ms in BUDGETS_MS:
        row = compare(problem, budget_ms, options.seeds, options.calls, options.bound_seconds)
        rows.append(row)
        print(
            f"{budget_ms:3} | {100 * row['ours']:6.3f} {100 * row['evolution_best']:9.3f}"
            f" {100 * (row['ours'] - row['evolution_best']):+.3f}"
            f" | {row['ours_cpu_seconds']:11.3f} {row['evolution_cpu_seconds']:13.2f}"
            f" {row['ratio']:5.0f} {row['ratio_one_seed']:8.1f}"
            f" | {100 * row['bound']:15.1f} {100 * row['gap']:7.1f} | "
            + " ".join(f"{100 * row[n]:11.3f}" for n in OTHERS),
            flush=True,
        )
    better = all(r["ours"] >= r["evolution_best"] for r in rows)
    faster = all(r["ratio"] >= SPEED_UP for r in rows)
    print(
        f"at least as accurate at every budget: {'yes' if better else 'NO'}\n"
        f"in at most 1/{SPEED_UP} of the time of all {options.seeds} seeds: "
        f"{'yes' if faster else 'NO'}"
    )
    if options.json:
        write_atomic(options.json, json.dumps(rows, indent=2) + "\n")
    return 0 if better and faster else 1


if __name__ == "__main__":
    sys.exit(main())
