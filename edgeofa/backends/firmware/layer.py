"""One layer of a compiled network: its data, its call, what memory it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeofa.backends.firmware.shapes import (
    AddShape,
    ConvShape,
    DenseShape,
    DepthwiseShape,
    SplitShape,
    TileInputShape,
    TileOutputShape,
    TileWeightShape,
)
from edgeofa.graph.ir import Array
from edgeofa.graph.memory import Lead

#: an inner loop
Kernel = (
    ConvShape
    | DepthwiseShape
    | DenseShape
    | SplitShape
    | AddShape
    | TileInputShape
    | TileOutputShape
    | TileWeightShape
)
#: of a layer's description: a number, or inner loops (None for NULL)
Field = int | tuple[Kernel | None, ...]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array in flash."""

    name: str
    ctype: str
    values: Array

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes)


@dataclass(frozen=True, eq=False)
class Layer:
    """An operator, lowered.

    Attributes:
        function: of the runtime, and ``arguments`` after its description: C expressions in which
            ``{a}``, ``{b}`` and ``{out}`` stand for tensors, ``{scratch}`` for the scratch memory,
            and ``{name}`` for a constant.
        struct: type and fields of the description; a field may be an inner loop, a row of them, or
            None for NULL. None where the function takes no description.
        scratch_bytes: beside inputs and output, while the layer runs.
        overwrites: for positions of inputs that the output may lie over, how.
    """

    name: str
    function: str
    arguments: tuple[str, ...]
    struct: tuple[str, Mapping[str, Field]] | None
    constants: tuple[Constant, ...] = ()
    scratch_bytes: int = 0
    overwrites: Mapping[int, Lead] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        fields = () if self.struct is None else self.struct[1].values()
        rows = [f for f in fields if isinstance(f, tuple)]
        return tuple(kernel for row in rows for kernel in row if kernel is not None)
