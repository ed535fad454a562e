"""Whether a convolution is computed by tiles (see winograd.py), and how many of them at once."""

from __future__ import annotations

from dataclasses import dataclass

from edgeofa.backends.firmware.layer import Field
from edgeofa.backends.firmware.shapes import (
    ConvShape,
    Output,
    TileInputShape,
    TileOutputShape,
    TileWeightShape,
)
from edgeofa.graph.ir import Graph, Op

#: outputs of a tile in each direction, and places of its products
TILE, PLACES = 2, 16
_REACH_BYTES = 4095
_LARGEST_CHUNK = 8
#: sums are four times as large as the convolution's
_MOST_CHANNELS = 1024
#: cycles: a pair of inputs for four tiles and two channels; around a block of them and around a
#: call; a pair of weights' transform, and of a tile's inputs; a tile's way back for one channel
_PAIR, _BLOCK, _CALL, _WEIGHTS, _INPUTS, _BACK = 16, 41, 45, 175, 85, 75
#: the same for one of a tile's four outputs the other way: a product, and what follows all of them
_PRODUCT, _OUTPUT = 1.1, 10


@dataclass(frozen=True)
class Tiles:
    """``rows`` of tiles in a pass, ``tiles`` in each; ``pitch`` and ``row_words`` of the widened
    input and of a packed kernel row."""

    rows: int
    tiles: int
    pitch: int
    row_words: int
    channels: int
    out_channels: int

    @property
    def all_tiles(self) -> int:
        return self.rows * self.tiles

    @property
    def pairs(self) -> int:
        return self.channels // 2

    @property
    def words(self) -> int:
        """Scratch memory: transformed inputs, weights of two channels, their sums, in whose place
        the weights lie before."""
        sums = max(2 * PLACES * self.all_tiles, 3 * self.row_words)
        return PLACES * (self.all_tiles * self.pairs + 2 * self.pairs) + sums

    @property
    def reachable(self) -> bool:
        """Whether every immediate offset of the loops is within reach."""
        row_bytes = TILE * self.tiles * self.out_channels
        reaches = (
            4 * (3 * self.pitch + self.pairs),
            4 * (3 * self.pairs + _LARGEST_CHUNK),
            8 * PLACES * self.all_tiles,
            4 * (2 * self.row_words + 3 * self.pairs),
            row_bytes + self.out_channels + 1,
        )
        return max(reaches) <= _REACH_BYTES

    @property
    def cycles(self) -> float:
        """Of a tile and an output channel."""
        products = PLACES * ((self.pairs * _PAIR + _BLOCK) / 8 + _CALL / (2 * self.all_tiles))
        inputs = self.pairs * _INPUTS / self.out_channels
        return products + inputs + self.pairs * _WEIGHTS / (2 * self.all_tiles) + _BACK


def fitting_tiles(op: Op, graph: Graph, pitch: int, row_words: int, limit: int) -> Tiles | None:
    """The fastest way by tiles within ``limit`` bytes of scratch memory; None where there is none,
    or it is not faster than the usual one."""
    weight, _ = op.linear
    _, height, width, cout = graph.shape(op.output)
    cin = graph.shape(op.inputs[0])[3]
    simple = weight.shape[1:3] == (3, 3) and op.stride == (1, 1)
    if not simple or cin % 4 or cout % 2 or height % TILE or width % TILE or cin > _MOST_CHANNELS:
        return None
    found = []
    for rows in range(1, height // TILE + 1):
        tiles = Tiles(rows, width // TILE, pitch, row_words, cin, cout)
        widened = (TILE * rows + 2) * pitch + width * cin // 2
        fits = 4 * (widened + tiles.words) <= limit
        if fits and not height // TILE % rows and not tiles.all_tiles % 4 and tiles.reachable:
            found.append(tiles)
    best = min(found, key=lambda t: t.cycles, default=None)
    usual = TILE * TILE * (9 * cin * _PRODUCT + _OUTPUT)
    return best if best is not None and best.cycles < usual else None


def tile_fields(tiles: Tiles | None, output: Output | None) -> dict[str, Field]:
    """Of a convolution's description."""
    if tiles is None or output is None:
        names = ("tile_input", "tile_weight", "tile_output", "tile_products")
        return dict.fromkeys(names, (None,))
    pairs = tiles.pairs
    products = ConvShape(
        pixels=4,
        rows=1,
        words=pairs,
        chunk=max(n for n in range(1, _LARGEST_CHUNK + 1) if pairs % n == 0),
        group=1,
        pitch=pairs,
        step=pairs,
        channels=2,
        out_step=0,
        output=None,
        level="dsp",
    )
    row_bytes = TILE * tiles.tiles * tiles.out_channels
    back = TileOutputShape(tiles.tiles, tiles.all_tiles, tiles.out_channels, row_bytes, output)
    plane = tiles.all_tiles * pairs
    return {
        "tile_input": (TileInputShape(tiles.tiles, pairs, tiles.pitch, plane),),
        "tile_weight": (TileWeightShape(pairs, tiles.row_words),),
        "tile_output": (back,),
        "tile_products": (products,),
        "tiles": tiles.tiles,
    }
