"""``edgeofa doctor``: what a target needs, what is there, and the command that brings the rest."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    target: Annotated[str, typer.Option(help="Target name, or path of a target file.")] = "rpi4",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List every requirement of a target; exit code 4 when one is missing."""
    from edgeofa.errors import SetupError
    from edgeofa.jsonio import dumps
    from edgeofa.setup import requirements
    from edgeofa.targets import load_target

    wanted = load_target(target)
    needed = requirements(wanted)
    if as_json:
        typer.echo(dumps(needed))
    else:
        width = max(len(r.name) for r in needed)
        for requirement in needed:
            state = "optional" if requirement.optional else "missing"
            found = requirement.found or f"{state}: {requirement.command}"
            mark = "--" if requirement.is_missing else "ok" if requirement.found else "  "
            typer.echo(f"{mark}  {requirement.name:<{width}}  {found}")
    missing = sorted({r.command for r in needed if r.is_missing}, key=len, reverse=True)
    if missing:
        raise SetupError(
            f"{len(missing)} thing{'s' * (len(missing) > 1)} missing for this target",
            where=f"target {wanted.name}",
            hint=f"edgeofa setup --target {wanted.name}  (as root with --install it brings all)",
        )
