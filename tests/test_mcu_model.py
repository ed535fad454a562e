"""The benchmark of the cycle model: its calls into CMSIS-NN, on something with that interface."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import read_network
from edgeofa.errors import MissingMaterial
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.targets import load_target

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from cmsis_nn import cmsis_network  # noqa: E402
from mcu_model import execute, terms  # noqa: E402

LIKE = Path(__file__).parent / "cmsis_like"


def _network() -> Graph:
    """Every operator that the models of MLPerf Tiny have, but softmax."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    b = GraphBuilder("all", (1, 11, 9, 3))
    x = b.conv2d(b.input, weight(8, 3, 3, 3), weight(8), stride=2, activation="relu")
    y = b.depthwise_conv2d(x, weight(1, 3, 3, 8), weight(8), activation="relu")
    y = b.conv2d(y, weight(8, 1, 1, 8), weight(8))
    x = b.average_pool2d(b.add(x, y, activation="relu"), 2)
    x = b.fully_connected(x, weight(10, 8 * b.shape(x)[1] * b.shape(x)[2]), weight(10))
    images = rng.standard_normal((8, 11, 9, 3)).astype(np.float32)
    graph = quantize_with(b.build(x), [images])
    # CMSIS-NN's dense layer has one scale, as the models of MLPerf Tiny have
    last = graph.ops[-1]
    assert last.weight_scale is not None
    last = dataclasses.replace(last, weight_scale=last.weight_scale[:1])
    return dataclasses.replace(graph, ops=(*graph.ops[:-1], last))


@pytest.mark.device
@pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-system-arm", "arm-none-eabi-gcc"))),
    reason="needs qemu-system-arm and gcc-arm-none-eabi",
)
def test_calls_are_right_and_cost_more_than_ours(tmp_path: Path) -> None:
    target, graph = load_target("nucleo-l4r5zi"), _network()
    # execute compares the outputs with the graph's reference
    theirs = execute(target, cmsis_network(graph, LIKE), graph)
    artifact = FirmwareBackend().compile(graph, tmp_path / "own.zip")
    row = terms(target, "all", "edgeofa", graph, read_network(artifact.path))
    assert row.instructions < theirs.instructions / 2
    assert row.by_engine_ms["classes, flash"] == pytest.approx(
        row.core_ms + row.branches_ms + row.flash_ms
    )
    assert row.by_engine_ms["instructions"] < row.by_engine_ms["classes"]
    assert (row.published_ms, row.off) == (None, None)
    assert json.dumps(row.by_engine_ms)


def test_another_folder_is_not_cmsis(tmp_path: Path) -> None:
    with pytest.raises(MissingMaterial, match="not CMSIS-NN"):
        cmsis_network(_network(), tmp_path)
