"""Libraries of the TVM back end in int8: equal to the numpy executor, bit for bit. About 25 s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import graph_cases
import numpy as np
import pytest
import sample_graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeofa.backends.tvm.machine import MACHINES
from edgeofa.devices.base import Job, Measurement
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.quantize import quantize_with
from edgeofa.graph.reference import run
from edgeofa.setup import requirements
from edgeofa.spaces import load_space
from edgeofa.targets import load_target

tvm = pytest.importorskip("tvm")

from tvm_world import run_library, runnable  # noqa: E402

ARM = ("cortex-a72", "cortex-a76")


def _stored(graph: Graph, seed: int = 3) -> Array:
    """Any stored values, the extremes among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, graph.input_tensor.shape).astype(np.int8)


def _is_exact(graph: Graph, folder: Path, machine: str | None = None) -> None:
    x = _stored(graph)
    np.testing.assert_array_equal(run_library(graph, x, folder, machine), run(graph, x))


def _quantised(graph: Graph) -> Graph:
    images = sample_graphs.images(graph.input_tensor.shape, 4)
    return quantize_with(graph, [images], keep_hard_swish=True)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(graph=graph_cases.graphs())
def test_random_graphs(graph: Graph) -> None:
    with TemporaryDirectory() as folder:
        _is_exact(_quantised(graph), Path(folder))


@st.composite
def _chains(draw: st.DrawFn) -> Graph:
    """Layers of more channels than one vector holds, in odd numbers too, each after the other."""
    channels = st.sampled_from([8, 12, 17, 24, 40, 48, 64, 80, 100, 130])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = st.integers(2, 9)
    builder = GraphBuilder("chain", (1, draw(size), draw(size), draw(channels)))
    tip = builder.input
    activations = st.sampled_from(graph_cases.ACTIVATIONS)
    for kind in draw(st.permutations(["pointwise", "depthwise", "dense", "residual"])):
        cin, cout = builder.shape(tip)[3], draw(channels)
        kernel, stride = draw(st.sampled_from([1, 3, 5, 7])), draw(st.sampled_from([1, 2]))
        if kind == "depthwise":
            w, b = sample_graphs.weights(rng, 1, kernel, kernel, cin, outputs=cin)
            tip = builder.depthwise_conv2d(
                tip, w, b, stride=stride, padding="same", activation=draw(activations)
            )
            continue
        kernel = {"pointwise": 1, "residual": 1, "dense": min(kernel, 3)}[kind]
        cout = cin if kind == "residual" else cout
        stride = 1 if kind == "residual" else stride
        w, b = sample_graphs.weights(rng, cout, kernel, kernel, cin, outputs=cout)
        out = builder.conv2d(
            tip, w, b, stride=stride, padding="symmetric", activation=draw(activations)
        )
        tip = builder.add(out, tip, activation=draw(activations)) if kind == "residual" else out
    return builder.build(tip)


@pytest.mark.parametrize("machine", runnable())
def test_random_layers(machine: str) -> None:
    @settings(max_examples=4, deadline=None, derandomize=True)
    @given(graph=_chains())
    def check(graph: Graph) -> None:
        with TemporaryDirectory() as folder:
            _is_exact(_quantised(graph), Path(folder), machine)

    check()


@pytest.mark.parametrize("case", ["conv_same", "depthwise_same", "dense_flattens", "add"])
def test_outputs_that_saturate(case: str, tmp_path: Path) -> None:
    """Multipliers larger than one: sums are shifted to the left before they are multiplied."""
    _is_exact(sample_graphs.finer_output(sample_graphs.int8_graph(case)), tmp_path)


def test_subnet(tmp_path: Path) -> None:
    space = load_space("cifar_micro")
    _is_exact(_quantised(subnet_graph(space, space.smallest(), 0)), tmp_path)


def test_subnet_of_the_smallest_resolution_on_a_narrow_machine(tmp_path: Path) -> None:
    space = load_space("cifar_lite")
    subnet = replace(space.smallest(), resolution=64)
    _is_exact(_quantised(subnet_graph(space, subnet, 0)), tmp_path, runnable()[0])


@pytest.mark.parametrize("machine", ARM)
def test_code_for_arm_uses_integer_dot_products(machine: str, tmp_path: Path) -> None:
    """Named by their encodings: no disassembler is needed."""
    from edgeofa.backends.tvm.backend import TvmBackend

    graph = sample_graphs.int8_graph("network")
    content = TvmBackend(MACHINES[machine]).compile(graph, tmp_path / "a.so").path.read_bytes()
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
    # sdot (vector or by element); smlal and sadalp of bytes and half-words
    sdot = np.isin(words & 0xFFC0F400, [0x4F80E000]) | ((words & 0xFFE0FC00) == 0x4E809400)
    smlal = (words & 0xFFE0FC00) == 0x0E208000
    sadalp = (words & 0xFFFFFC00) == 0x4E606800
    assert (sdot.sum() > 20) == (machine == "cortex-a76")
    # depthwise layers multiply pairs of taps on both
    assert smlal.sum() > 20
    assert (sadalp.sum() > 20) == (machine == "cortex-a72")


RPI4 = load_target("rpi4")
MISSING = [r.name for r in requirements(RPI4) if r.is_missing]


@pytest.mark.emulated
@pytest.mark.device
@pytest.mark.skipif(bool(MISSING), reason=f"edgeofa doctor: missing {', '.join(MISSING)}")
def test_outputs_of_an_emulated_a72(tmp_path: Path) -> None:
    from edgeofa.backends.tvm.backend import TvmBackend
    from edgeofa.devices.qemu_user import QemuUserDevice

    graphs = [sample_graphs.int8_graph(case) for case in ("network", "average_pool")]
    graphs.append(sample_graphs.finer_output(sample_graphs.int8_graph("conv_uneven_pads")))
    backend = TvmBackend(MACHINES["cortex-a72"])
    jobs = [
        Job(
            backend.compile(graph, tmp_path / f"{number}.so").path,
            "tvm",
            input=_stored(graph),
            want_output=True,
            timed=False,
        )
        for number, graph in enumerate(graphs)
    ]
    for graph, job, outcome in zip(graphs, jobs, QemuUserDevice(RPI4).run(jobs), strict=True):
        assert isinstance(outcome, Measurement), outcome
        assert job.input is not None
        np.testing.assert_array_equal(outcome.output, run(graph, job.input))


def test_a_pool_too_large_for_exact_quotients_is_refused() -> None:
    from edgeofa.backends.tvm.fuse import fuse

    builder = GraphBuilder("large", (1, 80, 80, 8))
    graph = builder.build(builder.average_pool2d(builder.input, 80))
    with pytest.raises(UnsupportedOperator, match="average_pool2d"):
        fuse(_quantised(graph), MACHINES["cortex-a72"])
