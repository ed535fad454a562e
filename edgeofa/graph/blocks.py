"""Graphs of a space's blocks and subnets with random weights, for profiling and for tests.

The operators are the very ones that the importer makes of the extracted torch module, so that a
block costs on a device what it costs inside the deployed network. Weights are He-initialised from
a seed: inference time depends on shapes, not on values, but zeros or denormals would not be fair.
"""

from __future__ import annotations

from math import prod

import numpy as np

from edgeofa.graph.builder import GraphBuilder, Padding
from edgeofa.graph.ir import Activation, Array, Graph
from edgeofa.spaces.blocks import Block, BlockActivation, make_divisible
from edgeofa.spaces.space import Space
from edgeofa.spaces.subnet import Subnet

_SE_REDUCTION = 4


class _Layers:
    """Adds convolutions with random weights to a builder."""

    def __init__(self, builder: GraphBuilder, seed: int):
        self._builder = builder
        self._rng = np.random.default_rng(seed)

    def _normal(self, shape: tuple[int, ...], variance: float) -> Array:
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(variance**0.5)

    def _activated(self, activation: BlockActivation) -> tuple[Activation, bool]:
        return ("none", True) if activation == "hard_swish" else (activation, False)

    def conv(
        self,
        x: int,
        name: str,
        cout: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: Padding = "valid",
        activation: BlockActivation = "none",
        gain: float = 1.0,
        offset: float = 0.0,
    ) -> int:
        """Convolution and activation. ``gain`` scales the weights, ``offset`` the bias."""
        cin = self._builder.shape(x)[3]
        weight = self._normal((cout, kernel, kernel, cin), 2 / (cin * kernel * kernel))
        fused, swish = self._activated(activation)
        y = self._builder.conv2d(
            x,
            weight * np.float32(gain),
            self._normal((cout,), 0.01) + np.float32(offset),
            stride=stride,
            padding=padding,
            activation=fused,
            name=name,
        )
        return self._builder.hard_swish(y, name=f"{name}.act") if swish else y

    def depthwise(
        self,
        x: int,
        name: str,
        *,
        kernel: int,
        stride: int,
        padding: Padding,
        activation: BlockActivation,
    ) -> int:
        channels = self._builder.shape(x)[3]
        fused, swish = self._activated(activation)
        y = self._builder.depthwise_conv2d(
            x,
            self._normal((1, kernel, kernel, channels), 2 / (kernel * kernel)),
            self._normal((channels,), 0.01),
            stride=stride,
            padding=padding,
            activation=fused,
            name=name,
        )
        return self._builder.hard_swish(y, name=f"{name}.act") if swish else y

    def dense(self, x: int, name: str, out: int) -> int:
        features = prod(self._builder.shape(x)[1:])
        weight = self._normal((out, features), 1 / features)
        return self._builder.fully_connected(x, weight, self._normal((out,), 0.01), name=name)


def _add_mbconv(b: GraphBuilder, layers: _Layers, x: int, block: Block, prefix: str) -> int:
    y = x
    if block.mid != block.cin:
        y = layers.conv(y, f"{prefix}.expand", block.mid, activation=block.activation)
    y = layers.depthwise(
        y,
        f"{prefix}.depthwise",
        kernel=block.kernel,
        stride=block.stride,
        padding=block.padding,
        activation=block.activation,
    )
    if block.se:
        # hard sigmoid is relu6(z + 3) / 6: the 3 goes into the bias, the 1/6 into the projection
        squeezed = make_divisible(block.mid / _SE_REDUCTION)
        z = b.mean(y, name=f"{prefix}.se.mean")
        z = layers.conv(z, f"{prefix}.se.reduce", squeezed, activation="relu")
        z = layers.conv(z, f"{prefix}.se.expand", block.mid, activation="relu6", offset=3.0)
        y = b.mul(y, z, name=f"{prefix}.se.mul")
    y = layers.conv(y, f"{prefix}.project", block.cout, gain=1 / 6 if block.se else 1.0)
    return b.add(y, x, name=f"{prefix}.add") if block.residual else y


def _add_head(b: GraphBuilder, layers: _Layers, x: int, block: Block, prefix: str) -> int:
    y = layers.conv(x, f"{prefix}.expand", block.mid, activation=block.activation)
    y = b.mean(y, name=f"{prefix}.mean")
    if block.mix:
        y = layers.conv(y, f"{prefix}.mix", block.mix, activation=block.activation)
    return layers.dense(y, f"{prefix}.classifier", block.cout)


def _add_block(b: GraphBuilder, layers: _Layers, x: int, block: Block, prefix: str) -> int:
    if block.kind == "mbconv":
        return _add_mbconv(b, layers, x, block, prefix)
    if block.kind == "head":
        return _add_head(b, layers, x, block, prefix)
    if block.kind in ("max_pool", "average_pool"):
        pool = b.max_pool2d if block.kind == "max_pool" else b.average_pool2d
        return pool(
            x, block.kernel, stride=block.stride, padding=block.padding, name=f"{prefix}.pool"
        )
    y = layers.conv(
        x,
        f"{prefix}.conv",
        block.cout,
        kernel=block.kernel,
        stride=block.stride,
        padding=block.padding,
        activation=block.activation,
    )
    return b.add(y, x, name=f"{prefix}.add") if block.residual else y


def block_graph(block: Block, seed: int = 0) -> Graph:
    """The float32 graph of one block, ``(1, size, size, cin)`` to its output."""
    b = GraphBuilder(block.key, (1, block.size, block.size, block.cin))
    return b.build(_add_block(b, _Layers(b, seed), b.input, block, block.kind))


def subnet_graph(space: Space, subnet: Subnet, seed: int = 0) -> Graph:
    """The float32 graph of a whole subnet with random weights; output: logits ``(1, classes)``."""
    blocks = space.blocks(space.validate_subnet(subnet))
    b = GraphBuilder(str(subnet), (1, subnet.resolution, subnet.resolution, 3))
    layers = _Layers(b, seed)
    y = b.input
    for i, block in enumerate(blocks):
        y = _add_block(b, layers, y, block, f"{i}.{block.kind}")
    return b.build(y)
