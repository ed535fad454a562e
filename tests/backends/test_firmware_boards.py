"""Generated inner loops on emulated cores: DSP (Cortex-M4) and vectors (Cortex-M55).

About 40 s, most of it the cross compiler's.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import sample_graphs
from random_layers import random_layer

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.network import lower
from edgeofa.devices.base import Job, Measurement
from edgeofa.devices.qemu_board import QemuBoardDevice
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import quantization, quantize_array, run
from edgeofa.spaces import load_space
from edgeofa.targets import load_target

_RANDOM_LAYERS = 16
#: input, kernel, stride, output channels: keyword spotting's first layer, and rests of all kinds
SHORT_ROWS = (
    ((1, 49, 10, 1), (10, 4), (2, 2), 64),
    ((1, 17, 17, 1), (2, 2), (1, 1), 16),
    ((1, 23, 13, 2), (5, 3), (1, 2), 18),
    ((1, 11, 30, 3), (6, 1), (2, 1), 32),
)

pytestmark = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
    reason="no cross compiler or no emulator",
)


def short_rows(number: int) -> Graph:
    """A convolution whose inputs vectors take side by side; see patches.py."""
    shape, kernel, stride, cout = SHORT_ROWS[number]
    rng = np.random.default_rng(number)
    b = GraphBuilder(f"short-rows-{number}", shape)
    weights = sample_graphs.weights(rng, cout, *kernel, shape[3], outputs=cout)
    y = b.conv2d(b.input, *weights, stride=stride, padding="same", activation="relu")
    graph = quantize_with(b.build(y), [sample_graphs.images(shape, 4, number)])
    products = lower(graph).layers[0].struct
    assert products is not None
    assert products[1]["patch_products"] != (None,)
    return graph


def graphs() -> list[Graph]:
    space = load_space("cifar_micro")
    subnet = space.sample(random.Random(3), min(space.resolutions))
    whole = subnet_graph(space, subnet, 3)
    seen = sample_graphs.images(whole.input_tensor.shape, 4)
    return [
        *(sample_graphs.int8_graph(case, seed=5) for case in sample_graphs.CASES),
        *(sample_graphs.finer_output(sample_graphs.int8_graph(c)) for c in sample_graphs.LINEAR),
        quantize_with(whole, [seen]),
        *(short_rows(seed) for seed in range(len(SHORT_ROWS))),
        *(random_layer(seed) for seed in range(_RANDOM_LAYERS)),
    ]


@pytest.mark.parametrize("target", ["nucleo-l4r5zi", "corstone-300"])
def test_outputs_are_the_references(target: str, tmp_path: Path) -> None:
    jobs, expected = [], []
    for number, graph in enumerate(graphs()):
        artifact = FirmwareBackend().compile(graph, tmp_path / f"{number}.zip")
        real = sample_graphs.images((1, *graph.input_tensor.shape[1:]), 1, seed=9) * 2
        x = quantize_array(real, quantization(graph, graph.input))
        jobs.append(Job(artifact.path, "firmware", input=x, want_output=True))
        expected.append((graph.name, run(graph, x).ravel()))
    outcomes = QemuBoardDevice(load_target(target)).run(jobs)
    for outcome, (name, wanted) in zip(outcomes, expected, strict=True):
        assert isinstance(outcome, Measurement), (name, outcome)
        assert outcome.output is not None
        different = np.count_nonzero(outcome.output.ravel() != wanted)
        assert different == 0, f"{name}: {different} of {wanted.size} values differ"
        # the arena that was planned is all that was written
        assert outcome.arena_bytes is not None
