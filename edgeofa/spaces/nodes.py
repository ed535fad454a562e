"""The tree that a space declares. ``docs/spaces.md`` is the manual of its written form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeofa.spaces.blocks import make_divisible
from edgeofa.spaces.expressions import Condition, Scalar

#: what a space file may hold at most: nesting, and nodes after parts are put in
MAX_DEPTH = 24
MAX_TREE = 2000
MAX_CHOICES = 64
MAX_CHANNELS = 8192

Location = tuple[str | int, ...]
Ties = Mapping[str, tuple[Scalar, ...]]

#: what a condition about a block can name
FIGURES = (
    *("size", "size_out", "cin", "cout", "mid", "kernel", "stride", "expand"),
    *("residual", "se", "activation", "kind"),
)
RESERVED = frozenset({"resolution", "end", *FIGURES})


class DeclarationError(ValueError):
    """A mistake in a space's declaration: its place in the data, and the reason."""

    def __init__(self, location: Location, reason: str):
        self.location = location
        self.reason = reason
        super().__init__(f"{'.'.join(map(str, location)) or 'space'}: {reason}")


@dataclass(frozen=True)
class Choice:
    """One of several values, chosen here alone."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Tied:
    """The value of a tie, times a factor, rounded as ``make_divisible`` does."""

    tie: str
    times: float = 1
    multiple_of: int = 1

    def value(self, tied: Scalar) -> Scalar:
        if isinstance(tied, (str, bool)) or (self.times == 1 and self.multiple_of == 1):
            return tied
        return make_divisible(tied * self.times, self.multiple_of)


@dataclass(frozen=True)
class Relative:
    """The channels of the block's input times one of several factors, rounded likewise."""

    factors: tuple[float, ...]
    multiple_of: int = 8

    def value(self, channels: int, factor: float) -> int:
        return make_divisible(channels * factor, self.multiple_of)


Value = Choice | Tied | Relative


@dataclass(frozen=True)
class BlockNode:
    kind: str
    fields: tuple[tuple[str, Value], ...]
    where: Condition | None
    location: Location


@dataclass(frozen=True)
class SequenceNode:
    items: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class RepeatNode:
    """``body`` a number of times; the first copy is ``first``. ``tied``: all copies alike."""

    body: Node
    first: Node
    times: Choice | Tied
    tied: bool
    location: Location


@dataclass(frozen=True)
class ChooseNode:
    branches: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class WhenNode:
    """``otherwise`` is None where nothing may follow if the condition does not hold."""

    condition: Condition
    then: Node | None
    otherwise: Node | None
    location: Location


Node = BlockNode | SequenceNode | RepeatNode | ChooseNode | WhenNode
