"""Random small graphs for property tests of everything that reads a graph."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import strategies as st

from edgeofa.graph.builder import GraphBuilder, Padding
from edgeofa.graph.ir import Activation, Array, Graph, Op, OpKind, Pair

ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "relu6")
#: square ones first: they are what shrinking ends at
KERNELS: tuple[Pair, ...] = ((1, 1), (3, 3), (5, 5), (3, 1), (2, 4))
STRIDES: tuple[Pair, ...] = ((1, 1), (2, 2), (1, 2), (3, 1))


class _Draw:
    """A growing graph with the tensors that can still be used."""

    def __init__(self, draw: st.DrawFn, seed: int, shape: tuple[int, int, int, int]):
        self.draw = draw
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder("random", shape)
        self.tip = self.builder.input

    def normal(self, shape: tuple[int, ...], spread: float) -> Array:
        return self.rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)

    def image(self) -> tuple[int, int, int, int]:
        n, height, width, channels = self.builder.shape(self.tip)
        return n, height, width, channels

    def padding(self, kernel: Pair) -> Padding:
        choice = self.draw(st.sampled_from(["same", "symmetric", "valid", "explicit"]))
        _, height, width, _ = self.image()
        if choice == "explicit":
            tall, wide = st.integers(0, kernel[0] - 1), st.integers(0, kernel[1] - 1)
            pads = (self.draw(tall), self.draw(tall), self.draw(wide), self.draw(wide))
        elif choice == "valid":
            pads = (0, 0, 0, 0)
        else:
            return "same" if choice == "same" else "symmetric"
        if height + pads[0] + pads[1] < kernel[0] or width + pads[2] + pads[3] < kernel[1]:
            return "same"
        return pads

    def convolution(self) -> None:
        kernel = self.draw(st.sampled_from(KERNELS))
        cin, cout = self.image()[3], self.draw(st.integers(1, 12))
        self.tip = self.builder.conv2d(
            self.tip,
            self.normal((cout, *kernel, cin), (2 / (cin * prod(kernel))) ** 0.5),
            self.normal((cout,), 0.3),
            stride=self.draw(st.sampled_from(STRIDES)),
            padding=self.padding(kernel),
            activation=self.draw(st.sampled_from(ACTIVATIONS)),
        )

    def depthwise(self) -> None:
        kernel = self.draw(st.sampled_from([*KERNELS, (7, 7)]))
        channels = self.image()[3]
        self.tip = self.builder.depthwise_conv2d(
            self.tip,
            self.normal((1, *kernel, channels), (2 / prod(kernel)) ** 0.5),
            self.normal((channels,), 0.3),
            stride=self.draw(st.sampled_from(STRIDES)),
            padding=self.padding(kernel),
            activation=self.draw(st.sampled_from(ACTIVATIONS)),
        )

    def residual(self) -> None:
        channels, start = self.image()[3], self.tip
        y = self.builder.conv2d(
            start, self.normal((channels, 1, 1, channels), 1.0), self.normal((channels,), 0.3)
        )
        pair = (y, start) if self.draw(st.booleans()) else (start, y)
        self.tip = self.builder.add(*pair, activation=self.draw(st.sampled_from(ACTIVATIONS)))

    def squeeze_excite(self) -> None:
        channels = self.image()[3]
        z = self.builder.mean(self.tip)
        z = self.builder.conv2d(
            z,
            self.normal((channels, 1, 1, channels), 0.5),
            self.normal((channels,), 0.3) + np.float32(3),
            activation="relu6",
        )
        self.tip = self.builder.mul(self.tip, z)

    def hard_swish(self) -> None:
        self.tip = self.builder.hard_swish(self.tip)

    def average_pool(self) -> None:
        if min(self.image()[1:3]) >= 2:
            padding: Padding = "same" if self.draw(st.booleans()) else "valid"
            self.tip = self.builder.average_pool2d(self.tip, 2, padding=padding)

    def max_pool(self) -> None:
        if min(self.image()[1:3]) >= 3:
            self.tip = self.builder.max_pool2d(self.tip, 3, stride=2, padding="symmetric")

    def pad(self) -> None:
        self.tip = self.builder.pad(self.tip, (0, 1, 1, 0))

    def head(self) -> None:
        kind = self.draw(st.sampled_from(["image", "dense", "softmax"]))
        if kind == "image":
            return
        if self.draw(st.booleans()):
            self.tip = self.builder.mean(self.tip)
        features = int(np.prod(self.builder.shape(self.tip)[1:]))
        out = self.draw(st.integers(1, 10))
        weight = self.normal((out, features), features**-0.5)
        self.tip = self.builder.fully_connected(self.tip, weight, self.normal((out,), 0.3))
        if kind == "softmax":
            self.tip = self.builder.softmax(self.tip)


@st.composite
def graphs(draw: st.DrawFn, hard_swish: bool = True) -> Graph:
    """A float32 graph of up to about ten operators, every kind among them."""
    side = st.integers(3, 12)
    shape = (1, draw(side), draw(side), draw(st.integers(1, 6)))
    d = _Draw(draw, draw(st.integers(0, 2**32 - 1)), shape)
    layers = [d.convolution, d.depthwise, d.residual, d.squeeze_excite]
    layers += [d.average_pool, d.max_pool, d.pad]
    if hard_swish:
        layers.append(d.hard_swish)
    d.convolution()
    for layer in draw(st.lists(st.sampled_from(layers), max_size=6)):
        layer()
    d.head()
    return d.builder.build(d.tip)


def images(graph: Graph, count: int, seed: int = 0) -> Array:
    """Random input of a graph, NHWC float32."""
    shape = (count, *graph.input_tensor.shape[1:])
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def structure(graph: Graph) -> list[tuple[object, ...]]:
    """What two graphs of equal structure have in common: everything but names and numbers."""
    # tensors are renumbered by the order in which they are written
    order = {graph.input: 0} | {op.output: i + 1 for i, op in enumerate(graph.ops)}

    def row(op: Op) -> tuple[object, ...]:
        kind: OpKind = op.kind
        weight = None if op.weight is None else op.weight.shape
        return (
            kind,
            tuple(order[i] for i in op.inputs),
            graph.shape(op.output),
            op.activation,
            op.stride,
            op.pads,
            op.kernel,
            weight,
        )

    return [row(op) for op in graph.ops]
