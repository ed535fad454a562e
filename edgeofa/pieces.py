"""What a person names on the command line of verbs that look at speed: a block, a subnet's block,
or a whole subnet, with random weights.

    mbconv-16x16x24-16x16x24-m96-k3-s1-r1-se0-relu6-same     a block, by its key
    cifar_lite@128/3x1/3x6,...                               a whole subnet
    cifar_lite@128/3x1/3x6,...:3                             its block number 3; the stem is 0
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from edgeofa.errors import UsageError
from edgeofa.graph.blocks import block_graph, subnet_graph
from edgeofa.graph.ir import DType, Graph
from edgeofa.profiling.artifacts import in_precision
from edgeofa.spaces import Block, Space, Subnet, load_space, space_names


@dataclass(frozen=True)
class Piece:
    """A block, or a whole subnet where ``block`` is None."""

    name: str
    space: Space
    block: Block | None
    subnet: Subnet | None

    @property
    def is_block(self) -> bool:
        """It meets the caches as a part of a network does: its weights are not in them."""
        return self.block is not None

    def graph(self, precision: DType, seed: int = 0) -> Graph:
        """Its graph with random weights, whose values change no time."""
        if self.block is not None:
            return in_precision(block_graph(self.block, seed), precision, seed)
        if self.subnet is None:
            raise ValueError("neither a block nor a subnet")
        return in_precision(subnet_graph(self.space, self.subnet, seed), precision, seed)


def find_piece(text: str, space: str | None) -> Piece:
    """The piece that ``text`` names; of a block's key in the first space that has it.

    Args:
        space: the only space to look in; by default the one that a subnet's text names, and all
            bundled ones for a block.

    Raises ``UsageError`` with the nearest key where there is none.
    """
    text = text[:2000].strip()
    if "@" in text:
        name, _, number = text.partition(":")
        of = load_space(space or name.partition("@")[0])
        subnet = of.parse(name)
        return whole_subnet(of, subnet) if not number else _numbered(of, subnet, number)
    spaces = [load_space(n) for n in ([space] if space else space_names())]
    keys: list[str] = []
    for of in spaces:
        blocks = {b.key: b for b in of.all_blocks()}
        if text in blocks:
            return Piece(text, of, blocks[text], None)
        keys += blocks
    near = difflib.get_close_matches(text[:200], keys, n=1, cutoff=0.3)
    raise UsageError(
        f"no block is called {text[:120]!r}",
        where=f"space {space}" if space else "any bundled space",
        hint=f"did you mean {near[0]}?" if near else "edgeofa table show lists blocks",
    )


def whole_subnet(space: Space, subnet: Subnet) -> Piece:
    """A subnet as a piece."""
    return Piece(str(subnet), space, None, space.validate_subnet(subnet))


def _numbered(space: Space, subnet: Subnet, number: str) -> Piece:
    blocks: Sequence[Block] = space.blocks(subnet)
    if not (number.isascii() and number.isdigit() and int(number[:6]) < len(blocks)):
        raise UsageError(
            f"{number[:20]!r} is no block of this subnet", hint=f"0 to {len(blocks) - 1}"
        )
    block = blocks[int(number)]
    return Piece(block.key, space, block, None)
