"""All three back ends of rpi4 on one network: compiled for it, run, the fastest kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_graphs import float_graph, images, int8_graph

from edgeofa.devices.qemu_user import QemuUserDevice
from edgeofa.errors import DeviceError
from edgeofa.graph.ir import Graph
from edgeofa.networks import Network
from edgeofa.placement import place
from edgeofa.setup import requirements
from edgeofa.targets import load_target

RPI4 = load_target("rpi4")
MISSING = [r.name for r in requirements(RPI4, "tvm") if r.is_missing]
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.device,
    pytest.mark.skipif(bool(MISSING), reason=f"edgeofa doctor: missing {', '.join(MISSING)}"),
]


@pytest.mark.parametrize("graph", [float_graph("network"), int8_graph("network")])
def test_the_fastest_of_three_is_kept(graph: Graph, tmp_path: Path) -> None:
    network = Network(graph, images(graph.input_tensor.shape, 2, seed=3), None)
    placed = place(network, RPI4.backends, RPI4, QemuUserDevice(RPI4), tmp_path, 1, compared=2)
    assert {c.backend for c in placed.candidates} == {"litert", "onnxruntime", "tvm"}
    times = [c.measured_ms for c in placed.candidates]
    assert None not in times
    assert times == sorted(times)
    assert placed.artifact.backend == placed.candidates[0].backend
    assert placed.latency.ms == times[0]
    assert placed.latency.evidence == "modelled"
    assert placed.error.images == 2


def test_our_int8_equals_the_reference_bit_for_bit(tmp_path: Path) -> None:
    graph = int8_graph("network")
    network = Network(graph, images(graph.input_tensor.shape, 3, seed=5), None)
    placed = place(network, ("tvm",), RPI4, QemuUserDevice(RPI4), tmp_path, 1, compared=3)
    assert (placed.error.max_steps, placed.error.images) == (0, 3)
    assert placed.runtime.startswith("0.27.0.post1 sha256:")
    with pytest.raises(DeviceError, match="computes on one thread"):
        place(network, ("tvm",), RPI4, QemuUserDevice(RPI4), tmp_path, 2)
