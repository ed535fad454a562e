"""The choices that a block makes by itself, and their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from edgeofa.spaces.expressions import Scalar
from edgeofa.spaces.nodes import BlockNode, Choice, Relative, Tied


@dataclass(frozen=True)
class Figures:
    """The fields of one block with its choices made; ties and factors are not resolved yet."""

    label: str
    fields: tuple[tuple[str, Scalar | Tied | tuple[Relative, float]], ...]


_CODES = {"out": "w", "kernel": "k", "expand": "e", "stride": "s", "mix": "m"}


def block_choices(node: BlockNode) -> Iterator[Figures]:
    """Every combination of the block's own choices, first field slowest, with its label."""
    axes: list[list[tuple[str, tuple[str, Scalar | Tied | tuple[Relative, float]]]]] = []
    for name, value in node.fields:
        if isinstance(value, Choice):
            several = len(value.values) > 1
            axes.append([(_code(name, v) if several else "", (name, v)) for v in value.values])
        elif isinstance(value, Relative):
            several = len(value.factors) > 1
            axes.append([(f"x{f:g}" if several else "", (name, (value, f))) for f in value.factors])
        else:
            axes.append([("", (name, value))])
    for chosen in product(*axes):
        label = "".join(text for text, _ in chosen)
        yield Figures(label or node.kind, tuple(f for _, f in chosen))


def _code(field_name: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return f"{field_name if value else f'no{field_name}'}"
    if isinstance(value, str):
        return value.replace("_", "")
    return f"{_CODES[field_name]}{value}"
