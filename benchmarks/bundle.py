"""What the bundled supernets are worth, and whether it matters which subnet is chosen.

For each space: the largest, the smallest and 20 random subnets on test images, float32 and int8,
calibrated from the bundle's own images; the bundle's size; and the solver's pick for the target's
budget. Then, at each of five latency budgets, the solver's pick against the full-width, full-depth
network at the best resolution that meets the budget, and against the mean of 20 random subnets
within it.

    python benchmarks/bundle.py --data DIR [--space cifar_lite ...] [--images 1000] [--json FILE]

Float32 figures are of the fast path (bfloat16), but the difference that int8 makes is between two
graphs in edgeofa's own executor, over ``--int8-images`` images and ``--int8-subnets`` subnets.
Finished accuracies go to --journal, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402

from edgeofa.accuracy.features import subnet_macs  # noqa: E402
from edgeofa.accuracy.measure import measure_subnets  # noqa: E402
from edgeofa.elastic.bundles import Bundle, load_bundle  # noqa: E402
from edgeofa.elastic.supernet import Supernet  # noqa: E402
from edgeofa.errors import EdgeofaError, NoSubnetFits, UsageError  # noqa: E402
from edgeofa.graph.ir import DType  # noqa: E402
from edgeofa.graph.reference import run_real  # noqa: E402
from edgeofa.jsonio import dumps  # noqa: E402
from edgeofa.networks import TrainedWeights  # noqa: E402
from edgeofa.paths import write_atomic  # noqa: E402
from edgeofa.solver.budgets import Budgets  # noqa: E402
from edgeofa.solver.core import Problem  # noqa: E402
from edgeofa.solver.inputs import load_candidates  # noqa: E402
from edgeofa.solver.prediction import predict  # noqa: E402
from edgeofa.solver.select import select  # noqa: E402
from edgeofa.spaces import Space, Subnet, load_space  # noqa: E402
from edgeofa.targets import load_target  # noqa: E402
from edgeofa.training.data import Images, load_images, preprocess  # noqa: E402

RANDOM = 20
#: budgets, evenly in their logarithm, from just above the full network at the lowest resolution to
#: just above it at the highest: at every one there is a full network to compare with
BUDGETS = 5
_ABOVE = 1.02
#: the pick is to beat the full network by this, and the mean of random subnets by that, in points
OVER_FULL, OVER_RANDOM = 0.5, 2.0
_TRIES = 20_000
_BATCH = 50


@dataclass(frozen=True)
class Measured:
    """Accuracies are fractions. ``float32`` is the fast path's over all images."""

    role: str
    subnet: str
    macs: int
    predicted: float
    float32: float


@dataclass(frozen=True)
class Quantised:
    """Both graphs in edgeofa's executor on the same images."""

    subnet: str
    float32: float
    int8: float


@dataclass(frozen=True)
class AtBudget:
    """What can be had within a budget. ``full`` is None where no full network meets it."""

    budget_ms: float
    pick: Measured
    pick_ms: float
    full: Measured | None
    full_ms: float | None
    randoms: tuple[float, ...]

    @property
    def over_full(self) -> float | None:
        return None if self.full is None else 100 * (self.pick.float32 - self.full.float32)

    @property
    def over_random(self) -> float | None:
        if not self.randoms:
            return None
        return 100 * (self.pick.float32 - statistics.fmean(self.randoms))

    @property
    def matters(self) -> bool:
        full, others = self.over_full, self.over_random
        return (full is None or full >= OVER_FULL) and (others is None or others >= OVER_RANDOM)


@dataclass(frozen=True)
class Report:
    space: str
    target: str
    precision: str
    bytes: int
    images: int
    subnets: tuple[Measured, ...]
    int8_images: int
    quantised: tuple[Quantised, ...]
    pick: Measured
    budgets: tuple[AtBudget, ...]

    @property
    def int8_cost(self) -> float | None:
        """Points that int8 loses, mean over the subnets it was measured on."""
        if not self.quantised:
            return None
        return 100 * statistics.fmean(q.float32 - q.int8 for q in self.quantised)


