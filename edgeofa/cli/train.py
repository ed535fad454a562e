"""``edgeofa train``: train a supernet, and make the bundle that deployments use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgeofa.elastic.supernet import Supernet
    from edgeofa.spaces.space import Space

app = typer.Typer(
    no_args_is_help=True,
    help="Train a supernet, and make the bundle that deployments use.",
)

SpaceOption = Annotated[str, typer.Option(help="Space to train.")]
DataOption = Annotated[
    Path,
    typer.Option(help="Pictures: <class>/<image>, <train|test>/<class>/<image>, or CIFAR-10."),
]
BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the record as JSON.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]


@app.command()
def run(
    space: SpaceOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the training's state.")],
    minutes: Annotated[
        float | None, typer.Option(help="Training time in all, resumed runs included.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="HH:MM at which the training ends.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of updates.", min=1)] = None,
    macs: Annotated[
        float | None,
        typer.Option(help="Multiply-accumulates of forward and backward passes.", min=1),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="sandwich, progressive or delayed (docs/training.md).")
    ] = "sandwich",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    refine: Annotated[
        Path | None, typer.Option(help="State of a finished training to refine.")
    ] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Train in one thread; the same command goes on where a stopped training ended."""
    from edgeofa.errors import UsageError
    from edgeofa.jsonio import dumps
    from edgeofa.training.session import train

    if minutes is None and until is None and steps is None and macs is None:
        raise UsageError("how long?", hint="--minutes, --until, --steps or --macs")
    progress = train(
        *(space, data, out, minutes, until, steps, seed, _log, refine),
        schedule=schedule,
        macs=macs,
        device=device,
    )
    if json:
        typer.echo(dumps(progress))


