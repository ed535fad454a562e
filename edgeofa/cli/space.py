"""``edgeofa space``: what a declared space holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.spaces.summary import SpaceSummary

app = typer.Typer(no_args_is_help=True, help="List spaces, show one, draw subnets from it.")

Name = Annotated[str, typer.Argument(help="Space or .toml file.", metavar="SPACE")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """The spaces that ship with edgeofa."""
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space, space_names
    from edgeofa.spaces.summary import summarize

    found = [summarize(load_space(name)) for name in space_names()]
    if json:
        typer.echo(dumps(found))
    else:
        for space in found:
            typer.echo(f"{space.name:<14} {space.subnets:>8.1e}  {space.description}")


@app.command()
def show(space: Name, json: Json = False) -> None:
    """How many subnets and blocks a space has, and its smallest and largest subnet."""
    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space
    from edgeofa.spaces.summary import summarize

    found = summarize(load_space(space))
    typer.echo(dumps(found) if json else _text(found))


@app.command()
def sample(
    space: Name,
    count: Annotated[int, typer.Option(help="How many.", min=1, max=10_000)] = 5,
    resolution: Annotated[int | None, typer.Option(help="Of one resolution alone.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    json: Json = False,
) -> None:
    """Random subnets of a space, every one with the same chance."""
    import random

    from edgeofa.jsonio import dumps
    from edgeofa.spaces import load_space

    declared, rng = load_space(space), random.Random(seed)
    found = [declared.sample(rng, resolution) for _ in range(count)]
    typer.echo(dumps(found) if json else "\n".join(map(str, found)))


def _resolutions(space: SpaceSummary) -> list[tuple[str, str]]:
    """A line for each resolution, or one where they are alike."""
    said = [f"{r.subnets} subnets, {r.blocks} blocks" for r in space.resolutions]
    if len(set(said)) > 1:
        pairs = zip(space.resolutions, said, strict=True)
        return [(f"{r.resolution} px", text) for r, text in pairs]
    sizes = ", ".join(str(r.resolution) for r in space.resolutions)
    return [("resolutions", f"{sizes} px, each {said[0]}")]


def _text(space: SpaceSummary) -> str:
    shape = "stages of MBConv layers, a supernet can be made of it" if space.staged else "a tree"
    rows = [
        ("space", f"{space.name}: {space.description}"),
        ("shape", shape),
        ("subnets", f"{space.subnets} of {space.shortest} to {space.longest} blocks"),
        ("blocks", f"{space.blocks} distinct, the rows of a table"),
        *_resolutions(space),
        *(("tie", f"{name}: {', '.join(map(str, values))}") for name, values in space.ties.items()),
        ("smallest", f"{space.smallest.subnet}, {space.smallest.macs / 1e6:.4g} M MAC"),
        ("largest", f"{space.largest.subnet}, {space.largest.macs / 1e6:.4g} M MAC"),
        ("automaton", f"{space.nodes} nodes, {space.edges} edges, {space.contexts} contexts"),
    ]
    return "\n".join(f"{name:<12} {text}" for name, text in rows)