class Judge:
    """Measures subnets of one bundle, each once."""

    def __init__(self, bundle: Bundle, test: Images, journal: Path):
        if bundle.calibration is None:
            raise UsageError("a bundle without calibration images", where=bundle.folder)
        self.bundle, self.test, self.journal = bundle, test, journal
        self.supernet: Supernet = bundle.supernet()
        self.own = torch.from_numpy(bundle.calibration)

    def __call__(self, named: Sequence[tuple[str, Subnet]]) -> list[Measured]:
        subnets = list(dict.fromkeys(s for _, s in named))
        known = dict(
            measure_subnets(
                self.supernet,
                subnets,
                self.own,
                self.test,
                self.journal,
                lambda n, s, a: print(
                    f"{n + 1}/{len(subnets)} {s} {100 * a:.1f}%", file=sys.stderr, flush=True
                ),
            )
        )
        predicted = dict(zip(subnets, self.bundle.accuracy.rerank(subnets), strict=True))
        return [
            Measured(role, str(s), subnet_macs(self.bundle.space, s), float(predicted[s]), known[s])
            for role, s in named
        ]


def random_subnets(space: Space) -> list[Subnet]:
    rng = random.Random("bundle")
    return [space.sample_by_choice(rng) for _ in range(RANDOM)]


def latencies(problem: Problem, subnets: Sequence[Subnet]) -> list[float]:
    return [p.planned_ms for p in predict(problem, subnets)]


def budgets_of(space: Space, problem: Problem) -> list[float]:
    ends = [space.largest(r) for r in (space.resolutions[0], space.resolutions[-1])]
    low, high = latencies(problem, ends)
    return [_ABOVE * low * (high / low) ** (n / (BUDGETS - 1)) for n in range(BUDGETS)]


def within(space: Space, problem: Problem, budget_ms: float, seed: int) -> list[Subnet]:
    """Random subnets of the space that meet a budget, and use at least half of it."""
    rng, found = random.Random(f"within {seed}"), list[Subnet]()
    for _ in range(_TRIES):
        subnet = space.sample_by_choice(rng)
        if budget_ms / 2 <= latencies(problem, [subnet])[0] <= budget_ms:
            found.append(subnet)
            if len(found) == RANDOM:
                break
    return found


def at_budget(judge: Judge, problem: Problem, budget_ms: float, number: int) -> AtBudget:
    space = judge.bundle.space
    pick = select(problem, Budgets(latency_ms=budget_ms)).best
    fulls = [space.largest(r) for r in space.resolutions]
    fitting = [
        (f, ms) for f, ms in zip(fulls, latencies(problem, fulls), strict=True) if ms <= budget_ms
    ]
    # the most accurate as measured, which is more than anyone could know beforehand
    full = max(judge([("full", f) for f, _ in fitting]), key=lambda m: m.float32, default=None)
    times = {str(f): ms for f, ms in fitting}
    others = within(space, problem, budget_ms, number)
    return AtBudget(
        budget_ms,
        judge([("pick", pick.subnet)])[0],
        pick.planned_ms,
        full,
        None if full is None else times[full.subnet],
        tuple(m.float32 for m in judge([("random", s) for s in others])),
    )


