"""Small graphs, one for each operator kind and way of padding, and a whole network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.quantize import quantize_with

SHAPE = (1, 9, 8, 12)


def weights(rng: np.random.Generator, *shape: int, outputs: int) -> tuple[Array, Array]:
    fan_in = int(np.prod(shape)) // outputs
    weight = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    return weight.astype(np.float32), (rng.standard_normal(outputs) * 0.1).astype(np.float32)


def _conv(b, rng, x, kernel=3, outputs=16, **options):
    cin = b.shape(x)[3]
    return b.conv2d(x, *weights(rng, outputs, kernel, kernel, cin, outputs=outputs), **options)


def _wide(b, rng, x):
    """12 by 8 pixels of so many channels that what follows has memory to spare."""
    return _conv(b, rng, x, 1, 200, padding=(0, 3, 0, 0), activation="relu")


def _depthwise(b, rng, x, kernel=3, **options):
    c = b.shape(x)[3]
    return b.depthwise_conv2d(x, *weights(rng, 1, kernel, kernel, c, outputs=c), **options)


def _dense(b, rng, x, outputs=10, **options):
    size = int(np.prod(b.shape(x)[1:]))
    return b.fully_connected(x, *weights(rng, outputs, size, outputs=outputs), **options)


def _squeeze_excite(b, rng, x):
    y = _conv(b, rng, b.mean(x), 1, 8, activation="relu")
    y = _conv(b, rng, y, 1, b.shape(x)[3], activation="relu6")
    return b.mul(x, y)


def _network(b, rng, x):
    y = _conv(b, rng, x, 3, 16, stride=2, padding="symmetric", activation="relu6")
    for stride in (1, 2):
        z = _conv(b, rng, y, 1, 48, activation="relu6")
        z = _depthwise(b, rng, z, 5, stride=stride, padding="symmetric", activation="relu6")
        z = _squeeze_excite(b, rng, z)
        z = _conv(b, rng, z, 1, 16)
        y = b.add(z, y) if stride == 1 else z
    return b.softmax(_dense(b, rng, b.mean(_conv(b, rng, y, 1, 64, activation="relu6"))))


#: name -> (builder, random generator, input) -> output
CASES: dict[str, Callable[[GraphBuilder, np.random.Generator, int], int]] = {
    "conv_same": lambda b, r, x: _conv(b, r, x, activation="relu6"),
    "conv_same_stride2": lambda b, r, x: _conv(b, r, x, stride=2, activation="relu"),
    "conv_symmetric_stride2": lambda b, r, x: _conv(b, r, x, 5, stride=2, padding="symmetric"),
    "conv_valid": lambda b, r, x: _conv(b, r, x, padding="valid"),
    "conv_tiles": lambda b, r, x: _conv(
        b, r, _conv(b, r, _wide(b, r, x), 1, 24), 3, 10, padding=(2, 0, 1, 1)
    ),
    "conv_many_tiles": lambda b, r, x: _conv(
        b, r, _conv(b, r, _wide(b, r, x), 1, 48), 3, 16, activation="relu"
    ),
    "conv_pointwise_stride2": lambda b, r, x: _conv(b, r, x, 1, stride=2),
    "conv_uneven_pads": lambda b, r, x: _conv(b, r, x, padding=(0, 2, 1, 0)),
    "depthwise_same": lambda b, r, x: _depthwise(b, r, x, activation="relu6"),
    "depthwise_symmetric_stride2": lambda b, r, x: _depthwise(
        b, r, x, 5, stride=2, padding="symmetric", activation="relu"
    ),
    "dense_flattens": lambda b, r, x: _dense(b, r, x, activation="relu"),
    "dense_after_mean": lambda b, r, x: _dense(b, r, b.mean(x)),
    "add": lambda b, r, x: b.add(_conv(b, r, x, 1, 12), x, activation="relu"),
    "squeeze_excite": _squeeze_excite,
    "mean": lambda b, _, x: b.mean(x),
    "average_pool": lambda b, _, x: b.average_pool2d(x, 3, stride=1, padding="same"),
    "average_pool_valid": lambda b, _, x: b.average_pool2d(x, 2),
    "max_pool_same": lambda b, _, x: b.max_pool2d(x, 3, stride=2, padding="same"),
    "max_pool_explicit": lambda b, _, x: b.max_pool2d(x, 3, stride=2, padding=(1, 1, 1, 1)),
    "pad": lambda b, _, x: b.pad(x, (1, 0, 2, 1)),
    "pad_then_conv": lambda b, r, x: _conv(b, r, b.pad(x, (1, 0, 2, 1)), padding="valid"),
    "hard_swish": lambda b, _, x: b.hard_swish(x),
    "softmax": lambda b, r, x: b.softmax(_dense(b, r, x)),
    "network": _network,
}


#: cases of one operator with weights
LINEAR = ("conv_same", "conv_pointwise_stride2", "depthwise_same", "dense_flattens")


def images(shape: tuple[int, ...], count: int, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 2, (count, *shape[1:])).astype(np.float32)


def float_graph(case: str, seed: int = 0) -> Graph:
    shape = (1, 24, 24, 3) if case == "network" else SHAPE
    builder = GraphBuilder(case, shape)
    return builder.build(CASES[case](builder, np.random.default_rng(seed), builder.input))


def int8_graph(case: str, seed: int = 0) -> Graph:
    graph = float_graph(case, seed)
    batch = images(graph.input_tensor.shape, 32)
    return quantize_with(graph, [batch], keep_hard_swish=True)


def finer_output(graph: Graph, factor: float = 900) -> Graph:
    """The same graph with a much smaller output scale: nearly every output saturates, and the
    multipliers that lead to it are larger than one."""
    tensors = list(graph.tensors)
    q = tensors[graph.output].quantization
    assert q is not None
    finer = replace(q, scale=float(np.float32(q.scale / factor)))
    tensors[graph.output] = replace(tensors[graph.output], quantization=finer)
    return replace(graph, tensors=tuple(tensors))
