"""The best subnet under a network predictor: ours, once-for-all's evolution, and others.

On once-for-all's own phone tables and accuracy predictor: for every budget, the anytime search
(exact solver inside) against the best of five seeds of the evolutionary search at its published
settings (population 100, 500 generations), with both times; the proven ceiling and the gap; and
random search, regularised evolution, MCTS and SMBO with as many predictor calls as ours had. At the
end, how often ours at ten other seeds is at least as good as evolution's best.

    python benchmarks/solver_quality.py --tables DIR --predictor FILE [--json FILE]

DIR holds the official ``RESOLUTION_lookup_table.yaml`` files of one device. One thread. Every
budget is written to the --json file as soon as it is done; run again, those are not repeated (the
line says "kept"). Times are CPU seconds of this process; the load of the machine is stored beside
them. ``--quick`` tries the benchmark itself: two budgets, two seeds, a tenth of the generations.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# one thread for everyone; numpy reads these when it is imported
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

from edgeofa.accuracy.mlp import import_ofa_predictor  # noqa: E402
from edgeofa.errors import EdgeofaError, FileFormatError, UsageError  # noqa: E402
from edgeofa.paths import write_atomic  # noqa: E402
from edgeofa.solver.anytime import DEFAULT_CALLS, anytime  # noqa: E402
from edgeofa.solver.bound import bound  # noqa: E402
from edgeofa.solver.problem import Budgets, Problem, build_problem  # noqa: E402
from edgeofa.solver.searchers import get_searcher  # noqa: E402
from edgeofa.solver.searchers.ofa import OfaEvolution  # noqa: E402
from edgeofa.solver.stack import stacked  # noqa: E402
from edgeofa.spaces import load_space  # noqa: E402
from edgeofa.tables.lookup import Origin, import_lookups  # noqa: E402

BUDGETS_MS = (15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 50.0, 60.0)
OTHERS = ("random", "regularised", "mcts", "smbo")
#: seconds at which the proven ceiling is told
CURVE_S = (1, 5, 30, 120)
SPEED_UP = 30
#: seeds of ours that nothing was tried with while it was written
FIRST_FRESH = 10
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
    # one problem a file: two resolutions time the blocks that they share each for itself
    problems = [
        build_problem(space, import_lookups([f], space, origin), model) for f in table_files(tables)
    ]
    return stacked(problems)


def table_files(tables: Path) -> list[Path]:
    found = [p for p in tables.glob("*_lookup_table.yaml") if p.name.split("_")[0].isdecimal()]
    if not found:
        raise UsageError(
            "no RESOLUTION_lookup_table.yaml in it",
            where=tables,
            hint="--tables names the folder of one device's official look-up tables",
        )
    return sorted(found, key=lambda p: int(p.name.split("_")[0]))


def timed(call: Any, *arguments: Any, **options: Any) -> tuple[Any, float]:
    start = time.process_time()
    result = call(*arguments, **options)
    return result, time.process_time() - start


def compare(problem: Problem, budget_ms: float, options: argparse.Namespace) -> dict[str, Any]:
    """One budget's figures, accuracies as fractions."""

    def say(text: str) -> None:
        print(f"\r{budget_ms:g} ms: {text:<40}", end="", file=sys.stderr, flush=True)

    load = os.getloadavg()[0]
    limits = problem.limits(Budgets(latency_ms=budget_ms))
    say("ours")
    ours, ours_cpu = timed(anytime, problem, limits, calls=options.calls, seed=0)
    say("ours, other seeds")
    fresh = [
        anytime(problem, limits, calls=options.calls, seed=seed).value
        for seed in range(FIRST_FRESH, FIRST_FRESH + options.fresh_seeds)
    ]
    evolution = OfaEvolution(generations=options.generations)
    runs = []
    for seed in range(options.seeds):
        say(f"evolution, seed {seed}")
        runs.append(timed(evolution.search, problem, limits, _EVERYTHING, seed))
    others: dict[str, float] = {}
    times: dict[str, float] = {}
    for name in OTHERS:
        say(name)
        result, cpu = timed(get_searcher(name).search, problem, limits, ours.calls, 0)
        others[name], times[name] = result.value, cpu
    say("proven ceiling")
    ceiling = bound(problem, limits, best=ours.value, seconds=options.bound_seconds)
    say("")
    print("\r", end="", file=sys.stderr)
    cpu = sum(c for _, c in runs)
    return {
        "budget_ms": budget_ms,
        "load": load,
        "ours": ours.value,
        "subnet": str(ours.best),
        "latency_ms": problem.latency_ms(problem.totals(ours.best).latency_ns),
        "calls": ours.calls,
        "ours_fresh": fresh,
        "ours_seconds": ours.seconds,
        "ours_cpu_seconds": ours_cpu,
        "trace": [[s.calls, s.value] for s in ours.trace],
        "evolution": [result.value for result, _ in runs],
        "evolution_best": max(result.value for result, _ in runs),
        "evolution_calls": sum(result.calls for result, _ in runs),
        "evolution_seconds": sum(result.seconds for result, _ in runs),
        "evolution_cpu_seconds": cpu,
        "ratio": cpu / ours_cpu,
        "ratio_one_seed": cpu / len(runs) / ours_cpu,
        "bound": ceiling.value,
        "bound_seconds": ceiling.seconds,
        "bound_interval": ceiling.interval,
        "bound_nodes": ceiling.nodes,
        "bound_trace": [list(point) for point in ceiling.trace],
        "gap": ceiling.value - ours.value,
        "others": others,
        "others_cpu_seconds": times,
    }


