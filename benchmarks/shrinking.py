"""Schedules of shrinking at equal cost: the comparison that the papers make, at a small scale.

On CIFAR-10 and the space ``cifar_micro``, for every seed: ``progressive``, ``sandwich`` and
``delayed`` with the same training MACs (forward and backward passes, teachers' included), and
``delayed`` at 0.4 of them. The accuracy of the largest, the smallest and 20 fixed random subnets on
the test images, after batch-norm recalibration; and the cost at which ``delayed`` reaches
``progressive``'s mean, between the costs that it was trained at.

    python benchmarks/shrinking.py --data DIR --out FOLDER [--macs 4e12] [--seeds 0 ...]
        [--json FILE] [--figure FILE]

Trainings that are stopped go on when the same command is given again; finished ones are kept.
``--only`` runs some of the arms (``delayed@0.4``), so that several processes can share them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

# one thread: two collapse when the machine is shared
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402

from edgeofa.accuracy.features import subnet_macs  # noqa: E402
from edgeofa.accuracy.measure import measure_subnets  # noqa: E402
from edgeofa.errors import EdgeofaError  # noqa: E402
from edgeofa.jsonio import dumps  # noqa: E402
from edgeofa.paths import write_atomic  # noqa: E402
from edgeofa.spaces import Space, Subnet, load_space  # noqa: E402
from edgeofa.training.data import Images, load_images  # noqa: E402
from edgeofa.training.recipe import Phase, Recipe, recipe_for  # noqa: E402
from edgeofa.training.record import draw_curves, write_record  # noqa: E402
from edgeofa.training.session import alone  # noqa: E402
from edgeofa.training.trainer import Budget, Trainer  # noqa: E402

ARMS = ("progressive", "sandwich", "delayed", "delayed@0.4")
SPACE = "cifar_micro"
#: at most the images' own size, and the same in all arms from beginning to end: a mix that changes
#: on the way would suit one schedule more than another
RESOLUTIONS = (20, 24, 28, 32)
RANDOM = 20


@dataclass(frozen=True)
class Measured:
    """One subnet's accuracy on the test images, 0 to 1."""

    role: str
    subnet: str
    macs: int
    accuracy: float


@dataclass(frozen=True)
class Arm:
    """A finished training and its accuracies; ``curve`` as in the training's record."""

    name: str
    seed: int
    macs: float
    images: int
    cpu_s: float
    elapsed_s: float
    test_images: int
    subnets: tuple[Measured, ...]
    curve: tuple[dict[str, float], ...]

    @property
    def randoms(self) -> list[float]:
        return [m.accuracy for m in self.subnets if m.role.startswith("random")]

    @property
    def mean(self) -> float:
        """Of the random subnets."""
        return statistics.fmean(self.randoms)

    def of(self, role: str) -> float:
        return next(m.accuracy for m in self.subnets if m.role == role)


@dataclass(frozen=True)
class Report:
    space: str
    macs: float
    arms: tuple[Arm, ...]
    #: share of progressive's cost at which delayed has its mean accuracy; None: at none that it was
    #: trained at; ``at_most`` where its cheapest training is already there
    share: float | None
    at_most: bool


def recipe(space: Space) -> Recipe:
    """The space's, for a short training: half its batch, so that there are enough updates."""
    mix = dict.fromkeys(RESOLUTIONS, 1 / len(RESOLUTIONS))
    long = recipe_for(space)
    return replace(
        long,
        batch=long.batch // 2,
        rate=long.rate / 2,
        warmup_steps=50,
        phases=(Phase(1.0, mix),),
    )


def fixed_subnets(space: Space) -> list[tuple[str, Subnet]]:
    """The same for all arms and seeds."""
    rng = random.Random("shrinking")
    return [
        ("largest", space.largest(RESOLUTIONS[-1])),
        ("smallest", space.smallest(RESOLUTIONS[0])),
        *(
            (f"random {i}", space.sample_by_choice(rng, rng.choice(RESOLUTIONS)))
            for i in range(RANDOM)
        ),
    ]


def arm_budget(name: str, macs: float) -> tuple[str, float]:
    """(schedule, training MACs)."""
    schedule, _, share = name.partition("@")
    return schedule, macs * float(share or 1)


def run_arm(name: str, seed: int, options: argparse.Namespace) -> Arm:
    """Trains, or goes on training, and measures; what is finished is read back."""
    folder = options.out / f"{name}-seed{seed}"
    with alone(folder):
        return _run_arm(name, seed, folder, options)


