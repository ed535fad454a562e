"""Baselines: what a deployment was accepted with, one small JSON file each, kept in git.

    baselines/<target>/<deployment>/<back end>-<runtime version>-<evidence>.json

A baseline holds for one target, deployment, runtime version and evidence; the folders and the
name say which. Numbers of another device, another latency model or another kind of evidence are
refused. Only the runtime may differ, because a new runtime is what one tests for; then the report
says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.devices.base import DeviceState, Evidence
from edgeofa.errors import FileFormatError, UsageError
from edgeofa.graph.ir import Array
from edgeofa.paths import write_atomic
from edgeofa.regression.timing import Gate, Timing

MAX_BYTES = 1 << 20
#: accepted figures that a file remembers of itself
MAX_HISTORY = 200
#: what makes two devices the same one for a comparison; the rest of an identity is state
_SAME: dict[Evidence, tuple[str, ...]] = {
    "measured": ("model", "core", "machine", "processors"),
    "modelled": ("model", "core", "latency_model", "block_prices", "kernels"),
    "estimated": ("model", "core"),
}
_Text = Annotated[str, Field(max_length=1000)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LatencyRecord(_Model):
    """Milliseconds with their 95% interval over all A/A runs; ``yardsticks`` is the latency in
    multiples of the device's yardstick (low, middle, high)."""

    ms: _Positive
    low_ms: _Positive
    high_ms: _Positive
    rounds: int = Field(ge=1)
    yardsticks: tuple[_Positive, _Positive, _Positive] | None = None
    yardstick_ns: _Positive | None = None


class GateRecord(_Model):
    relative: float = Field(ge=0, le=10)
    absolute_ms: float = Field(ge=0, le=1e6)
    #: A/A runs that it was set from
    runs: int = Field(ge=1, le=1000)


class StateRecord(_Model):
    clock_hz: float | None = None
    governor: _Text | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    load: float | None = None


class BlockFigure(_Model):
    block: _Text
    ms: float = Field(ge=0, allow_inf_nan=False)
    low_ms: float = Field(ge=0, allow_inf_nan=False)
    high_ms: float = Field(ge=0, allow_inf_nan=False)


class HistoryPoint(_Model):
    """Figures that were accepted earlier."""

    date: _Text
    latency_ms: _Positive
    low_ms: _Positive
    high_ms: _Positive
    artifact: _Text
    reason: _Text = ""


class Baseline(_Model):
    """Everything that a later run is compared with."""

    schema_version: Literal[1] = 1
    target: _Text
    deployment: _Text
    backend: _Text
    runtime: _Text
    evidence: Evidence
    device: _Text
    device_identity: dict[_Text, _Text] = Field(max_length=64)
    versions: dict[_Text, _Text] = Field(max_length=64)
    artifact: _Text
    threads: int = Field(ge=1, le=256)
    latency: LatencyRecord
    gate: GateRecord
    energy_mj: _Positive | None = None
    load_ms: _Positive | None = None
    #: high-water marks: of the process's resident memory, and of what its C library took
    peak_rss_bytes: int | None = Field(default=None, ge=0)
    heap_bytes: int | None = Field(default=None, ge=0)
    #: the same of a microcontroller's working memory and stack
    arena_bytes: int | None = Field(default=None, ge=0)
    stack_bytes: int | None = Field(default=None, ge=0)
    accuracy: float | None = Field(default=None, ge=0, le=1)
    accuracy_images: _Text | None = None
    #: SHA-256 of the device's output for each stored input
    outputs: tuple[_Text, ...] = Field(max_length=64)
    blocks: tuple[BlockFigure, ...] = Field(max_length=2000)
    state: StateRecord
    date: _Text
    reason: _Text = ""
    history: tuple[HistoryPoint, ...] = Field(default=(), max_length=MAX_HISTORY)

    @property
    def timing(self) -> Timing:
        return Timing(
            **self.latency.model_dump(),
            evidence=self.evidence,
            void=0,
            state=DeviceState(**self.state.model_dump()),
        )

    @property
    def limits(self) -> Gate:
        return Gate(self.gate.relative, self.gate.absolute_ms)


def runtime_of(identity: Mapping[str, str], backend: str) -> str:
    """The runtime's version, without its build: ``2.3.0``."""
    return identity.get(backend, "unknown").split()[0]