@app.command("bundle")
def make(
    space: SpaceOption,
    data: DataOption,
    state: Annotated[Path, typer.Option(help="Folder of the training's state.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of supernets; your own by default.")
    ] = None,
    subnets: Annotated[
        int, typer.Option(help="Subnets to measure for the accuracy model.", min=40)
    ] = 220,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Make the bundle of a training on your own pictures, which `deploy` finds by its space."""
    from edgeofa.jsonio import dumps
    from edgeofa.training.finish import make_bundle

    _one_thread()
    made = make_bundle(_space(space), data, state, subnets=subnets, folder=out, seed=seed, log=_log)
    if json:
        typer.echo(dumps(made))
        return
    typer.echo(
        f"{made.folder}: largest {100 * made.largest_accuracy:.1f}%, smallest "
        f"{100 * made.smallest_accuracy:.1f}% of {made.test_images} test pictures; accuracy model "
        f"{made.accuracy_model_points:.2f} points off, tau {made.accuracy_model_tau:.2f}"
    )


@app.command()
def export(
    space: SpaceOption,
    data: DataOption,
    state: Annotated[Path, typer.Option(help="Folder of the training's state.")],
    bundle: BundleOption,
    json: JsonOption = False,
) -> None:
    """Write a training's averaged weights into a bundle."""
    from edgeofa.jsonio import dumps
    from edgeofa.training.data import load_images
    from edgeofa.training.publish import export_weights

    _one_thread()
    found = _space(space)
    recalibration = load_images(data, "train", found).first(1000).pixels
    weights = bundle / "weights.safetensors"
    progress = export_weights(state / "state.pt", found, recalibration, weights)
    _log(f"wrote {weights}")
    if json:
        typer.echo(dumps({"file": weights, "training": progress}))


@app.command()
def synthesize(
    data: DataOption,
    bundle: BundleOption,
    images: Annotated[int, typer.Option(help="Number of images.", min=16, max=10_000)] = 256,
    steps: Annotated[int, typer.Option(help="Steps of optimisation.", min=1)] = 600,
    real: Annotated[int, typer.Option(help="Real images that are matched.", min=100)] = 1000,
    start: Annotated[
        Path | None, typer.Option(help="calibration.npz of an earlier checkpoint to go on from.")
    ] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Make a bundle's calibration images: noise whose statistics match the data's."""
    import torch

    from edgeofa.elastic.bundles import load_calibration
    from edgeofa.jsonio import dumps
    from edgeofa.training.data import load_images
    from edgeofa.training.publish import save_calibration
    from edgeofa.training.synthesize import synthesize as make

    supernet = _supernet(bundle)
    pixels = load_images(data, "train", supernet.space).first(real).pixels
    begin = None if start is None else torch.from_numpy(load_calibration(start))
    made = make(supernet, pixels, images, steps, seed, _log, begin)
    file = bundle / "calibration.npz"
    save_calibration(made, file)
    _log(f"wrote {file}")
    if json:
        typer.echo(dumps({"file": file, "images": len(made), "steps": steps, "seed": seed}))


@app.command()
def measure(
    data: DataOption,
    bundle: BundleOption,
    journal: Annotated[Path, typer.Option(help="Finished subnets; of this supernet alone.")],
    subnets: Annotated[int, typer.Option(help="How many subnets.", min=40)] = 220,
    images: Annotated[int, typer.Option(help="Held-out images for each.", min=100)] = 1500,
    recalibration: Annotated[int, typer.Option(help="Images for batch norms.", min=100)] = 500,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure subnets on held-out images, and fit a bundle's accuracy model to them."""
    from edgeofa.accuracy.fit import fit_accuracy
    from edgeofa.accuracy.measure import measure_subnets, sample_subnets
    from edgeofa.paths import write_atomic
    from edgeofa.training.data import load_images

    supernet = _supernet(bundle)
    held_out = load_images(data, "held_out", supernet.space).first(images)
    pixels = load_images(data, "train", supernet.space).first(recalibration).pixels
    chosen = sample_subnets(supernet.space, subnets, seed)
    pairs = measure_subnets(
        supernet,
        chosen,
        pixels,
        held_out,
        journal,
        lambda n, s, a: _log(f"{n + 1}/{len(chosen)} {s} {100 * a:.1f}%"),
    )
    evidence = (
        f"measured on {len(held_out)} images held out of the training, recalibrated on "
        f"{len(pixels)} training images"
    )
    model = fit_accuracy(supernet.space, pairs, len(held_out), evidence, seed)
    write_atomic(bundle / "accuracy.json", model.content.model_dump_json() + "\n")
    quality = model.content.cross_validation
    if json:
        typer.echo(quality.model_dump_json(indent=2))
    else:
        typer.echo(
            f"additive {quality.additive_points:.2f} points, tau {quality.additive_tau:.3f}; "
            f"rerank {quality.rerank_points:.2f} points, tau {quality.rerank_tau:.3f}"
        )


@app.command()
def card(
    data: DataOption,
    state: Annotated[Path, typer.Option(help="Folder of the training's state.")],
    bundle: BundleOption,
    journal: Annotated[Path, typer.Option(help="Folder of finished subnets; of this supernet.")],
    test_images: Annotated[int, typer.Option(help="Test images.", min=100)] = 10_000,
    recalibration: Annotated[
        int, typer.Option(help="Real images for batch norms.", min=100)
    ] = 2000,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure a bundle's accuracies and write its model card."""
    import torch

    from edgeofa.accuracy.model import load_accuracy
    from edgeofa.elastic.bundles import load_calibration
    from edgeofa.jsonio import dumps
    from edgeofa.training.card import make_card, write_card
    from edgeofa.training.data import load_images
    from edgeofa.training.publish import judge
    from edgeofa.training.recipe import recipe_for
    from edgeofa.training.state import read_progress

    supernet = _supernet(bundle)
    space = supernet.space
    train = load_images(data, "train", space)
    test = load_images(data, "test", space).first(test_images)
    calibration = torch.from_numpy(load_calibration(bundle / "calibration.npz"))
    facts = judge(supernet, calibration, train, test, journal, recalibration, seed, _log)
    accuracy = load_accuracy(bundle / "accuracy.json", space)
    progress = read_progress(state / "state.pt", space.name)
    recipes = [recipe_for(space)]
    if progress.earlier_s > 0:
        recipes.append(recipe_for(space, refine=True))
    record = make_card(space, recipes, progress, facts, accuracy, len(train))
    write_card(record, accuracy, bundle)
    if json:
        typer.echo(dumps(record))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _space(name: str) -> Space:
    from edgeofa.spaces import load_space

    return load_space(name)


def _supernet(bundle: Path) -> Supernet:
    from edgeofa.elastic.checkpoint import load_supernet

    _one_thread()
    return load_supernet(bundle / "weights.safetensors")


def _log(line: Any) -> None:
    typer.echo(line, err=True)
