"""Single layers of random shapes, int8: what generated loops are specialised for."""

from __future__ import annotations

import numpy as np
import sample_graphs

from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Activation, Graph
from edgeofa.graph.quantize import quantize_with

_ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "relu6")
_CHANNELS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 24, 31, 32, 40, 64, 68)


def random_layer(seed: int) -> Graph:
    """An int8 graph of one or two layers; every seed gives another one."""
    rng = np.random.default_rng(seed)
    kernel = (int(rng.integers(1, 8)), int(rng.integers(1, 8)))
    if rng.random() < 0.6:
        kernel = (kernel[0], kernel[0])
    if rng.random() < 0.25:
        kernel = (3, 3)
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    if rng.random() < 0.6:
        stride = (1, 1)
    pads = tuple(int(rng.integers(0, k)) for k in (kernel[0], kernel[0], kernel[1], kernel[1]))
    height, width = (int(n) for n in rng.integers(7, 23, 2))
    cin, cout = (int(n) for n in rng.choice(_CHANNELS, 2))
    activation = _ACTIVATIONS[int(rng.integers(3))]
    b = GraphBuilder(f"random-{seed}", (1, height, width, cin))
    match rng.integers(6):
        case 0 | 1:
            weights = sample_graphs.weights(rng, cout, *kernel, cin, outputs=cout)
            y = b.conv2d(b.input, *weights, stride=stride, padding=pads, activation=activation)
        case 2 | 3:
            weights = sample_graphs.weights(rng, 1, *kernel, cin, outputs=cin)
            y = b.depthwise_conv2d(
                b.input, *weights, stride=stride, padding=pads, activation=activation
            )
        case 4:
            weights = sample_graphs.weights(rng, cout, 1, 1, cin, outputs=cout)
            y = b.conv2d(b.input, *weights, activation=activation)
            y = b.add(y, y if rng.random() < 0.2 else b.conv2d(b.input, *weights))
        case _:
            features = height * width * cin
            y = b.fully_connected(
                b.input,
                *sample_graphs.weights(rng, cout, features, outputs=cout),
                activation=activation,
            )
    graph = b.build(y)
    return quantize_with(graph, [sample_graphs.images(graph.input_tensor.shape, 4, seed)])
