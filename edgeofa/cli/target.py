"""``edgeofa target``: what targets there are and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="List targets, show one, check or make a target file.")

Name = Annotated[str, typer.Argument(help="Target key or .toml file.", metavar="TARGET")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """The targets that ship with edgeofa, and those of your own devices."""
    from edgeofa.jsonio import dumps
    from edgeofa.targets import load_target, own_targets, target_names

    shipped = target_names()
    own = [name for name, file in sorted(own_targets().items()) if file.is_file()]
    targets = [load_target(n) for n in [*shipped, *(n for n in own if n not in shipped)]]
    if json:
        typer.echo(dumps(targets))
    else:
        for t in targets:
            typer.echo(f"{t.name:<12} {t.description}")


@app.command()
def show(target: Name, json: Json = False) -> None:
    """Everything that is known of one target."""
    from edgeofa.jsonio import dumps
    from edgeofa.targets import load_target, target_path

    found = load_target(target)
    typer.echo(dumps(found) if json else target_path(target).read_text(encoding="utf-8").rstrip())


@app.command()
def new(
    from_device: Annotated[str, typer.Option(help="Device to ask (see `edgeofa device list`).")],
    out: Annotated[Path | None, typer.Option(help="The file; NAME.toml here by default.")] = None,
    json: Json = False,
) -> None:
    """Write the target file of a board that edgeofa does not know yet; no editing is needed."""
    from edgeofa.devices.draft import new_target
    from edgeofa.jsonio import dumps

    draft = new_target(from_device, out)
    if json:
        typer.echo(dumps(draft))
        return
    typer.echo(f"{draft.file}: {draft.target.description}; {draft.device} is one of it now")
    if draft.similar:
        typer.echo(f"it looks like {', '.join(draft.similar)}, whose tables are published")
    typer.echo(f"next: edgeofa profile --target {draft.file}")


@app.command()
def validate(target: Name, json: Json = False) -> None:
    """Check a target file; the first mistake is named with its line."""
    from edgeofa.jsonio import dumps
    from edgeofa.targets import load_target, target_path

    found = load_target(target)
    if json:
        record = {"file": target_path(target), "name": found.name, "digest": found.digest}
        typer.echo(dumps(record))
        return
    typer.echo(f"{target} is a valid target ({found.name}, digest {found.digest})")
