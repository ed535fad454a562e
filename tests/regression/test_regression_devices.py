"""What devices tell for regression tests: runs in a row, yardsticks, outputs without counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from regression_world import make_deployment

from edgeofa.devices.base import Device, Job, Measurement
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.registry import device_for
from edgeofa.regression.deployed import open_deployment
from edgeofa.regression.endurance import check_endurance
from edgeofa.targets import load_target


def ran(device: Device, *jobs: Job) -> list[Measurement]:
    found = device.run(jobs)
    for outcome in found:
        assert isinstance(outcome, Measurement), outcome
    return found  # type: ignore[return-value]


@pytest.mark.device
@pytest.mark.parametrize("backend", ["litert", "onnxruntime"])
def test_this_machine_tells_what_surrounds_a_batch(tmp_path: Path, backend: str) -> None:
    deployed = open_deployment(make_deployment(tmp_path / "d", backend=backend))
    plain, watched = ran(
        LocalDevice(),
        Job(deployed.artifact, backend, runs=5),
        Job(deployed.artifact, backend, runs=200, watch=True),
    )
    assert plain.yardstick_ns is not None
    assert min(plain.yardstick_ns) > 0
    assert plain.preemptions is not None
    assert plain.load_ms is not None
    assert plain.load_ms > 0
    assert plain.peak_rss_bytes is not None
    assert plain.peak_rss_bytes > 1 << 20
    assert plain.endurance is None
    assert watched.endurance is not None
    assert (watched.endurance.compared, watched.endurance.changed) == (200, 0)
    assert watched.endurance.resident_growth_bytes is not None
    assert watched.endurance.resident_growth_bytes < 256 << 10
    assert len(watched.samples_ns) == 200


@pytest.mark.emulated
def test_an_emulator_gives_outputs_without_counting(tmp_path: Path) -> None:
    deployed = open_deployment(make_deployment(tmp_path / "d", target="rpi4"))
    assert deployed.material is not None
    device = device_for(load_target("rpi4"), "qemu-user")
    x = deployed.material.inputs[:1]
    counted, plain, watched = ran(
        device,
        Job(deployed.artifact, "litert", input=x, want_output=True),
        Job(deployed.artifact, "litert", input=x, want_output=True, timed=False, warmups=0),
        Job(deployed.artifact, "litert", runs=30, watch=True),
    )
    assert len(counted.samples_ns) == 1
    assert plain.samples_ns == watched.samples_ns == ()
    assert counted.output is not None
    assert np.array_equal(plain.output, counted.output)  # type: ignore[arg-type]
    assert watched.endurance is not None
    assert (watched.endurance.compared, watched.endurance.changed) == (30, 0)
    assert watched.endurance.heap_bytes is not None
    assert plain.yardstick_ns is plain.load_ms is None
    found = check_endurance(
        device, deployed.artifact, "litert", runs=1000, latency_ms=1.0, emulator_s=0.0, threads=1
    )
    assert found.check.status == "passed"
    assert found.check.value == 16
