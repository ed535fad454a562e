"""One kernel as a library of its own, with an input and the right output."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.library import link
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.program import arrange, make_program
from edgeofa.backends.tvm.templates import Config
from edgeofa.errors import UsageError
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import quantization, quantize_array, run

#: kinds whose templates have knobs
TUNABLE = frozenset({"conv2d", "depthwise_conv2d", "fully_connected"})
#: of the largest output, how far a float32 output may be off
_RELATIVE = 1e-4


@dataclass(frozen=True, eq=False)
class Subject:
    """A kernel as a network of its own, with random weights and a random input; both are the same
    every time."""

    kernel: Kernel
    graph: Graph
    input: Array
    expected: Array

    def library(self, machine: Machine, config: Config) -> bytes:
        """The kernel compiled with a configuration; ``EdgeofaError`` where that fails."""
        return link(make_program(arrange(self.graph, machine, lambda _: config)), machine)

    def is_right(self, output: Array) -> bool:
        """Whether a library's output is the graph's: within rounding in float32, exact in int8."""
        if output.size != self.expected.size:
            return False
        found = output.reshape(self.expected.shape)
        if self.kernel.dtype == "int8":
            return bool((found == self.expected).all())
        if not np.isfinite(found).all():
            return False
        scale = max(float(np.abs(self.expected).max()), 1e-6)
        return bool(np.abs(found - self.expected).max() <= _RELATIVE * scale)


def make_subject(kernel: Kernel) -> Subject:
    """Weights, input and output of a kernel without its fused sum; ``UsageError`` where it has
    nothing to tune."""
    kernel = kernel.plain
    rng = np.random.default_rng(zlib.crc32(kernel.key.encode()))
    graph = _graph(kernel, rng)
    image = rng.standard_normal(graph.input_tensor.shape, dtype=np.float32)
    stored: Array = image
    if kernel.dtype == "int8":
        graph = quantize_with(graph, [image])
        stored = quantize_array(image, quantization(graph, graph.input))
    if kernel.dtype == "float32":
        # in double precision, so that the difference is the library's own
        expected = run(graph, image.astype(np.float64))
    else:
        expected = run(graph, stored)
    return Subject(kernel, graph, stored, expected)


def _graph(kernel: Kernel, rng: np.random.Generator) -> Graph:
    """A network of one operator."""
    channels, outputs = kernel.input[2], kernel.output[2]
    b = GraphBuilder("kernel", (1, *kernel.input))
    bias = rng.standard_normal(outputs, dtype=np.float32)

    def weights(*shape: int) -> Array:
        spread = np.float32(np.prod(shape[1:]) ** -0.5)
        return rng.standard_normal(shape, dtype=np.float32) * spread

    if kernel.kind == "fully_connected":
        y = b.fully_connected(
            b.input, weights(outputs, channels), bias, activation=kernel.activation
        )
    elif kernel.kind in ("conv2d", "depthwise_conv2d"):
        is_dense = kernel.kind == "conv2d"
        shape = (outputs, *kernel.window, channels) if is_dense else (1, *kernel.window, channels)
        add = b.conv2d if is_dense else b.depthwise_conv2d
        y = add(
            b.input,
            weights(*shape),
            bias,
            stride=kernel.stride,
            padding=kernel.pads,
            activation=kernel.activation,
        )
    else:
        raise UsageError(f"{kernel.kind} has nothing to tune", where=kernel.key)
    return b.build(y)
