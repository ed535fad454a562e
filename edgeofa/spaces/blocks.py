"""The unit that a latency table describes: a stem, a convolution, a whole fused MBConv, a pool, or
the head; its key, its shapes and its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SpaceActivation = Literal["relu", "relu6", "hard_swish"]
BlockActivation = Literal["none", "relu", "relu6", "hard_swish"]
BlockKind = Literal["stem", "conv", "mbconv", "max_pool", "average_pool", "head"]
Padding = Literal["same", "symmetric"]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round channels to a multiple of ``divisor``, never below 90% of ``value``.

    The rule of MobileNetV2's reference code, as once-for-all uses it.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True, order=True)
class Block:
    """One row's subject in a latency table.

    ``size`` is the input's height and width. ``mid`` is the expanded width (head: the width before
    pooling; stem, convolution and pools: 0). ``mix`` is the width of the head's layer after
    pooling, 0 for none.
    """

    kind: BlockKind
    size: int
    cin: int
    cout: int
    mid: int
    kernel: int
    stride: int
    residual: bool
    se: bool
    activation: BlockActivation
    padding: Padding
    mix: int = 0

    @property
    def size_out(self) -> int:
        """Height and width after the block; both paddings give ``ceil(size / stride)``."""
        return 1 if self.kind == "head" else -(-self.size // self.stride)

    @property
    def key(self) -> str:
        """Stable text form, the key of a table row."""
        parts = [
            self.kind.replace("_", ""),
            f"{self.size}x{self.size}x{self.cin}",
            f"{self.size_out}x{self.size_out}x{self.cout}",
            f"m{self.mid}",
            f"k{self.kernel}",
            f"s{self.stride}",
            f"r{int(self.residual)}",
            f"se{int(self.se)}",
            self.activation.replace("_", ""),
            self.padding,
        ]
        return "-".join(parts + ([f"x{self.mix}"] if self.mix else []))


def mbconv_block(
    size: int,
    cin: int,
    out: int,
    *,
    kernel: int,
    expand: int,
    stride: int,
    se: bool,
    activation: SpaceActivation,
    padding: Padding,
) -> Block:
    """A whole inverted bottleneck; it has a residual connection wherever shapes allow one."""
    residual = stride == 1 and cin == out
    mid = make_divisible(cin * expand)
    return Block("mbconv", size, cin, out, mid, kernel, stride, residual, se, activation, padding)


def head_block(
    size: int,
    cin: int,
    classes: int,
    expand: int,
    mix: int,
    activation: SpaceActivation,
    padding: Padding,
) -> Block:
    """The last block: 1x1 convolution, global pooling, a further layer if ``mix``, classifier."""
    return Block("head", size, cin, classes, expand, 1, 1, False, False, activation, padding, mix)


def block_macs(block: Block) -> int:
    """Multiply-accumulates of one block for one image; biases, activations and pools count 0."""
    inside, outside = block.size**2, block.size_out**2
    if block.kind in ("stem", "conv"):
        return outside * block.kernel**2 * block.cin * block.cout
    if block.kind in ("max_pool", "average_pool"):
        return 0
    if block.kind == "head":
        after = block.mid * block.mix + block.mix * block.cout if block.mix else 0
        return inside * block.cin * block.mid + (after or block.mid * block.cout)
    expansion = inside * block.cin * block.mid if block.mid != block.cin else 0
    squeeze = 2 * block.mid * make_divisible(block.mid / 4) if block.se else 0
    return expansion + squeeze + outside * block.mid * (block.kernel**2 + block.cout)