def _run_arm(name: str, seed: int, folder: Path, options: argparse.Namespace) -> Arm:
    schedule, macs = arm_budget(name, options.macs)
    space = load_space(SPACE)
    train = load_images(options.data, "train", space)
    held_out = load_images(options.data, "held_out", space)
    trainer = Trainer(
        space,
        recipe(space),
        train,
        held_out,
        folder,
        seed,
        lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True),
        schedule_name=schedule,
    )
    trainer.resume()
    budget = Budget(macs=macs)
    if budget.progress(trainer.progress) < 1:
        trainer.run(budget)
        write_record(trainer, budget)
        if budget.progress(trainer.progress) < 1:
            raise SystemExit(f"{name}: stopped; the same command goes on")
    test = load_images(options.data, "test", space).first(options.test_images)
    return measured_arm(name, seed, trainer, test, folder)


def measured_arm(name: str, seed: int, trainer: Trainer, test: Images, folder: Path) -> Arm:
    subnets, progress = fixed_subnets(trainer.space), trainer.progress
    real = trainer.train.pixels[:2000]
    chosen = [s for _, s in subnets]
    accuracies = dict(measure_subnets(trainer.average, chosen, real, test, folder / "test.jsonl"))
    return Arm(
        name=name,
        seed=seed,
        macs=progress.training_macs,
        images=progress.images,
        cpu_s=progress.cpu_s,
        elapsed_s=progress.elapsed_s,
        test_images=len(test),
        subnets=tuple(
            Measured(role, str(s), subnet_macs(trainer.space, s), accuracies[s])
            for role, s in subnets
        ),
        curve=tuple(trainer.curve),
    )


def share_reached(arms: Sequence[Arm]) -> tuple[float | None, bool]:
    """(share of progressive's cost, whether it is but an upper bound): where the mean of delayed's
    trainings, linear in the logarithm of the cost between them, reaches progressive's mean."""
    wanted = [a for a in arms if a.name == "progressive"]
    found: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.name.startswith("delayed"):
            found.setdefault(arm.name, []).append(arm)
    if not wanted or not found:
        return None, False
    level = statistics.fmean(a.mean for a in wanted)
    cost = statistics.fmean(a.macs for a in wanted)
    points = sorted(
        (statistics.fmean(a.macs for a in same), statistics.fmean(a.mean for a in same))
        for same in found.values()
    )
    if points[0][1] >= level:
        return points[0][0] / cost, True
    for (left, low), (right, high) in pairwise(points):
        if low < level <= high:
            way = (level - low) / (high - low)
            return left * (right / left) ** way / cost, False
    return None, False


def table(report: Report) -> str:
    lines = [
        f"{report.space}, {report.macs:.3g} MAC of forward and backward passes, "
        f"{report.arms[0].test_images} test images",
        f"{'arm':<14}{'seed':>5}{'10^12 MAC':>11}{'images':>9}{'CPU s':>7}{'largest':>9}"
        f"{'smallest':>10}{'random':>8}  from to",
    ]
    for arm in report.arms:
        low, high = 100 * min(arm.randoms), 100 * max(arm.randoms)
        lines.append(
            f"{arm.name:<14}{arm.seed:>5}{arm.macs / 1e12:>11.2f}{arm.images:>9}{arm.cpu_s:>7.0f}"
            f"{100 * arm.of('largest'):>9.2f}{100 * arm.of('smallest'):>10.2f}"
            f"{100 * arm.mean:>8.2f}  {low:.1f} {high:.1f}"
        )
    if report.share is None:
        lines.append("delayed does not reach progressive's mean at the costs that were tried")
    else:
        bound = "at most " if report.at_most else ""
        lines.append(f"delayed reaches progressive's mean at {bound}{report.share:.2f} of its cost")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--macs", type=float, default=4e12, help="of an arm, passes of both kinds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=ARMS, default=ARMS, metavar="ARM")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--figure", type=Path, help="PNG of the first seed's curves")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        arms = tuple(run_arm(name, s, options) for s in options.seeds for name in options.only)
    except EdgeofaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    share, at_most = share_reached(arms)
    report = Report(SPACE, options.macs, arms, share, at_most)
    print(table(report))
    if options.json is not None:
        write_atomic(options.json, dumps(report) + "\n")
    if options.figure is not None:
        first = {a.name: a.curve for a in arms if a.seed == options.seeds[0]}
        draw_curves(first, f"{SPACE}: schedules over their cost", options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
