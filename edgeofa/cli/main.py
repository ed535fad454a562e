"""The command line: one file per verb, registered here; errors become one message and exit code.

Nothing heavy is imported before a verb runs: ``edgeofa --help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from edgeofa import __version__
from edgeofa.errors import EdgeofaError

app = typer.Typer(
    name="edgeofa",
    help="Turn one trained elastic network into the best network for a device, and prove it there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeofa {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""


def _register() -> None:
    from edgeofa.cli import deploy, doctor, frontier, profile, setup, solve, table, target, train

    app.command()(profile.profile)
    app.command()(solve.solve)
    app.command()(frontier.frontier)
    app.command()(deploy.deploy)
    app.add_typer(train.app, name="train")
    app.add_typer(table.app, name="table")
    app.add_typer(target.app, name="target")
    app.command()(setup.setup)
    app.command()(doctor.doctor)


def command() -> Any:
    """The whole command tree, as the documentation tests walk it."""
    if not app.registered_commands:
        _register()
    return typer.main.get_command(app)


def main() -> None:
    """Entry point; exit codes are those of :mod:`edgeofa.errors`."""
    try:
        command()()
    except EdgeofaError as error:
        print(f"edgeofa: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("edgeofa: interrupted; run the same command again to go on", file=sys.stderr)  # noqa: T201
        sys.exit(130)
