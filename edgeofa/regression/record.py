"""What ``edgeofa test`` found: the record that ``--json`` prints and that all reports show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeofa.devices.base import Evidence

Status = Literal["passed", "failed", "unstable", "error", "skipped"]
#: the worst first: the status of a whole is that of its worst part
_ORDER: tuple[Status, ...] = ("error", "failed", "unstable", "passed", "skipped")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layer(_Model):
    """The first layer that computes something else than the graph says.

    ``steps``: largest difference in int8 steps; ``relative``: over the layer's largest output;
    ``share``: of its elements beyond the limit; ``image``: of the stored inputs, None where the
    layer was run on random values, or was only read.
    """

    layer: str
    kind: str
    block: str
    steps: int | None
    relative: float
    share: float
    channels: tuple[int, ...]
    image: int | None


class Moved(_Model):
    """A block whose latency changed."""

    block: str
    old_ms: float
    new_ms: float


class Check(_Model):
    """One thing that was checked; ``value`` and ``baseline`` in the unit of ``unit``."""

    name: str
    status: Status
    summary: str
    value: float | None = None
    baseline: float | None = None
    unit: str = ""
    evidence: Evidence | None = None
    layer: Layer | None = None
    #: the blocks that moved, the most first
    blocks: tuple[Moved, ...] = ()
    seconds: float = 0.0


class Point(_Model):
    """One accepted baseline, or this run: what the history shows."""

    date: str
    runtime: str
    latency_ms: float
    low_ms: float
    high_ms: float
    evidence: Evidence
    artifact: str


class DeploymentTest(_Model):
    """All checks of one deployment. ``changes``: versions and device state that differ from the
    baseline's; ``cause``: what they say about a regression."""

    deployment: str
    folder: str
    target: str
    device: str
    evidence: Evidence
    runtime: str
    artifact: str
    baseline: str | None
    checks: tuple[Check, ...]
    changes: tuple[str, ...] = ()
    cause: str = ""
    history: tuple[Point, ...] = ()
    device_identity: dict[str, str]
    seconds: float

    @property
    def status(self) -> Status:
        return worst(c.status for c in self.checks)


class TestReport(_Model):
    """One run of ``edgeofa test``."""

    __test__ = False  # for pytest, which collects by name

    schema_version: Literal[1] = 1
    status: Status
    target: str
    deployments: tuple[DeploymentTest, ...]
    date: str
    edgeofa: str


def worst(statuses: Iterable[Status]) -> Status:
    """The status of a whole from those of its parts; nothing at all is ``skipped``."""
    found = set(statuses)
    return next((s for s in _ORDER if s in found), "skipped")
