"""``edgeofa accuracy``: how good a supernet's accuracy model is, and whether it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="How good predicted accuracies are, and what is really reached."
)

SpaceOption = Annotated[str, typer.Option(help="Space of the supernet.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def report(space: SpaceOption, json: JsonOption = False) -> None:
    """The cross-validated quality of the accuracy model that comes with a supernet."""
    from edgeofa.accuracy.model import load_accuracy
    from edgeofa.elastic.bundles import bundle_dir
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space

    declared = load_space(space)
    content = load_accuracy(bundle_dir(declared.name) / "accuracy.json", declared).content
    quality = content.cross_validation
    if json:
        typer.echo(
            dumps(
                {
                    "space": content.space,
                    "pairs": len(content.pairs),
                    "images": content.images,
                    "evidence": content.evidence,
                    **quality.model_dump(),
                }
            )
        )
        return
    typer.echo(f"{'pairs':<12} {len(content.pairs)} subnets, each on {content.images} images")
    typer.echo(f"{'evidence':<12} {content.evidence}")
    for name, points, tau in (
        ("additive", quality.additive_points, quality.additive_tau),
        ("re-ranking", quality.rerank_points, quality.rerank_tau),
    ):
        typer.echo(f"{name:<12} {points:.2f} points mean absolute error, Kendall's tau {tau:.3f}")
    typer.echo(f"{'noise':<12} {quality.measurement_points:.2f} points (one standard error)")


@app.command()
def fit(
    space: SpaceOption,
    out: Annotated[Path, typer.Option(help="File of the model, for --predictor.")],
    journal: Annotated[
        Path | None,
        typer.Option(help="Measured subnets of `train measure`; by default the bundle's pairs."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Images that each of the journal was measured on.", min=1)
    ] = None,
    kind: Annotated[str, typer.Option(help="additive or pairwise.")] = "pairwise",
    seed: Annotated[int, typer.Option(help="Of the folds of the cross-validation.")] = 0,
    json: JsonOption = False,
) -> None:
    """Fit an accuracy model to measured subnets, and say how good it is."""
    from edgeofa.accuracy.refit import refit
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space

    found = refit(load_space(space), kind, out, journal, images, seed)
    if json:
        typer.echo(dumps(found))
        return
    typer.echo(
        f"{out}: {kind}, {found.pairs} subnets, {found.points:.2f} points mean absolute error, "
        f"Kendall's tau {found.tau:.3f}"
    )


@app.command()
def check(
    subnet: Annotated[str, typer.Option(help="Subnet, as solve and deploy print it.")],
    data: Annotated[Path, typer.Option(help="Labelled pictures, see `edgeofa deploy --data`.")],
    space: Annotated[
        str | None, typer.Option(help="Space; by default the subnet's own name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which pictures calibrate and which judge.")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure a subnet on labelled pictures, float32 and int8, beside its predicted accuracy."""
    from edgeofa.accuracy.check import check_accuracy
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space

    declared = load_space(space or subnet.partition("@")[0])
    found = check_accuracy(declared, declared.parse(subnet), data, seed)
    if json:
        typer.echo(dumps(found))
        return
    typer.echo(f"{'subnet':<12} {found.subnet}")
    if found.predicted is not None:
        mean = (
            ""
            if found.predicted_error is None
            else (f" (mean error {100 * found.predicted_error:.2f} points)")
        )
        typer.echo(f"{'predicted':<12} {100 * found.predicted:.2f}%{mean}")
    for one in found.measured:
        off = "" if one.off is None else f", {100 * one.off:+.2f} points from the prediction"
        typer.echo(
            f"{one.precision:<12} {100 * one.accuracy:.2f}% on {found.images} pictures "
            f"(standard error {100 * one.standard_error:.2f}){off}"
        )
