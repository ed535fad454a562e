"""Libraries of the TVM back end in float32, against the numpy executor."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import graph_cases
import numpy as np
import pytest
import sample_graphs
from hypothesis import given, settings

from edgeofa.backends.tvm.fuse import fuse
from edgeofa.backends.tvm.interface import read_interface
from edgeofa.backends.tvm.machine import MACHINES
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Graph
from edgeofa.graph.reference import run
from edgeofa.spaces import load_space

tvm = pytest.importorskip("tvm")

from tvm_world import run_library, runnable  # noqa: E402

A72 = MACHINES["cortex-a72"]


def _agrees(graph: Graph, folder: Path, machine: str | None = None) -> None:
    x = sample_graphs.images(graph.input_tensor.shape, 1)[:1]
    expected = run(graph, x.astype(np.float64))
    found = run_library(graph, x, folder, machine)
    assert np.abs(found - expected).max() <= 2e-5 * max(np.abs(expected).max(), 1e-3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(graph=graph_cases.graphs())
def test_random_graphs(graph: Graph) -> None:
    with TemporaryDirectory() as folder:
        _agrees(graph, Path(folder))


@pytest.mark.parametrize("machine", runnable())
def test_subnet_on_every_machine(machine: str, tmp_path: Path) -> None:
    space = load_space("cifar_micro")
    _agrees(subnet_graph(space, space.sample(random.Random(1)), 0), tmp_path, machine)


def test_sums_are_fused_into_the_later_operand() -> None:
    graph = sample_graphs.float_graph("network")
    calls = fuse(graph, A72)
    kinds = [op.kind for op in graph.ops]
    fused = [call for call in calls if call.residual is not None]
    assert len(fused) + sum(c.kernel.kind == "add" for c in calls) == kinds.count("add")
    assert len(calls) == len(kinds) - len(fused)


def test_an_operator_without_a_schedule_is_named() -> None:
    b = GraphBuilder("odd", (1, 4, 4, 8))
    row = b.average_pool2d(b.input, kernel=(4, 1))
    graph = b.build(b.mul(b.input, row))
    with pytest.raises(UnsupportedOperator, match=r"no schedule for mul of \(1, 4, 4, 8\)"):
        fuse(graph, A72)


def test_same_graph_same_bytes(tmp_path: Path) -> None:
    from edgeofa.backends.tvm.backend import TvmBackend

    graph = sample_graphs.float_graph("depthwise_same")
    backend = TvmBackend(A72)
    first = backend.compile(graph, tmp_path / "a.so")
    second = backend.compile(graph, tmp_path / "b.so")
    assert first.sha256 == second.sha256
    described = read_interface(tmp_path / "a.so")
    assert described.inputs[0].shape == graph.input_tensor.shape
    assert described.operators == len(fuse(graph, A72))


def test_main_wants_two_tensors(tmp_path: Path) -> None:
    import tvm_ffi

    from edgeofa.backends.tvm.backend import TvmBackend

    graph = sample_graphs.float_graph("dense_flattens")
    TvmBackend().compile(graph, tmp_path / "a.so")
    main = tvm_ffi.load_module(str(tmp_path / "a.so"))["main"]
    with pytest.raises(TypeError, match="two tensors"):
        main(tvm.runtime.tensor(np.zeros(3, np.float32)))
    with pytest.raises(TypeError, match="two tensors"):
        main(1, 2)
