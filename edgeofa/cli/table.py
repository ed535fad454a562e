"""``edgeofa table``: look at, compare, check and export latency tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeofa.tables.diff import Change

app = typer.Typer(no_args_is_help=True, help="List, show, compare, check and export tables.")

Name = Annotated[
    str,
    typer.Argument(help="Such as rpi4/cifar_lite-litert-int8, or a file.", metavar="TABLE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    target: Annotated[str | None, typer.Option(help="Only tables of this target.")] = None,
    json: Json = False,
) -> None:
    """The user's own tables and the published ones."""
    from edgeofa.jsonio import dumps
    from edgeofa.report.tables import table_list
    from edgeofa.tables.store import list_tables

    found = list_tables(target)
    typer.echo(dumps(found) if json else table_list(found))


@app.command()
def show(
    table: Name,
    rows: Annotated[int, typer.Option(help="Slowest blocks to list.", min=0)] = 10,
    json: Json = False,
) -> None:
    """What a table is about, how it came to be, and its slowest blocks."""
    from edgeofa.report.tables import table_summary
    from edgeofa.tables.export import export_table
    from edgeofa.tables.store import open_table

    path, found = open_table(table)
    typer.echo(export_table(found, "json") if json else table_summary(found, path, rows))


@app.command()
def diff(old: Name, new: Name, json: Json = False) -> None:
    """Blocks that changed beyond both intervals, and what else differs (exit code 6 if any)."""
    from edgeofa.errors import RegressionFound
    from edgeofa.jsonio import dumps
    from edgeofa.report.tables import difference_text
    from edgeofa.tables.diff import diff_tables
    from edgeofa.tables.store import open_table

    found = diff_tables(open_table(old)[1], open_table(new)[1])
    typer.echo(dumps(found) if json else difference_text(found))
    if slower := [c for c in found.changed if c.ratio > 1]:
        raise RegressionFound(
            f"{len(slower)} blocks are slower", where=new, hint=f"the worst is {slower[0].block}"
        )


@app.command()
def verify(
    table: Name,
    space: Annotated[
        str | None, typer.Option(help="File of the table's space, where it is one of your own.")
    ] = None,
    spot: Annotated[int, typer.Option(help="Random blocks to measure again.", min=0)] = 0,
    device: Annotated[
        str | None, typer.Option(help="Device name or address; the target's own by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which blocks.")] = 0,
    json: Json = False,
) -> None:
    """Check a table against its space and target, and with --spot against the device."""
    from edgeofa.backends.registry import get_backend
    from edgeofa.devices.registry import device_for
    from edgeofa.errors import RegressionFound
    from edgeofa.jsonio import dumps
    from edgeofa.profiling.spot import spot_check
    from edgeofa.report.tables import verification_text
    from edgeofa.spaces import load_space
    from edgeofa.tables.store import open_table
    from edgeofa.tables.verify import check_table
    from edgeofa.targets import load_target

    path, found = open_table(table)
    target, declared = load_target(found.header.target), load_space(space or found.header.space)
    findings = check_table(found, declared, target)
    backend = get_backend(found.header.backend)
    checks: tuple[tuple[Change, bool], ...] = ()
    if spot:
        reached = device_for(target, device)
        typer.echo(f"device: {reached.name} ({reached.evidence})", err=True)
        checks = spot_check(
            found, target, declared, backend, blocks=spot, device=reached, seed=seed
        )
    if json:
        measured = [{"change": change, "differs": differs} for change, differs in checks]
        typer.echo(dumps({"findings": findings, "spot": measured}))
    else:
        typer.echo(verification_text(findings, checks))
    wrong = [f for f in findings if f.severity == "error"]
    moved = [change for change, differs in checks if differs]
    if wrong or moved:
        raise RegressionFound(
            f"{len(wrong)} errors, {len(moved)} of {len(checks)} blocks moved",
            where=path,
            hint=f"edgeofa profile --fresh --target {target.name} --space {declared.source}",
        )


@app.command()
def export(
    table: Name,
    form: Annotated[str, typer.Option("--format", help="json, ofa-json or ofa-yaml.")] = "json",
    out: Annotated[Path | None, typer.Option(help="File; stdout by default.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Say in JSON what was written to --out.")
    ] = False,
) -> None:
    """A table for other tools: whole as JSON, or as a once-for-all look-up table."""
    from edgeofa.errors import UsageError
    from edgeofa.jsonio import dumps
    from edgeofa.paths import write_atomic
    from edgeofa.tables.export import check_format, export_table
    from edgeofa.tables.store import open_table

    if json and out is None:
        raise UsageError("without --out the table itself is printed", hint="--format json")
    path, found = open_table(table)
    text = export_table(found, check_format(form))
    if out is None:
        typer.echo(text)
        return
    write_atomic(out, text + "\n")
    if json:
        typer.echo(dumps({"table": path, "format": form, "rows": len(found.rows), "file": out}))
