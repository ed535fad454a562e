"""How well sums of table rows predict whole networks that had no part in the fit.

    python benchmarks/additivity.py [--json FILE] [--case rpi4/cifar_lite-litert-int8 ...]
        [--subnets N] [--seed S]

Thirty random subnets of each case, other than those of the table's own fit, are run whole and
compared with ``a + b * sum``. On ``rpi4`` and the microcontrollers both sides are modelled by the
same model, so this is the error of adding up, not of the model; of microcontrollers the worst
subnet counts too. On ``host`` both are measured; its table is profiled first, at a few resolutions
and for this benchmark alone, unless you have one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from edgeofa.backends.registry import get_backend
from edgeofa.errors import MissingMaterial
from edgeofa.graph.ir import DType
from edgeofa.jsonio import dumps
from edgeofa.profiling.artifacts import sample_subnets
from edgeofa.profiling.profile import Progress, profile
from edgeofa.profiling.spot import measure_whole
from edgeofa.spaces import load_space
from edgeofa.tables.additivity import error_figures
from edgeofa.tables.store import find_table
from edgeofa.tables.table import Table
from edgeofa.targets import load_target

CASES = (
    "rpi4/cifar_lite-litert-int8",
    "rpi4/cifar_lite-litert-float32",
    "rpi4/cifar_micro-litert-int8",
    "rpi4/cifar_micro-litert-float32",
    "nucleo-l4r5zi/cifar_micro-firmware-int8",
    "nrf5340/cifar_micro-firmware-int8",
    "host/cifar_lite-litert-float32",
    "host/cifar_lite-litert-int8",
)
#: the marks of the acceptance, by evidence: MAPE in percent at most, Spearman at least
MARKS = {"modelled": (3.0, 0.99), "measured": (10.0, 0.0)}
#: percent that every single subnet may be off, with the back end of microcontrollers
MOST_OFF = {"firmware": 3.0}
HOST_RESOLUTIONS = (96, 160)


@dataclass(frozen=True)
class Result:
    case: str
    evidence: str
    subnets: int
    fastest_ms: float
    slowest_ms: float
    mape_percent: float
    bias_percent: float
    worst_percent: float
    spearman: float
    within_10_percent: float
    within_margin: float
    fit_mape_percent: float
    passed: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", nargs="*", default=CASES)
    parser.add_argument("--subnets", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{'case':<40} {'evidence':<9} {'ms':>15} {'MAPE':>6} {'bias':>7} {'worst':>7} "
        f"{'Spearman':>8} {'in 10%':>6} {'in margin':>9}"
    )
    results = []
    for case in options.case:
        result = run(case, options.subnets, options.seed)
        results.append(result)
        r = result
        print(
            f"{r.case:<40} {r.evidence:<9} {r.fastest_ms:6.2f} - {r.slowest_ms:6.2f} "
            f"{r.mape_percent:5.2f}% {r.bias_percent:+6.2f}% {r.worst_percent:6.2f}% "
            f"{r.spearman:8.4f} {r.within_10_percent:6.0%} {r.within_margin:9.0%}"
            f"{'' if r.passed else '  MISSED'}",
            flush=True,
        )
    if options.json:
        options.json.write_text(dumps({"benchmark": "additivity", "results": results}) + "\n")
    return 0 if all(r.passed for r in results) else 1


def run(case: str, count: int, seed: int) -> Result:
    target_name, _, rest = case.partition("/")
    space_name, backend_name, precision_name = rest.split("-")
    target, space = load_target(target_name), load_space(space_name)
    backend = get_backend(backend_name)
    precision: DType = next(p for p in get_args(DType) if p == precision_name)
    try:
        table = find_table(target, space_name, backend_name, precision)
    except MissingMaterial:
        if target.device != "local":
            raise
        # a table of few resolutions must not become the user's own, which every plan would use
        with tempfile.TemporaryDirectory(prefix="edgeofa-additivity-") as folder:
            table = profile(
                target,
                space,
                backend,
                precision,
                resolutions=HOST_RESOLUTIONS,
                out=Path(folder),
                progress=say,
            )
    return judge(case, table, count, seed)


def judge(case: str, table: Table, count: int, seed: int) -> Result:
    h = table.header
    target, space, backend = load_target(h.target), load_space(h.space), get_backend(h.backend)
    fitted = sample_subnets(space, h.resolutions, table.fit.subnets, h.seed)
    # a subnet with a block that failed has no sum
    fresh = [
        s
        for s in sample_subnets(space, h.resolutions, 2 * count, seed, exclude=fitted)
        if all(table.rows[b.key].status != "failed" for b in space.blocks(s))
    ][:count]
    whole = measure_whole(table, target, space, backend, fresh)
    pairs = [
        (table.predict_ms(space.blocks(s)), w.latency_ms, table.sum_ms(space.blocks(s)))
        for s, w in zip(fresh, whole, strict=True)
        if w.status != "failed"
    ]
    predicted, measured, sums = (np.array(v) for v in zip(*pairs, strict=True))
    mape, spearman, within = error_figures(predicted, measured)
    planned = np.array([table.fit.plan_ms(s) for s in sums])
    ratio = predicted / measured - 1
    most, least = MARKS[h.evidence]
    worst = float(100 * np.abs(ratio).max())
    return Result(
        case=case,
        evidence=h.evidence,
        subnets=len(pairs),
        fastest_ms=float(measured.min()),
        slowest_ms=float(measured.max()),
        mape_percent=mape,
        bias_percent=float(100 * ratio.mean()),
        worst_percent=worst,
        spearman=spearman,
        within_10_percent=within,
        within_margin=float(np.mean(planned >= measured)),
        fit_mape_percent=table.fit.mape_percent,
        passed=mape <= most and spearman >= least and worst <= MOST_OFF.get(h.backend, worst),
    )


def say(now: Progress) -> None:
    print(f"  {now.phase} {now.done}/{now.total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
