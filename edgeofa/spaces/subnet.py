"""One network of a space, by its choices."""

from __future__ import annotations

from dataclasses import dataclass

#: what a tied choice can be
Value = int | float | str | bool


@dataclass(frozen=True, order=True)
class Layer:
    """The two choices of one MBConv layer: kernel size and expansion."""

    kernel: int
    expand: int


@dataclass(frozen=True, order=True)
class Subnet:
    """One network: two equal networks are equal values with one text form.

    Of a staged MBConv space: resolution, and the layers of each stage that exist::

        cifar_lite@128/3x1/3x6,3x4/5x3/...

    Of any other: resolution, ties, and the labels of the choices that are made, in order; each
    top-level part of the space that chooses anything is one group::

        tree@24/style=deep,width=16/k3e2,n1/wide,k5
    """

    space: str
    resolution: int
    stages: tuple[tuple[Layer, ...], ...] = ()
    ties: tuple[tuple[str, Value], ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        groups = [",".join(f"{x.kernel}x{x.expand}" for x in s) for s in self.stages]
        if self.ties:
            groups.append(",".join(f"{name}={tie_text(value)}" for name, value in self.ties))
        groups += [",".join(labels) for labels in self.choices]
        return "/".join([f"{self.space}@{self.resolution}", *groups])

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(len(s) for s in self.stages)


def tie_text(value: Value) -> str:
    """A tie's value as subnets write it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