def line(row: dict[str, Any], kept: bool) -> str:
    ours = row["ours"]
    curve = []
    for seconds in CURVE_S:
        reached = [value for at, value in row["bound_trace"] if at <= seconds]
        known = reached and (seconds <= row["bound_seconds"] or seconds == CURVE_S[0])
        curve.append(f"{100 * (min(reached) - ours):7.1f}" if known else "      -")
    return (
        f"{row['budget_ms']:3g} | {100 * ours:6.3f} {100 * row['evolution_best']:9.3f}"
        f" {100 * (ours - row['evolution_best']):+.3f}"
        f" | {row['ours_cpu_seconds']:6.3f} {row['evolution_cpu_seconds']:13.2f}"
        f" {row['ratio']:5.0f} {row['ratio_one_seed']:8.1f}"
        f" | {100 * row['bound']:7.1f} {100 * row['gap']:6.1f} {''.join(curve)} | "
        + " ".join(f"{100 * row['others'][n]:11.3f}" for n in OTHERS)
        + ("  kept" if kept else "")
    )


def header() -> str:
    return (
        " ms |   ours evolution   diff | CPU s: ours evolution ratio one seed |"
        " ceiling    gap "
        + "".join(f"  {s:3} s " for s in CURVE_S)
        + "|  ".join(f"{n:>11}" for n in OTHERS)
    )


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What kept rows must agree in."""
    digest = hashlib.sha256()
    for file in [*table_files(options.tables), options.predictor]:
        digest.update(file.read_bytes())
    names = ("space", "seeds", "fresh_seeds", "generations", "calls", "bound_seconds")
    return {"inputs": digest.hexdigest(), **{n: getattr(options, n) for n in names}}


def kept_rows(path: Path | None, wanted: dict[str, Any]) -> dict[float, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    hint = "name another file, or remove it to start over"
    try:
        saved = json.loads(path.read_bytes())
        rows = {float(row["budget_ms"]): row for row in saved["rows"]}
        known = saved["settings"]
    except (ValueError, KeyError, TypeError) as failure:
        raise FileFormatError("no results of this benchmark", where=path, hint=hint) from failure
    if known != wanted:
        differ = [k for k in wanted if known.get(k) != wanted[k]]
        raise FileFormatError(f"results with another {', '.join(differ)}", where=path, hint=hint)
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--space", default="ofa_mbv3_w12")
    parser.add_argument(
        "--budgets", type=float, nargs="+", metavar="MS", help="by default 15 to 60 ms, eight"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of the evolutionary search")
    parser.add_argument("--fresh-seeds", type=int, default=10, help=f"of ours, {FIRST_FRESH} on")
    parser.add_argument("--calls", type=int, default=DEFAULT_CALLS, help="predictor calls of ours")
    parser.add_argument("--bound-seconds", type=float, default=30.0, help="for each ceiling")
    parser.add_argument("--json", type=Path, help="results, kept budget by budget")
    parser.add_argument("--quick", action="store_true", help="two budgets, short")
    options = parser.parse_args()
    options.generations = OfaEvolution().generations
    if options.quick:
        options.seeds, options.generations, options.bound_seconds = 2, 50, 5.0
        options.fresh_seeds = 2
    options.budgets = options.budgets or (BUDGETS_MS[:4:3] if options.quick else BUDGETS_MS)
    return options


def main() -> int:
    options = parse()
    wanted = settings(options)
    kept = kept_rows(options.json, wanted)
    problem = official_problem(options.tables, options.predictor, options.space)
    start = time.perf_counter()
    print(f"{problem.space.count():.2e} subnets; resolutions {problem.resolutions}; accuracy in %")
    print(header())
    rows = []
    # what is loaded once is not part of anyone's time
    anytime(problem, problem.limits(Budgets(latency_ms=max(options.budgets))), calls=10)
    for budget_ms in options.budgets:
        known = kept.get(budget_ms)
        row = known or compare(problem, budget_ms, options)
        rows.append(row)
        kept[budget_ms] = row
        print(line(row, known is not None), flush=True)
        if options.json:
            saved = {"settings": wanted, "rows": sorted(kept.values(), key=_budget)}
            write_atomic(options.json, json.dumps(saved, indent=1) + "\n")
    better = all(r["ours"] >= r["evolution_best"] for r in rows)
    faster = all(r["ratio"] >= SPEED_UP for r in rows)
    best_other = max(max(r["others"].values()) - r["ours"] for r in rows)
    print(
        f"at least as accurate as the best of {options.seeds} seeds at every budget: "
        f"{'yes' if better else 'NO'}\n"
        f"in at most 1/{SPEED_UP} of the time of all {options.seeds} seeds: "
        f"{'yes' if faster else 'NO'} (least ratio {min(r['ratio'] for r in rows):.1f}; "
        f"of one seed's time {min(r['ratio_one_seed'] for r in rows):.1f})\n"
        f"{fresh_seeds(rows)}\n"
        f"best of the others at equal calls: {100 * best_other:+.3f} points from ours\n"
        f"{time.perf_counter() - start:.0f} s; load at the start of each budget "
        f"{', '.join(format(r['load'], '.1f') for r in rows)}"
        + (" (--quick: the evolutionary search is cut short)" if options.quick else "")
    )
    return 0 if better and faster else 1


def fresh_seeds(rows: list[dict[str, Any]]) -> str:
    """How often ours at seeds that it was not written with is at least evolution's best."""
    told = []
    for row in rows:
        above = [value - row["evolution_best"] for value in row["ours_fresh"]]
        told.append(
            f"{row['budget_ms']:g} ms {sum(a >= 0 for a in above)} of {len(above)}"
            f" (least {100 * min(above, default=0.0):+.3f})"
        )
    return "ours at other seeds, at least evolution's best: " + ", ".join(told)


def _budget(row: dict[str, Any]) -> float:
    return float(row["budget_ms"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgeofaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
