"""The contexts of a space: every assignment of its resolution and ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeofa.spaces.automaton import Context
from edgeofa.spaces.declaration import Declaration
from edgeofa.spaces.expressions import Condition, ConditionError, Scalar
from edgeofa.spaces.nodes import DeclarationError, Location

#: more are refused
MAX_CONTEXTS = 4096


def contexts_of(declaration: Declaration, resolutions: Sequence[int]) -> tuple[Context, ...]:
    """Every assignment of resolution and ties that the constraints on ties allow."""
    contexts: list[Context] = []
    for resolution in resolutions:
        partial: list[dict[str, Scalar]] = [{"resolution": resolution}]
        for tie in declaration.ties:
            extended: list[dict[str, Scalar]] = []
            for values in partial:
                exists = tie.when is None or holds(tie.when, values, ("ties", tie.name))
                extended += [{**values, tie.name: v} for v in tie.values] if exists else [values]
                if len(contexts) + len(extended) > MAX_CONTEXTS:
                    raise DeclarationError(
                        ("ties",),
                        f"resolutions and ties have more than {MAX_CONTEXTS} combinations",
                    )
            partial = extended
        for values in partial:
            if all(
                holds(c.condition, values, c.location)
                for c in declaration.constraints
                if not c.blocks
            ):
                ties = tuple(sorted((k, v) for k, v in values.items() if k != "resolution"))
                contexts.append(Context(resolution, ties))
    return tuple(contexts)


def holds(condition: Condition, values: Mapping[str, Scalar], location: Location) -> bool:
    """A condition's value; one that has none is a mistake at ``location``."""
    try:
        return condition.holds(values)
    except ConditionError as error:
        raise DeclarationError(location, known_here(str(error), values)) from None


def known_here(reason: str, values: Mapping[str, Scalar]) -> str:
    """A reason, with the values that it happened for."""
    shown = ", ".join(f"{k} = {v}" for k, v in values.items() if k != "kind")
    return f"{reason} ({shown[:200]}); put it under a when that says so"
