"""The command line: one file per verb, registered here; errors become one message and exit code.

Nothing heavy is imported before a verb runs: ``edgeofa --help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer

from edgeofa import __version__
from edgeofa.errors import EdgeofaError

#: what shells report for a program that was interrupted: 128 + SIGINT
_INTERRUPTED = 130

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
    from edgeofa.cli import (
        accuracy,
        baseline,
        compile_,
        deploy,
        device,
        doctor,
        explain,
        flash,
        frontier,
        import_,
        monitor,
        profile,
        setup,
        solve,
        space,
        table,
        target,
        test,
        train,
        tune,
    )

    app.command()(profile.profile)
    app.command()(solve.solve)
    app.command()(frontier.frontier)
    app.command()(deploy.deploy)
    app.command("compile")(compile_.compile_)
    app.command("test")(test.regression)
    app.add_typer(baseline.app, name="baseline")
    app.add_typer(train.app, name="train")
    app.add_typer(accuracy.app, name="accuracy")
    app.add_typer(table.app, name="table")
    app.add_typer(import_.app, name="import")
    app.add_typer(target.app, name="target")
    app.add_typer(space.app, name="space")
    app.add_typer(device.app, name="device")
    app.command()(tune.tune)
    app.command()(explain.explain)
    app.command()(flash.flash)
    app.command()(monitor.monitor)
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
        # not standalone: typer would end an interrupted verb without a word; so it returns 130
        code = command()(standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):
            # a group without a verb: what it says is the help
            print(message, file=sys.stderr)  # noqa: T201
            sys.exit(error.exit_code)
        verb = ["edgeofa"] if message.startswith("No such command") else _verb()
        _fail(f"{message}\n  try: {' '.join(verb)} --help", error.exit_code)
    except EdgeofaError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(
            f"{where}{error.strerror or error}\n  try: free space or rights there, "
            "then run the same command again",
            4,
        )
    except typer.Abort:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        _fail("interrupted; run the same command again to go on", _INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _verb() -> list[str]:
    """The words of the command line up to its first option."""
    words = ["edgeofa"]
    for word in sys.argv[1:]:
        if not word.isidentifier():
            break
        words.append(word)
    return words


def _fail(message: str, code: int) -> NoReturn:
    print(f"edgeofa: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
