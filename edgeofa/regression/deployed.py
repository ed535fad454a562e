"""A deployment's folder, opened: everything checked against the record before anything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.base import TensorSpec
from edgeofa.deployment import Deployment, FileRecord, load_deployment
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.graph.ir import Quantization
from edgeofa.regression.material import Material, check_digest, load_material

RECORD_FILE = "deployment.json"
_ARTIFACT = re.compile(r"model\.[a-z0-9]{1,16}")


@dataclass(frozen=True, eq=False)
class Deployed:
    """A deployment as it lies in ``folder``; ``material`` is None where the record is older than
    ``edgeofa test``. ``name`` is the folder's."""

    folder: Path
    record: Deployment
    artifact: Path
    material: Material | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def input(self) -> TensorSpec:
        """The artifact's input."""
        i = self.record.input
        q = None
        if i.scale is not None and i.zero_point is not None:
            q = Quantization(i.scale, i.zero_point)
        return TensorSpec("input", i.shape, self.record.precision, i.layout, q)


def open_deployment(folder: Path) -> Deployed:
    """``MissingMaterial`` where there is none, ``FileFormatError`` where a file is not the one that
    the record was written with."""
    path = folder / RECORD_FILE
    if not path.is_file():
        raise MissingMaterial(f"no {RECORD_FILE}", where=folder, hint="edgeofa deploy")
    return _open(folder, load_deployment(path))


def _open(folder: Path, record: Deployment) -> Deployed:
    path = folder / RECORD_FILE
    # only the name: where the artifact was written first is of no interest, and not to be trusted
    name = Path(record.artifact.path.replace("\\", "/")).name
    if not _ARTIFACT.fullmatch(name):
        raise FileFormatError(f"the artifact is called {name[:80]!r}", where=path)
    artifact = folder / name
    check_digest(
        artifact,
        FileRecord(path=name, sha256=record.artifact.sha256, bytes=record.artifact.bytes),
    )
    material = None if record.test is None else load_material(record.test, folder)
    if material is not None and material.graph.precision != record.precision:
        raise FileFormatError(f"the graph is {material.graph.precision}", where=folder)
    return Deployed(folder, record, artifact, material)


def find_deployments(places: Sequence[Path], target: str) -> list[Deployed]:
    """Deployments to ``target`` in these folders, or in their sub-folders.

    Raises ``MissingMaterial`` when there are none, ``UsageError`` when two have the same name:
    their baselines would be one.
    """
    folders: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise MissingMaterial("no such folder", where=place, hint="edgeofa deploy --out")
        if (place / RECORD_FILE).is_file():
            folders[place] = None
        else:
            folders |= {p.parent: None for p in sorted(place.glob(f"*/{RECORD_FILE}"))}
    records = {f: load_deployment(f / RECORD_FILE) for f in folders}
    # files of other targets' deployments are of no interest, and may be elsewhere
    fitting = [_open(f, record) for f, record in records.items() if record.target == target]
    if not fitting:
        others = sorted({record.target for record in records.values()})
        raise MissingMaterial(
            f"no deployment to {target}" + (f", only to {', '.join(others)}" if others else ""),
            where=", ".join(str(p) for p in places),
            hint=f"edgeofa deploy --target {target}",
        )
    names = [d.name for d in fitting]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two deployments are called {name}", hint="rename one of them")
    return fitting
