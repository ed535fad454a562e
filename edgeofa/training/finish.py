"""From a training on a user's own pictures to a bundle that ``edgeofa deploy`` finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeofa.accuracy.fit import fit_accuracy
from edgeofa.accuracy.measure import measure_subnets, sample_subnets
from edgeofa.elastic.checkpoint import load_supernet
from edgeofa.jsonio import dumps
from edgeofa.paths import own_supernets_dir, write_atomic
from edgeofa.spaces.space import Space
from edgeofa.training.data import load_images
from edgeofa.training.publish import export_weights, save_calibration
from edgeofa.training.recalibrate import subnet_accuracy
from edgeofa.training.recipe import recipe_for

__all__ = ["CALIBRATION_IMAGES", "FinishedBundle", "make_bundle"]

CALIBRATION_IMAGES = 256
_RECALIBRATION_IMAGES = 500


@dataclass(frozen=True)
class FinishedBundle:
    """A bundle and what was found about it; accuracies are of ``test_images``, 0 to 1."""

    folder: Path
    space: str
    training_images: int
    held_out_images: int
    test_images: int
    largest_accuracy: float
    smallest_accuracy: float
    subnets: int
    accuracy_model_points: float
    accuracy_model_tau: float


def make_bundle(
    space: Space,
    data: Path,
    state: Path,
    *,
    subnets: int,
    folder: Path | None = None,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> FinishedBundle:
    """Export the averaged weights, keep training pictures for calibration, fit the accuracy model
    to subnets measured on the held-out pictures, and measure both ends on the test pictures.

    Args:
        state: folder of the finished training.
        subnets: how many to measure for the accuracy model, at least 40.
        folder: where supernets are kept, by default the user's own; the bundle is a folder in it.
    """
    bundle = (folder or own_supernets_dir()) / space.name
    train = load_images(data, "train", space)
    held_out, test = load_images(data, "held_out", space), load_images(data, "test", space)
    recalibration = train.pixels[:_RECALIBRATION_IMAGES]
    # a bundle without its card is not read, so an older one goes first and the new one comes last
    (bundle / "card.json").unlink(missing_ok=True)
    weights = bundle / "weights.safetensors"
    progress = export_weights(state / "state.pt", space, recalibration, weights)
    supernet = load_supernet(weights, space)
    save_calibration(train.pixels[:CALIBRATION_IMAGES], bundle / "calibration.npz")
    chosen = sample_subnets(space, subnets, seed)
    pairs = measure_subnets(
        supernet,
        chosen,
        recalibration,
        held_out,
        state / "accuracies.jsonl",
        lambda n, s, a: log(f"{n + 1}/{len(chosen)} {s} {100 * a:.1f}%"),
    )
    evidence = (
        f"measured on {len(held_out)} pictures held out of the training, recalibrated on "
        f"{len(recalibration)} training pictures"
    )
    model = fit_accuracy(space, pairs, len(held_out), evidence, seed)
    write_atomic(bundle / "accuracy.json", model.content.model_dump_json() + "\n")
    middle = space.resolutions[len(space.resolutions) // 2]
    largest, smallest = (
        subnet_accuracy(supernet, subnet, recalibration, test)
        for subnet in (space.largest(middle), space.smallest(middle))
    )
    quality = model.content.cross_validation
    card: dict[str, Any] = {
        "schema_version": 1,
        "space": space.name,
        "description": space.description,
        "data": {
            "training_images": len(train),
            "held_out_images": len(held_out),
            "test_images": len(test),
        },
        "training": {**asdict(progress), "recipe": asdict(recipe_for(space))},
        "accuracy": {"resolution": middle, "largest": largest, "smallest": smallest},
        "accuracy_model": {"subnets": len(pairs), "evidence": evidence, **quality.model_dump()},
    }
    write_atomic(bundle / "card.json", dumps(card) + "\n")
    return FinishedBundle(
        folder=bundle,
        space=space.name,
        training_images=len(train),
        held_out_images=len(held_out),
        test_images=len(test),
        largest_accuracy=largest,
        smallest_accuracy=smallest,
        subnets=len(pairs),
        accuracy_model_points=quality.rerank_points,
        accuracy_model_tau=quality.rerank_tau,
    )
