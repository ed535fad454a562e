"""The record of one deployment: what ``deployment.json`` holds and ``--json`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeofa.devices.base import Evidence
from edgeofa.errors import FileFormatError
from edgeofa.graph.ir import DType
from edgeofa.paths import write_atomic
from edgeofa.tables.table import Status

_MAX_FILE_BYTES = 1 << 22


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Model):
    """What the network may cost (only what was given is set), or what one costs."""

    latency_ms: float
    energy_mj: float | None = None
    flash_bytes: int | None = None
    sram_bytes: int | None = None

    def missed_by(self, cost: Budget) -> tuple[str, ...]:
        """Names of the budgets that ``cost`` is above."""
        limits, costs = self.model_dump(), cost.model_dump()
        return tuple(
            name
            for name, limit in limits.items()
            if limit is not None and costs[name] is not None and costs[name] > limit
        )

    def tightened(self, asked: Budget, cost: Budget, factor: float) -> Budget:
        """These limits, lowered where ``cost`` is above ``asked``, by the ratio and ``factor``."""
        limits, wanted, costs = self.model_dump(), asked.model_dump(), cost.model_dump()
        for name in asked.missed_by(cost):
            limits[name] *= wanted[name] / costs[name] * factor
            if name.endswith("_bytes"):
                limits[name] = int(limits[name])
        return Budget(**limits)


class Accuracy(_Model):
    """Top-1, 0 to 1. ``predicted`` by the bundle's accuracy model for the float32 network;
    ``measured`` with the deployed graph's arithmetic on ``images`` labelled images."""

    predicted: float | None = None
    predicted_error: float | None = None
    measured: float | None = None
    images: int | None = None


class OutputError(_Model):
    """The artifact's output on the device against edgeofa's own executor.

    ``max_relative`` is the largest absolute difference over the reference's largest magnitude;
    ``max_steps`` the same in quantisation steps (int8); ``sqnr_db`` compares the int8 reference
    with the float32 network, in decibels, over ``sqnr_images`` images.
    """

    max_relative: float
    max_steps: int | None = None
    images: int
    sqnr_db: float | None = None
    sqnr_images: int | None = None


class ArtifactRecord(_Model):
    path: str
    sha256: str
    bytes: int


class FileRecord(_Model):
    """A file beside the record, by its name in the folder."""

    path: str
    sha256: str
    bytes: int


class TestMaterial(_Model):
    """What ``edgeofa test`` needs later: the graph, a few inputs, and its outputs for them."""

    __test__ = False  # for pytest, which collects by name

    graph: FileRecord
    reference: FileRecord


class InputRecord(_Model):
    """How a picture becomes the artifact's input: ``(pixel - mean) / std``, then, for int8,
    ``round(x / scale) + zero_point``."""

    shape: tuple[int, ...]
    layout: str
    dtype: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float | None = None
    zero_point: int | None = None


class BlockRecord(_Model):
    """One block's share of the prediction, additivity fit not applied."""

    block: str
    latency_ms: float


class Candidate(_Model):
    """One back end that was tried on the device with the chosen subnet."""

    backend: str
    precision: DType
    measured_ms: float | None
    failure: str | None = None


class Attempt(_Model):
    """One turn of the walk: the budget planned with, and what came of it."""

    planned: Budget
    subnet: str
    precision: DType
    predicted_ms: float
    measured_ms: float
    missed: tuple[str, ...]


class RunnerUp(_Model):
    subnet: str
    predicted_ms: float
    accuracy: float | None


class TiesRecord(_Model):
    """Subnets that the accuracy model cannot tell apart, the fastest of which was taken.

    ``count`` of them are within ``tolerance`` (a fraction) of the most accurate, which is named.
    """

    count: int
    tolerance: float
    subnet: str
    predicted_ms: float
    accuracy: float | None


class FrontierPoint(_Model):
    subnet: str
    predicted_ms: float
    accuracy: float | None


class Deployment(_Model):
    """Everything that was decided and found; latencies in ms for one image."""

    schema_version: Literal[1] = 1
    verdict: Literal["met", "missed"]
    #: the budgets that are missed: latency, energy, flash, sram
    missed: tuple[str, ...]
    target: str
    device: str
    device_identity: dict[str, str]
    evidence: Evidence
    threads: int
    space: str
    weights: Literal["trained", "random"]
    subnet: str
    backend: str
    precision: DType
    budget: Budget
    predicted_ms: float
    measured_ms: float
    interval_ms: tuple[float, float]
    #: of the measurement, as in a table's row
    status: Status
    accuracy: Accuracy
    energy_mj: float | None
    energy_interval_mj: tuple[float, float] | None
    weight_bytes: int
    peak_bytes: int
    output_error: OutputError
    artifact: ArtifactRecord
    #: None in records that are older than ``edgeofa test``
    test: TestMaterial | None = None
    input: InputRecord
    parts_ms: dict[str, float]
    blocks: tuple[BlockRecord, ...]
    candidates: tuple[Candidate, ...]
    attempts: tuple[Attempt, ...]
    runners_up: tuple[RunnerUp, ...]
    ties: TiesRecord | None = None
    frontier: tuple[FrontierPoint, ...]
    #: of how many points ``frontier`` is a selection
    frontier_points: int
    table: str
    additivity: dict[str, float]
    calibration_images: int
    seed: int
    date: str
    seconds: dict[str, float]
    versions: dict[str, str]


def save_deployment(deployment: Deployment, path: Path) -> None:
    """Write the record, or leave the old one."""
    write_atomic(path, deployment.model_dump_json(indent=2) + "\n")


def load_deployment(path: Path) -> Deployment:
    """Read a record back; a foreign or corrupt one is a ``FileFormatError``."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise FileFormatError("a deployment record is at most 4 MiB", where=path)
        return Deployment.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FileFormatError(f"not a deployment record: {error}", where=path) from error
