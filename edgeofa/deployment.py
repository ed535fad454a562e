"""The record of one deployment: what ``deployment.json`` holds and ``--json`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from edgeofa.devices.base import Evidence
from edgeofa.errors import FileFormatError
from edgeofa.graph.ir import DType
from edgeofa.paths import write_atomic
from edgeofa.tables.table import Status

_MAX_FILE_BYTES = 1 << 22
#: what records of version 1 hold of the choice, beside what they hold of the deployment
_CHOICE_OF_VERSION_1 = (
    "table",
    "additivity",
    "calibration_images",
    "attempts",
    "runners_up",
    "ties",
    "frontier",
    "frontier_points",
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Model):
    """What the network may cost (only what was given is set), or what one costs."""

    latency_ms: float | None = None
    energy_mj: float | None = None
    flash_bytes: int | None = None
    sram_bytes: int | None = None

    @property
    def is_empty(self) -> bool:
        return all(limit is None for limit in self.model_dump().values())

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
    ``round(x / scale) + zero_point``. A user's own model does not say its mean and deviation."""

    shape: tuple[int, ...]
    layout: str
    dtype: str
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    scale: float | None = None
    zero_point: int | None = None


class BlockRecord(_Model):
    """One block's share of the prediction, additivity fit not applied."""

    block: str
    latency_ms: float


class LayerRecord(_Model):
    """One layer that the artifact runs: bytes alive meanwhile, and its time where the device
    tells one."""

    layer: str
    kind: str
    macs: int
    live_bytes: int
    latency_ms: float | None = None


class MemoryUse(_Model):
    """High-water marks on the device; None where it does not tell. ``arena_bytes`` and
    ``stack_bytes`` are painted memory that lost its paint, ``resident_bytes`` a process's.
    ``flash_bytes`` and ``ram_bytes`` are what a microcontroller's whole firmware takes (code,
    constants, working memory, stack), ``code_bytes`` of it the network's own code, and the totals
    what the board has."""

    arena_bytes: int | None = None
    stack_bytes: int | None = None
    resident_bytes: int | None = None
    code_bytes: int | None = None
    flash_bytes: int | None = None
    flash_total_bytes: int | None = None
    ram_bytes: int | None = None
    ram_total_bytes: int | None = None


class ModelRecord(_Model):
    """The user's own model that was deployed. ``precision`` is the file's; ``calibration_images``
    are those that it was quantised on here, 0 where it was deployed as it is."""

    file: str
    sha256: str
    bytes: int
    format: Literal["tflite", "onnx"]
    precision: DType
    macs: int
    calibration_images: int = 0


class Candidate(_Model):
    """One back end that was tried on the device with the network."""

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
    #: every back end that this turn's subnet was tried with
    candidates: tuple[Candidate, ...] = ()


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


class ChoiceRecord(_Model):
    """How edgeofa chose the subnet: the table it was planned with, every turn of the walk, and
    what else there was."""

    table: str
    additivity: dict[str, float]
    calibration_images: int
    attempts: tuple[Attempt, ...]
    runners_up: tuple[RunnerUp, ...]
    ties: TiesRecord | None = None
    frontier: tuple[FrontierPoint, ...]
    #: of how many points ``frontier`` is a selection
    frontier_points: int


class Deployment(_Model):
    """Everything that was decided and found; latencies in ms for one image.

    Either edgeofa chose a subnet of a space (``space``, ``subnet``, ``choice``) or the network is a
    ``model`` of the user's own, of which nothing is predicted.
    """

    schema_version: Literal[2] = 2
    #: ``unbudgeted``: a model of the user's own, and nothing was asked of it
    verdict: Literal["met", "missed", "unbudgeted"]
    #: the budgets that are missed: latency, energy, flash, sram
    missed: tuple[str, ...]
    target: str
    device: str
    device_identity: dict[str, str]
    evidence: Evidence
    threads: int
    space: str | None = None
    weights: Literal["trained", "random", "own"]
    subnet: str | None = None
    model: ModelRecord | None = None
    backend: str
    precision: DType
    budget: Budget
    #: None where no table of the target has anything to say about the network
    predicted_ms: float | None = None
    measured_ms: float
    interval_ms: tuple[float, float]
    #: of the measurement, as in a table's row
    status: Status
    accuracy: Accuracy
    energy_mj: float | None
    energy_interval_mj: tuple[float, float] | None
    weight_bytes: int
    peak_bytes: int
    memory: MemoryUse = MemoryUse()
    output_error: OutputError
    artifact: ArtifactRecord
    #: None in records that are older than ``edgeofa test``
    test: TestMaterial | None = None
    input: InputRecord
    parts_ms: dict[str, float]
    #: where the back end tells its layers apart
    layers: tuple[LayerRecord, ...] = ()
    blocks: tuple[BlockRecord, ...] = ()
    candidates: tuple[Candidate, ...]
    choice: ChoiceRecord | None = None
    seed: int
    date: str
    seconds: dict[str, float]
    versions: dict[str, str]

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, data: Any) -> Any:
        """Records of version 1 know subnets alone, and hold the choice beside the rest."""
        if not isinstance(data, dict) or data.get("schema_version") != 1:
            return data
        choice = {name: data[name] for name in _CHOICE_OF_VERSION_1 if name in data}
        rest = {name: value for name, value in data.items() if name not in choice}
        return rest | {"schema_version": 2, "choice": choice}

    @model_validator(mode="after")
    def _one_network(self) -> Deployment:
        chosen = (self.space, self.subnet, self.predicted_ms, self.choice)
        if self.model is None and None in chosen:
            raise ValueError("neither a subnet, with its space and choice, nor a model")
        if self.model is not None and chosen != (None,) * len(chosen):
            raise ValueError("a model and a subnet")
        return self

    @property
    def network(self) -> str:
        """What was deployed: the subnet, or the name of the model's file."""
        return str(self.subnet) if self.model is None else self.model.file

    @property
    def title(self) -> str:
        """The space, or the model's file."""
        return str(self.space) if self.model is None else self.model.file

    @property
    def tried(self) -> tuple[tuple[str, Candidate], ...]:
        """Everything that ran on the device, or would not: network and back end, turn by turn."""
        attempts = () if self.choice is None else self.choice.attempts
        known = tuple((a.subnet, c) for a in attempts for c in a.candidates)
        # records of version 1 have the candidates of the deployed network alone
        return known or tuple((self.network, c) for c in self.candidates)

    @property
    def peak_layer(self) -> LayerRecord | None:
        """The layer at which most memory is alive."""
        return max(self.layers, key=lambda layer: layer.live_bytes, default=None)


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
