"""The file that a search is resumed from: what it is about, and every value it has been given.

The rows that were asked about are not kept, only a digest of them: the search asks the same ones
again. Where it does not (another version of the searcher), the file is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.accuracy.mlp import MlpAccuracy
from edgeofa.errors import FileFormatError
from edgeofa.paths import write_atomic
from edgeofa.solver.choices import BlackBox, Floats, Objective
from edgeofa.solver.problem import Ints, Limits, Problem

_MAX_BYTES = 512 << 20
_SAVE_EVERY_S = 5.0
#: subnets that a given objective, which may be slow, is asked about at a time
_PIECE = 16

_Short = Annotated[str, Field(max_length=200)]


class Identity(BaseModel):
    """What makes two searches the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    searcher: _Short
    settings: dict[str, int | float | str | bool | None]
    budget_calls: int = Field(ge=1)
    seed: int
    objective: Literal["accuracy model", "given"]
    space: _Short
    limits: _Short
    problem: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["edgeofa search"] = "edgeofa search"
    schema_version: Literal[1] = 1
    search: Identity
    seconds: float = Field(ge=0)
    #: of the rows that the values are of
    rows_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    values: list[float]


def identity(
    problem: Problem,
    limits: Limits,
    searcher: str,
    settings: dict[str, object],
    budget_calls: int,
    seed: int,
    objective: BlackBox | None,
) -> Identity:
    """What the state file of a search is checked against.

    The digest covers every cost, score and option of the problem and a network predictor's weights.
    A given objective cannot be told from another one.
    """
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [problem.fixed_costs, problem.fixed_scores, problem.allowed]
    for arc in problem.arcs:
        arrays += [np.array([arc.source, arc.target, arc.edge]), arc.options, arc.costs]
        arrays += [arc.peaks, arc.scores, arc.allowed]
    model = problem.accuracy
    if isinstance(model, MlpAccuracy):
        arrays += [*model.network.weights, *model.network.biases]
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr((problem.automaton.contexts, problem.score_unit)).encode())
    return Identity(
        searcher=searcher,
        settings=settings,
        budget_calls=budget_calls,
        seed=seed,
        objective="accuracy model" if objective is None else "given",
        space=problem.space.name,
        limits=json.dumps([limits.sums, limits.peaks]),
        problem=digest.hexdigest(),
    )


class StateFile:
    """The values of a search, saved every few seconds and answered from after an interruption."""

    def __init__(self, path: Path, search: Identity, every_s: float = _SAVE_EVERY_S):
        self._path = path
        self._search = search
        self._every_s = every_s
        self._known: list[float] = []
        self._given: list[float] = []
        self._digest = hashlib.sha256()
        self._wanted = ""
        #: what the search had taken when it was saved
        self.seconds = 0.0
        self._saved_at = time.monotonic()
        if path.exists():
            saved = self._load()
            self._known, self._wanted, self.seconds = saved.values, saved.rows_sha256, saved.seconds

    def answered(self, rows: Ints, objective: Objective, seconds: float) -> Floats:
        """Values of rows, from the file as far as it goes."""
        whole: list[float] = []
        size = len(rows) if objective.function is None else _PIECE
        for at in range(0, len(rows), size):
            piece, done = rows[at : at + size], len(self._given)
            # files end where a piece does, and pieces are the same in every run
            values = self._known[done : done + len(piece)]
            if len(values) < len(piece):
                values = objective.values(piece).tolist()
            self._digest.update(np.ascontiguousarray(piece, dtype="<i8").tobytes())
            self._given += values
            whole += values
            if len(self._given) == len(self._known) and self._digest.hexdigest() != self._wanted:
                raise FileFormatError(
                    "the search asks about other subnets than the one that was interrupted",
                    where=self._path,
                    hint="remove the file to start over; another version of the searcher wrote it",
                )
            if time.monotonic() - self._saved_at >= self._every_s:
                self.save(seconds)
        return np.array(whole)

    def save(self, seconds: float) -> None:
        """Write the file, whole or not at all; never less than it held."""
        self._saved_at = time.monotonic()
        if len(self._given) <= len(self._known):
            return
        saved = _Saved(
            search=self._search,
            seconds=seconds,
            rows_sha256=self._digest.hexdigest(),
            values=self._given,
        )
        write_atomic(self._path, json.dumps(saved.model_dump()) + "\n")
        self._known, self._wanted = list(self._given), saved.rows_sha256

    def _load(self) -> _Saved:
        hint = "remove the file to start over"
        if self._path.stat().st_size > _MAX_BYTES:
            raise FileFormatError(f"larger than {_MAX_BYTES} bytes", where=self._path, hint=hint)
        try:
            saved = _Saved.model_validate(json.loads(self._path.read_bytes()))
        except (ValidationError, ValueError) as failure:
            what = str(failure).splitlines()[0][:200]
            raise FileFormatError(
                f"not the state of a search: {what}", where=self._path, hint=hint
            ) from failure
        ours, theirs = self._search.model_dump(), saved.search.model_dump()
        for key, value in ours.items():
            if theirs[key] != value:
                said = "" if key == "problem" else f": {theirs[key]} there, {value} here"
                raise FileFormatError(
                    f"the state of another search, its {key.replace('_', ' ')} differs{said}",
                    where=self._path,
                    hint="name another file, or " + hint,
                )
        if len(saved.values) > self._search.budget_calls:
            raise FileFormatError(
                f"{len(saved.values)} values of at most {self._search.budget_calls} calls",
                where=self._path,
                hint=hint,
            )
        return saved
