"""What one function of a TVM library computes: a fused operator, without its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from edgeofa.graph.ir import Activation, DType, OpKind, Pads, Pair
from edgeofa.graph.ops import Shape

#: of the second operand of a sum or a product: as the first, one number for each channel, one
#: number in all
Other = Literal["none", "same", "channel", "scalar"]


@dataclass(frozen=True)
class Kernel:
    """A fused operator on one image, NHWC.

    A fully connected layer is a convolution of a 1x1 image. ``residual`` is the activation of a sum
    with another tensor of the output's shape that is fused behind the operator, None without one.
    ``other`` is the form of a sum's or product's second operand.
    """

    kind: OpKind
    dtype: DType
    input: Shape
    output: Shape
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    activation: Activation = "none"
    residual: Activation | None = None
    other: Other = "none"

    @property
    def key(self) -> str:
        """One line that names it, for records of tuning."""

        def size(shape: Shape) -> str:
            return "x".join(map(str, shape))

        parts = [self.kind, self.dtype, size(self.input), size(self.output)]
        if self.window != (1, 1):
            parts.append("k" + size(self.window))
        if self.stride != (1, 1):
            parts.append("s" + size(self.stride))
        if any(self.pads):
            parts.append("p" + size(self.pads))
        if self.activation != "none":
            parts.append(self.activation)
        if self.residual is not None:
            parts.append(f"add-{self.residual}")
        if self.other != "none":
            parts.append(f"by-{self.other}")
        return " ".join(parts)

    @property
    def plain(self) -> Kernel:
        """What is tuned: the kernel without its fused sum, which costs the same in any schedule."""
        return replace(self, residual=None)

    @property
    def is_flat(self) -> bool:
        """Pixels of input and output correspond one to one."""
        return self.window == (1, 1) and self.stride == (1, 1) and not any(self.pads)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, 0 for operators without weights."""
        if self.kind == "depthwise_conv2d":
            return prod(self.output) * prod(self.window)
        if self.kind in ("conv2d", "fully_connected"):
            return prod(self.output) * prod(self.window) * self.input[-1]
        return 0
