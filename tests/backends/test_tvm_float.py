"""Libraries of the TVM back end in float32, against the numpy executor. About 20 s."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import graph_cases
import numpy as np
import pytest
import sample_graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeofa.backends.tvm.fuse import fuse
from edgeofa.backends.tvm.interface import read_interface
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import MACHINES
from edgeofa.backends.tvm.program import Choose
from edgeofa.backends.tvm.templates import Config, checked, template_for
from edgeofa.devices.base import Job, Measurement
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.builder import GraphBuilder
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.reference import run
from edgeofa.setup import requirements
from edgeofa.spaces import load_space
from edgeofa.targets import load_target

tvm = pytest.importorskip("tvm")

from tvm_world import run_library, runnable  # noqa: E402

A72 = MACHINES["cortex-a72"]


def _agrees(
    graph: Graph, folder: Path, machine: str | None = None, choose: Choose | None = None
) -> None:
    x = sample_graphs.images(graph.input_tensor.shape, 1)[:1]
    expected = run(graph, x.astype(np.float64))
    found = run_library(graph, x, folder, machine, choose)
    assert np.abs(found - expected).max() <= 2e-5 * max(np.abs(expected).max(), 1e-3)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(graph=graph_cases.graphs())
def test_random_graphs(graph: Graph) -> None:
    with TemporaryDirectory() as folder:
        _agrees(graph, Path(folder))


@pytest.mark.parametrize("machine", runnable())
def test_subnet_on_every_machine(machine: str, tmp_path: Path) -> None:
    space = load_space("cifar_micro")
    _agrees(subnet_graph(space, space.sample(random.Random(1)), 0), tmp_path, machine)


@st.composite
def _layers(draw: st.DrawFn) -> Graph:
    """One convolution, whose window may reach far over every border."""
    window = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    pads = tuple(draw(st.integers(0, n - 1)) for n in (*window[:1] * 2, *window[1:] * 2))
    size = tuple(draw(st.integers(n, 14)) for n in window)
    channels = st.sampled_from([1, 3, 8, 17, 36, 64])
    cin, cout = draw(channels), draw(channels)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    b = GraphBuilder("layer", (1, *size, cin))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    options = {"stride": stride, "padding": pads, "activation": "relu6"}
    if draw(st.booleans()):
        w, bias = sample_graphs.weights(rng, 1, *window, cin, outputs=cin)
        return b.build(b.depthwise_conv2d(b.input, w, bias, **options))
    w, bias = sample_graphs.weights(rng, cout, *window, cin, outputs=cout)
    return b.build(b.conv2d(b.input, w, bias, **options))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(graph=_layers(), data=st.data())
def test_any_configuration_is_right(graph: Graph, data: st.DataObject) -> None:
    machine = MACHINES[data.draw(st.sampled_from(runnable()))]

    def choose(kernel: Kernel) -> Config:
        knobs = template_for(kernel, machine).knobs(kernel, machine)
        config = {name: data.draw(st.sampled_from(values)) for name, values in knobs.items()}
        assert checked(config, kernel, machine) == config
        return config

    with TemporaryDirectory() as folder:
        _agrees(graph, Path(folder), machine.key, choose)


@pytest.mark.parametrize("machine", MACHINES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(graph=_layers())
def test_defaults_are_values_of_the_knobs(machine: str, graph: Graph) -> None:
    (call,) = fuse(graph, MACHINES[machine])
    config = template_for(call.kernel, MACHINES[machine]).default(call.kernel, MACHINES[machine])
    assert checked(config, call.kernel, MACHINES[machine]) == config


@pytest.mark.parametrize("offset", [0, 1])
def test_ends_at_any_address(offset: int, tmp_path: Path) -> None:
    """Aligned ones are used where they are, others are copied; neither input changes."""
    from tvm_ffi import from_dlpack, load_module

    from edgeofa.backends.tvm.backend import TvmBackend

    graph = sample_graphs.float_graph("add")
    main = load_module(str(TvmBackend().compile(graph, tmp_path / "a.so").path))["main"]
    x = sample_graphs.images(graph.input_tensor.shape, 1)[:1]
    given, taken = _at(x.size, offset), _at(graph.output_tensor.elements, offset)
    given[:] = x.ravel()
    main(from_dlpack(given, require_alignment=4), from_dlpack(taken, require_alignment=4))
    np.testing.assert_array_equal(given, x.ravel())
    expected = run(graph, x.astype(np.float64)).ravel()
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-5)


def _at(count: int, offset: int) -> Array:
    """Memory that begins ``offset`` elements behind a cache line."""
    memory = np.zeros(count + 32, np.float32)
    first = -memory.ctypes.data % 64 // 4 + offset
    return memory[first : first + count]


RPI4 = load_target("rpi4")
MISSING = [r.name for r in requirements(RPI4) if r.is_missing]


@pytest.mark.emulated
@pytest.mark.device
@pytest.mark.skipif(bool(MISSING), reason=f"edgeofa doctor: missing {', '.join(MISSING)}")
def test_outputs_of_an_emulated_a72(tmp_path: Path) -> None:
    from edgeofa.backends.tvm.backend import TvmBackend
    from edgeofa.devices.qemu_user import QemuUserDevice

    backend = TvmBackend().for_target(RPI4)
    assert backend.machine == A72
    graphs = [sample_graphs.float_graph(case) for case in ("network", "conv_uneven_pads")]
    inputs = [sample_graphs.images(g.input_tensor.shape, 1)[:1] for g in graphs]
    paths = [backend.compile(g, tmp_path / f"{n}.so").path for n, g in enumerate(graphs)]
    jobs = [
        Job(path, "tvm", input=x, want_output=True, timed=False)
        for path, x in zip(paths, inputs, strict=True)
    ]
    for graph, x, outcome in zip(graphs, inputs, QemuUserDevice(RPI4).run(jobs), strict=True):
        assert isinstance(outcome, Measurement), outcome
        expected = run(graph, x.astype(np.float64))
        np.testing.assert_allclose(outcome.output, expected, rtol=1e-4, atol=1e-5)


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
