"""What an accuracy model is to the solver: a sum over layers that it can optimise exactly.

``score`` is the additive part, in whatever unit the model was fitted in (a logit, a log error);
``accuracy`` turns it into a fraction. ``rerank`` may use a better model than the additive one: the
solver optimises ``score``, takes the K best, and lets ``rerank`` choose among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import UsageError
from edgeofa.spaces.space import Block, Layer, Space, Subnet, make_divisible


class AccuracyModel(Protocol):
    """``score(subnet) == intercept(resolution) + sum of layer_score`` over its layers.

    ``position`` counts layers inside their stage from 0. A higher score is better, at every
    resolution on one scale.
    """

    @property
    def claims_accuracy(self) -> bool:
        """False for a stand-in whose score orders subnets but predicts no accuracy."""
        ...

    @property
    def error(self) -> float | None:
        """Mean absolute error of ``rerank`` as a fraction, None where no accuracy is claimed."""
        ...

    def intercept(self, resolution: int) -> float: ...

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float: ...

    def score(self, subnet: Subnet) -> float: ...

    def accuracy(self, subnet: Subnet) -> float:
        """Predicted top-1 accuracy, 0 to 1."""
        ...

    def rerank(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        """The best available prediction for each subnet, in the order given."""
        ...


def block_macs(block: Block) -> int:
    """Multiply-accumulates of one block for one image; biases and activations are not counted."""
    inside, outside = block.size**2, block.size_out**2
    if block.kind == "stem":
        return outside * block.kernel**2 * block.cin * block.cout
    if block.kind == "head":
        after = block.mid * block.mix + block.mix * block.cout if block.mix else 0
        return inside * block.cin * block.mid + (after or block.mid * block.cout)
    expansion = inside * block.cin * block.mid if block.mid != block.cin else 0
    squeeze = 2 * block.mid * make_divisible(block.mid / 4) if block.se else 0
    return expansion + squeeze + outside * block.mid * (block.kernel**2 + block.cout)


class MacsProxy:
    """A stand-in for untrained supernets: it prefers more work, evenly spread over the layers.

    A layer scores ``log2(1 + MACs / 1e6)``, so that a second million in one place is worth less
    than a first one elsewhere. It orders subnets for a latency test and predicts no accuracy.
    """

    claims_accuracy = False
    error = None

    def __init__(self, space: Space):
        self._space = space

    def intercept(self, resolution: int) -> float:  # noqa: ARG002 - part of the contract
        return 0.0

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float:
        block = self._space.layer_block(resolution, stage, position, layer)
        return log2(1 + block_macs(block) / 1e6)

    def score(self, subnet: Subnet) -> float:
        return self.intercept(subnet.resolution) + sum(
            self.layer_score(subnet.resolution, i, j, layer)
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        )

    def accuracy(self, subnet: Subnet) -> float:
        raise UsageError(
            "no accuracy is known for untrained weights",
            where=str(subnet),
            hint="use a space with a trained supernet, or deploy for latency alone",
        )

    def rerank(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        return np.array([self.score(s) for s in subnets], dtype=np.float64)
