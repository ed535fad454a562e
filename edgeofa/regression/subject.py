"""A deployment on its device, as a test in somebody's own repository holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa import __version__
from edgeofa.devices.base import Device
from edgeofa.errors import UsageError
from edgeofa.graph.ir import Array
from edgeofa.graph.reference import dequantize_array, quantization, quantize_array
from edgeofa.regression.deployed import Deployed
from edgeofa.regression.material import Material
from edgeofa.regression.outputs import run_images
from edgeofa.regression.record import DeploymentTest, TestReport
from edgeofa.regression.reports import raise_for
from edgeofa.regression.suite import Plan, test_deployment, today
from edgeofa.regression.timing import Timing, measure_latency
from edgeofa.targets import Target


@dataclass(frozen=True, eq=False)
class Subject:
    """What the fixture ``edgeofa_deployment`` gives.

    ``deployed`` has the record and the stored reference; ``baselines`` is the folder of baselines.
    """

    target: Target
    device: Device
    deployed: Deployed
    baselines: Path

    @property
    def material(self) -> Material:
        """Graph, stored inputs and their reference outputs."""
        if self.deployed.material is None:
            raise UsageError("it carries no reference: deploy again", where=self.deployed.folder)
        return self.deployed.material

    def run(self, images: Array) -> Array:
        """Outputs in real numbers, ``[N, classes]``, of preprocessed images (NHWC float32).

        Raises ``DeviceError`` when one does not run.
        """
        graph = self.material.graph
        stored = np.asarray(images, np.float32)
        if graph.precision == "int8":
            stored = quantize_array(stored, quantization(graph, graph.input))
        value = np.concatenate(run_images(self.device, self.deployed, graph, stored))
        if graph.precision == "float32":
            return value
        return dequantize_array(value, quantization(graph, graph.output))

    def latency(self) -> Timing:
        """The latency now, in ms with its interval and evidence."""
        record = self.deployed.record
        return measure_latency(
            self.device, self.deployed.artifact, record.backend, threads=record.threads
        )

    def test(self, *, runs: int = 1000, emulator_s: float = 12.0) -> DeploymentTest:
        """Every check of ``edgeofa test``; see the record."""
        plan = Plan(self.baselines, runs=runs, emulator_s=emulator_s)
        return test_deployment(self.target, self.device, self.deployed, plan)

    def check(self, *, runs: int = 1000, emulator_s: float = 12.0) -> DeploymentTest:
        """The same, but a regression is a ``RegressionFound``, an unstable measurement an
        ``UnstableMeasurement``, a failing device a ``DeviceError``."""
        found = self.test(runs=runs, emulator_s=emulator_s)
        raise_for(
            TestReport(
                status=found.status,
                target=self.target.name,
                deployments=(found,),
                date=today(),
                edgeofa=__version__,
            )
        )
        return found
