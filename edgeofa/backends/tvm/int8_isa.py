"""The int8 arithmetic that a machine's instructions give: products summed into int32,
requantisation, narrowing.

``mode`` says what a rescaling must reckon with: ``right`` where every shift is to the right by at
least one bit, which is what layers nearly always have, ``down`` where none is to the left, ``any``
for the rest.

A tile's products are taken in *chunks* of the reduction: ``chunk`` elements at a time, then tails
of ``tail`` elements, the last of which may overlap what was summed already (its weights are zero
there), so that nothing is ever read beyond the input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeofa.backends.tvm.emit import Buffer, Emitter, Expr, convert, load

Ints = NDArray[np.int64]
Mode = Literal["right", "down", "any"]


class Isa(ABC):
    """One instruction set. ``lanes`` int32 values make a vector; ``block`` output channels are
    summed in ``sums`` such vectors."""

    lanes: int
    block: int
    sums: int
    chunk: int
    tail: int
    #: the first products become the sums, which need not be cleared then
    starts_with_products: bool = False
    #: what is added to stored inputs before they are multiplied (unsigned dot products)
    input_offset: int = 0

    # ---- the reduction ----

    def chunks(self, depth: int) -> tuple[int, list[tuple[int, int]]]:
        """How often the whole chunk fits, and the (place, elements new there) of each tail."""
        whole, place = depth // self.chunk, depth - depth % self.chunk
        tails = []
        while place < depth:
            new = min(self.tail, depth - place)
            tails.append((place + new - self.tail, new))
            place += new
        return whole, tails

    @property
    def least_depth(self) -> int:
        """Shorter reductions are copied and filled up first."""
        return self.tail

    @abstractmethod
    def pack_chunk(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        """Bytes of one chunk or tail, flat, in the order of loading; from (block, elements)."""

    @abstractmethod
    def weights(self, e: Emitter, w: Buffer, index: Expr, size: int) -> list[Expr]:
        """One block's weights of a chunk or tail."""

    @abstractmethod
    def inputs(self, e: Emitter, x: Buffer, index: Expr, size: int) -> list[Expr]:
        """One pixel's inputs of a chunk or tail."""

    @abstractmethod
    def multiply(
        self, e: Emitter, acc: Sequence[Buffer], xs: list[Expr], ws: list[Expr], is_first: bool
    ) -> None:
        """Add the products of a chunk or tail to the sums of one pixel and block.

        Args:
            is_first: the products become the sums, where ``starts_with_products``.
        """

    @abstractmethod
    def totals(self, e: Emitter, acc: Sequence[Buffer]) -> list[Expr]:
        """The block's sums, ``block / lanes`` vectors in the order of channels."""

    # ---- requantisation ----

    @abstractmethod
    def constants(self, multiplier: Ints, shift: Ints, mode: Mode) -> list[Ints]:
        """What :meth:`rescale` reads, one array for each of its vectors."""

    @abstractmethod
    def rescale(
        self, e: Emitter, x: Expr, constants: Sequence[Expr], mode: Mode, turn: int = 0
    ) -> Expr:
        """MultiplyByQuantizedMultiplier with its two roundings, lane by lane.

        Args:
            turn: counts the vectors of a tile: where two ways cost different units of the core,
                they take turns.
        """

    @abstractmethod
    def finish(
        self,
        e: Emitter,
        y: Buffer,
        items: Sequence[tuple[Expr, Sequence[Expr]]],
        limits: Sequence[Expr],
    ) -> None:
        """Add the zero point, clamp and store as int8.

        Args:
            items: place in ``y`` and the neighbouring vectors that go there.
            limits: zero point, smallest and largest stored value, as int32 scalars.
        """

    def widened(self, e: Emitter, x: Buffer, at: Expr, vectors: int) -> list[Expr]:
        """Neighbouring int8 values as int32 vectors."""
        lanes = self.lanes
        return [e.bind(widen(load(x, at + i * lanes, lanes), lanes)) for i in range(vectors)]

    def count(self, mode: Mode) -> int:
        """How many arrays :meth:`constants` gives."""
        one = np.zeros(1, dtype=np.int64)
        return len(self.constants(one, one, mode))


def widen(x: Expr, lanes: int) -> Expr:
    """int8 lanes as int32."""
    return convert(f"int32x{lanes}", x)
