"""How well accuracy models predict a bundle's subnets: additive, pairwise, and a small network.

All are fitted to the (subnet, accuracy) pairs that the bundle holds, measured on images held out of
the training, and judged by the same ten folds: mean absolute error in points and Kendall's tau,
beside the noise of one measurement. The network (one hidden layer, five of them averaged, over
one-hot choices and summaries) is not stored: it says what more than pairs could bring.

    python benchmarks/accuracy_model.py [--space cifar_lite ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from edgeofa.accuracy.features import summary  # noqa: E402
from edgeofa.accuracy.fit import (  # noqa: E402
    cross_predict,
    fit_accuracy,
    folds_of,
    kendall_tau,
    target_of,
)
from edgeofa.accuracy.fit_pairwise import fit_pairwise  # noqa: E402
from edgeofa.accuracy.model import load_accuracy  # noqa: E402
from edgeofa.elastic.bundles import bundle_dir  # noqa: E402
from edgeofa.errors import EdgeofaError  # noqa: E402
from edgeofa.jsonio import dumps  # noqa: E402
from edgeofa.paths import write_atomic  # noqa: E402
from edgeofa.spaces import Space, Subnet, load_space  # noqa: E402

Array = NDArray[np.float64]
_HIDDEN, _NETWORKS, _EPOCHS = 32, 5, 300


@dataclass(frozen=True)
class Row:
    """A model's cross-validated quality; ``points`` of 100."""

    model: str
    points: float
    tau: float


@dataclass(frozen=True)
class Report:
    space: str
    pairs: int
    images: int
    noise_points: float
    rows: tuple[Row, ...]


def one_hot(space: Space, subnets: Sequence[Subnet]) -> Array:
    place = {
        (slot, layer): n
        for n, (slot, layer) in enumerate(
            (slot, layer)
            for slot in space.slots
            for layer in space.stages[slot[0]].layers_at(slot[1])
        )
    }
    rows = np.zeros((len(subnets), len(place)))
    for row, subnet in zip(rows, subnets, strict=True):
        for i, layers in enumerate(subnet.stages):
            for j, layer in enumerate(layers):
                row[place[(i, j), layer]] = 1
    return rows


def network_row(space: Space, pairs: Sequence[tuple[Subnet, float]], images: int) -> Row:
    subnets = [s for s, _ in pairs]
    accuracy = np.array([a for _, a in pairs])
    target = target_of(accuracy, images).score
    summaries = summary(space, subnets)
    deviation = summaries.std(0)
    deviation[deviation < 1e-9] = 1.0
    x = np.concatenate([(summaries - summaries.mean(0)) / deviation, one_hot(space, subnets)], 1)

    def predict(train: NDArray[np.intp], test: NDArray[np.intp]) -> Array:
        mean, std = target[train].mean(), target[train].std()
        inputs = torch.tensor(x[train], dtype=torch.float32)
        wanted = torch.tensor((target[train] - mean) / std, dtype=torch.float32)
        outputs = []
        for seed in range(_NETWORKS):
            torch.manual_seed(seed)
            net = torch.nn.Sequential(
                torch.nn.Linear(x.shape[1], _HIDDEN), torch.nn.SiLU(), torch.nn.Linear(_HIDDEN, 1)
            )
            optimiser = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _EPOCHS)
            for _ in range(_EPOCHS):
                optimiser.zero_grad()
                torch.nn.functional.mse_loss(net(inputs)[:, 0], wanted).backward()
                optimiser.step()
                schedule.step()
            with torch.no_grad():
                outputs.append(net(torch.tensor(x[test], dtype=torch.float32))[:, 0].numpy())
        return np.asarray(np.mean(outputs, 0) * std + mean, dtype=np.float64)

    score = cross_predict(len(pairs), folds_of(len(pairs), 0), predict)
    points = float(100 * np.abs(1 - np.exp(-score) - accuracy).mean())
    return Row("network", points, kendall_tau(score, accuracy))


def report_on(name: str) -> Report:
    space = load_space(name)
    content = load_accuracy(bundle_dir(name) / "accuracy.json", space).content
    pairs = [(space.parse(p.subnet), p.accuracy) for p in content.pairs]
    quality = fit_accuracy(space, pairs, content.images, content.evidence).content.cross_validation
    pairwise = fit_pairwise(space, pairs, content.images, content.evidence)
    return Report(
        space=name,
        pairs=len(pairs),
        images=content.images,
        noise_points=quality.measurement_points,
        rows=(
            Row("additive", quality.additive_points, quality.additive_tau),
            Row("additive + kernel", quality.rerank_points, quality.rerank_tau),
            Row("pairwise", pairwise.points, pairwise.tau),
            network_row(space, pairs, content.images),
        ),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--space", nargs="+", default=["cifar_micro", "cifar_lite"])
    parser.add_argument("--json", type=Path, help="write the reports there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        reports = [report_on(name) for name in options.space]
    except EdgeofaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for report in reports:
        print(
            f"{report.space}: {report.pairs} pairs, each on {report.images} images; one "
            f"measurement's noise {report.noise_points:.2f} points"
        )
        for row in report.rows:
            print(f"  {row.model:<18} {row.points:.2f} points, tau {row.tau:.3f}")
    if options.json is not None:
        write_atomic(options.json, dumps(reports) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