def quantised(bundle: Bundle, subnets: Sequence[Subnet], test: Images) -> list[Quantised]:
    weights, rows = TrainedWeights(bundle, None, 0), []
    for subnet in subnets:
        found = {}
        precisions: tuple[DType, ...] = ("float32", "int8")
        for precision in precisions:
            graph, right = weights.network(subnet, precision).graph, 0
            for start in range(0, len(test), _BATCH):
                pixels = test.pixels[start : start + _BATCH]
                images = preprocess(pixels, subnet.resolution, bundle.space).numpy()
                labels = test.labels[start : start + _BATCH].numpy()
                right += int((run_real(graph, images).argmax(-1) == labels).sum())
            found[precision] = right / len(test)
        rows.append(Quantised(str(subnet), found["float32"], found["int8"]))
        print(f"int8: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def report_on(name: str, options: argparse.Namespace) -> Report:
    space = load_space(name)
    bundle = load_bundle(space)
    every = load_images(options.data, "test", space)
    judge = Judge(bundle, every.first(options.images), options.journal / f"{name}.jsonl")
    (inputs,) = load_candidates(
        load_target(options.target), space, options.backend, options.precision
    )
    problem, drawn = inputs.problem, random_subnets(space)
    middle = space.resolutions[len(space.resolutions) // 2]
    named = [("largest", space.largest(r)) for r in (middle, space.resolutions[-1])]
    named += [("smallest", space.smallest(space.resolutions[0]))]
    named += [(f"random {i}", s) for i, s in enumerate(drawn)]
    pick = select(problem, Budgets(latency_ms=options.budget)).best
    asked = options.budgets or budgets_of(space, problem)
    budgets = []
    for number, budget in enumerate(asked):
        try:
            budgets.append(at_budget(judge, problem, budget, number))
        except NoSubnetFits as error:
            print(f"{budget:.3g} ms: {error.what}", file=sys.stderr)
    return Report(
        space=name,
        target=options.target,
        precision=options.precision,
        bytes=sum(f.stat().st_size for f in bundle.folder.iterdir() if f.is_file()),
        images=len(judge.test),
        subnets=tuple(judge(named)),
        int8_images=options.int8_images,
        quantised=tuple(
            quantised(bundle, drawn[: options.int8_subnets], every.first(options.int8_images))
        ),
        pick=judge([("pick", pick.subnet)])[0],
        budgets=tuple(budgets),
    )


def text(report: Report) -> str:
    randoms = [100 * m.float32 for m in report.subnets if m.role.startswith("random")]
    lines = [
        f"{report.space}: {report.bytes / 1e6:.2f} MB, {report.images} test images",
        *(
            f"  {m.role:<10} {100 * m.float32:6.2f}%  {m.macs / 1e6:6.1f} M MAC  {m.subnet}"
            for m in report.subnets
            if not m.role.startswith("random")
        ),
        f"  random     {statistics.fmean(randoms):6.2f}%  from {min(randoms):.1f} to "
        f"{max(randoms):.1f} ({len(randoms)} subnets)",
        f"  pick       {100 * report.pick.float32:6.2f}%  predicted "
        f"{100 * report.pick.predicted:.2f}%  {report.pick.subnet}",
    ]
    if report.int8_cost is not None:
        lines.append(
            f"  int8 loses {report.int8_cost:.2f} points ({len(report.quantised)} subnets, "
            f"{report.int8_images} images)"
        )
    lines.append("  budget ms   pick    full  random   over full  over random")
    for b in report.budgets:
        full = "     -" if b.full is None else f"{100 * b.full.float32:6.2f}"
        mean = f"{100 * statistics.fmean(b.randoms):6.2f}" if b.randoms else "     -"
        over = "      -" if b.over_full is None else f"{b.over_full:+7.2f}"
        above = "      -" if b.over_random is None else f"{b.over_random:+7.2f}"
        lines.append(
            f"  {b.budget_ms:9.3g} {100 * b.pick.float32:6.2f}  {full}  {mean}     {over}      "
            f"{above}  {'' if b.matters else 'the choice hardly matters'}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--space", nargs="+", default=["cifar_micro", "cifar_lite"])
    parser.add_argument("--target", default="rpi4")
    parser.add_argument("--backend", default="litert")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--budget", type=float, default=20.0, help="of the pick, ms")
    parser.add_argument("--budgets", type=float, nargs="+", help="ms, instead of five of its own")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--int8-images", type=int, default=500)
    parser.add_argument("--int8-subnets", type=int, default=RANDOM)
    parser.add_argument("--journal", type=Path, required=True, help="folder of finished accuracies")
    parser.add_argument("--json", type=Path, help="write the reports there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports = []
    try:
        for name in options.space:
            reports.append(report_on(name, options))
            print(text(reports[-1]), flush=True)
            if options.json is not None:
                write_atomic(options.json, dumps(reports) + "\n")
    except EdgeofaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
