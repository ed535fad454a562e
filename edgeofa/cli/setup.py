"""``edgeofa setup``: bring what a target needs onto this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def setup(
    target: Annotated[str, typer.Option(help="Target name, or path of a target file.")] = "rpi4",
    backend: Annotated[
        str | None,
        typer.Option(help="A back end that is wanted beside the usual ones, such as tvm."),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="As root, let apt-get install missing packages.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Download, build and check everything that a target needs; safe to interrupt and repeat."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edgeofa.backends.registry import check_backend
    from edgeofa.jsonio import dumps
    from edgeofa.setup import prepare
    from edgeofa.targets import load_target

    wanted = load_target(target)
    if backend is not None:
        check_backend(backend)
    columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("look", total=None)

        def report(step: str, done: int, total: int) -> None:
            progress.update(task, description=step, completed=done, total=total)

        prepared = prepare(wanted, backend=backend, install=install, report=report)
    if as_json:
        typer.echo(dumps(prepared))
    else:
        typer.echo(f"{prepared.target} is ready; edgeofa keeps its files in {prepared.cache}")