def digest_outputs(outputs: Sequence[Array]) -> tuple[str, ...]:
    """A short name of each output's bytes."""
    return tuple(hashlib.sha256(o.tobytes()).hexdigest()[:32] for o in outputs)


def baseline_path(root: Path, baseline: Baseline) -> Path:
    return _folder(root, baseline.target, baseline.deployment) / (
        f"{_plain(baseline.backend)}-{_plain(baseline.runtime)}-{baseline.evidence}.json"
    )


def _folder(root: Path, target: str, deployment: str) -> Path:
    return root / _plain(target) / _plain(deployment)


def _plain(name: str) -> str:
    """A name that is one path component, whatever it holds."""
    text = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip(".-")[:120]
    if not text:
        raise UsageError(f"not a name for a file: {name[:80]!r}")
    return text


def save_baseline(root: Path, baseline: Baseline) -> Path:
    """Write the file, or leave the old one."""
    path = baseline_path(root, baseline)
    write_atomic(path, baseline.model_dump_json(indent=2) + "\n")
    return path


def load_baseline(path: Path) -> Baseline:
    """Read a file back; a foreign, damaged or oversized one is a ``FileFormatError``."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise FileFormatError("a baseline is at most 1 MiB", where=path)
        found = Baseline.model_validate_json(content)
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror or error}", where=path) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise FileFormatError(f"not a baseline: {place}: {first['msg']}", where=path) from error
    if not found.latency.low_ms <= found.latency.ms <= found.latency.high_ms:
        raise FileFormatError("its interval does not hold its latency", where=path)
    return found


def list_baselines(
    root: Path, target: str | None = None, deployment: str | None = None
) -> list[tuple[Path, Baseline]]:
    """Every baseline below ``root`` (of one target, of one deployment), the oldest first."""
    pattern = f"{_plain(target) if target else '*'}/{_plain(deployment) if deployment else '*'}"
    found = [(p, load_baseline(p)) for p in sorted(root.glob(f"{pattern}/*.json"))]
    return sorted(found, key=lambda item: (item[1].date, item[0].name))


def find_baseline(
    root: Path,
    target: str,
    deployment: str,
    backend: str,
    evidence: Evidence,
    identity: Mapping[str, str],
) -> tuple[Path, Baseline] | None:
    """What to compare with: of this runtime version, else the last one of another version.

    Raises ``UsageError`` when there are baselines, but of another device or kind of evidence only.
    """
    everything = list_baselines(root, target, deployment)
    refused: list[str] = []
    fitting: list[tuple[Path, Baseline]] = []
    for path, baseline in everything:
        reason = _refusal(baseline, target, deployment, backend, evidence, identity)
        if reason:
            refused.append(f"{path.name}: {reason}")
        else:
            fitting.append((path, baseline))
    runtime = runtime_of(identity, backend)
    exact = [item for item in fitting if item[1].runtime == runtime]
    if exact or fitting:
        return (exact or fitting)[-1]
    if refused:
        raise UsageError(
            f"no baseline is comparable ({'; '.join(refused)[:600]})",
            where=_folder(root, target, deployment),
            hint="accept one on this device: edgeofa baseline accept",
        )
    return None


def _refusal(
    baseline: Baseline,
    target: str,
    deployment: str,
    backend: str,
    evidence: Evidence,
    identity: Mapping[str, str],
) -> str:
    """Why a baseline is of something else; empty where it is comparable."""
    for name, has, wanted in (
        ("target", baseline.target, target),
        ("deployment", baseline.deployment, deployment),
        ("back end", baseline.backend, backend),
        ("evidence", baseline.evidence, evidence),
    ):
        if has != wanted:
            return f"it is of the {name} {has}"
    for key, has, wanted in other_device(baseline, identity):
        return f"it is from another device ({key} {has or 'unknown'}, here {wanted or 'none'})"
    return ""


def other_device(baseline: Baseline, identity: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(key, the baseline's, ``identity``'s) where they are not of one device or latency model."""
    known = baseline.device_identity
    pairs = [(key, known.get(key, ""), identity.get(key, "")) for key in _SAME[baseline.evidence]]
    return [pair for pair in pairs if pair[1] != pair[2]]
