"""Accuracy models in which neighbouring blocks matter, for any space, read from a JSON file.

A network scores what its context, each of its options and each pair of neighbouring options score.
Options are named ``edge=label`` as the space's automaton has them (``stages.1.0=3x6``); what a file
does not name scores 0. Neighbours are options that add blocks, one directly after the other.

``"scale": "log_error"`` says that the score is ``-log(1 - accuracy)``, like that of the models that
edgeofa fits; ``"none"`` that it only orders networks and no accuracy is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.accuracy.features import space_digest
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces.automaton import Automaton, Context, Edge, Option
from edgeofa.spaces.space import Layer, Space, Subnet

__all__ = ["PairwiseAccuracy", "PairwiseFile", "load_pairwise"]

_MAX_BYTES = 64 << 20


class PairwiseFile(BaseModel):
    """See the module's text; ``kind`` tells the file from other models'."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    kind: Literal["pairwise"] = "pairwise"
    space: str
    space_digest: str
    #: what it was fitted to
    evidence: str = Field(max_length=400)
    scale: Literal["log_error", "none"]
    #: mean absolute error of the accuracy as a fraction, where known
    error: float | None = Field(default=None, ge=0, le=1)
    #: by resolution; one that is missing is refused
    intercepts: dict[int, float]
    #: by option
    options: dict[str, float]
    #: by option, then by the option that follows it
    pairs: dict[str, dict[str, float]]


class PairwiseAccuracy:
    """An accuracy model by options and pairs of neighbours; see :mod:`edgeofa.accuracy.base`."""

    def __init__(self, space: Space, content: PairwiseFile, where: Path | None = None):
        self.space = space
        self.content = content
        if (content.space, content.space_digest) != (space.name, space_digest(space)):
            raise UsageError(
                f"an accuracy model of space {content.space}, or of another version of it",
                where=where or f"space {space.name}",
                hint=f"use it with --space {content.space}, or fit it again",
            )
        known = {
            f"{edge.name}={option.label}"
            for edge in space.automaton().edges
            for option in edge.options
        }
        named = {*content.options, *content.pairs, *(o for p in content.pairs.values() for o in p)}
        if foreign := sorted(named - known):
            raise FileFormatError(
                f"space {space.name} has no option {foreign[0]!r}",
                where=where,
                hint=f"options are named like {min(known)!r}",
            )

    @property
    def claims_accuracy(self) -> bool:
        return self.content.scale == "log_error"

    @property
    def error(self) -> float | None:
        return self.content.error

    def intercept(self, resolution: int) -> float:
        try:
            return self.content.intercepts[resolution]
        except KeyError:
            known = sorted(self.content.intercepts)
            raise UsageError(f"no accuracy at {resolution} px", hint=f"one of {known}") from None

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float:  # noqa: ARG002
        """Of the layer alone, without its neighbours."""
        name = f"stages.{stage}.{position}={layer.kernel}x{layer.expand}"
        return self.content.options.get(name, 0.0)

    def option_score(self, context: int, automaton: Automaton, edge: Edge, option: Option) -> float:  # noqa: ARG002
        return self.content.options.get(f"{edge.name}={option.label}", 0.0)

    def pair_score(
        self,
        context: Context,  # noqa: ARG002 - part of the contract
        before: tuple[Edge, Option],
        edge: Edge,
        option: Option,
    ) -> float:
        first, then = f"{before[0].name}={before[1].label}", f"{edge.name}={option.label}"
        return self.content.pairs.get(first, {}).get(then, 0.0)

    def score(self, subnet: Subnet) -> float:
        context, path = self.space.path(subnet)
        edges = self.space.automaton().edges
        total = self.intercept(context.resolution)
        before: tuple[Edge, Option] | None = None
        for e, o in path:
            edge, option = edges[e], edges[e].options[o]
            total += self.content.options.get(f"{edge.name}={option.label}", 0.0)
            if any(option.blocks):
                if before is not None:
                    total += self.pair_score(context, before, edge, option)
                before = edge, option
        return total

    def score_at(self, accuracy: float) -> float:
        """The score at which ``accuracy`` is predicted."""
        if not self.claims_accuracy:
            raise UsageError("this model orders networks and predicts no accuracy")
        return -log(1 - accuracy)

    def accuracy(self, subnet: Subnet) -> float:
        if not self.claims_accuracy:
            raise UsageError("this model orders networks and predicts no accuracy")
        return 1 - min(1.0, exp(-self.score(subnet)))

    def rerank(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        worth = self.accuracy if self.claims_accuracy else self.score
        return np.array([worth(s) for s in subnets], dtype=np.float64)


def load_pairwise(path: Path, space: Space) -> PairwiseAccuracy:
    """The model of a file; refused whole where it is corrupt or of another space."""
    if not path.is_file():
        raise MissingMaterial("no accuracy model here", where=path)
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError("an accuracy model is at most 64 MiB", where=path)
    try:
        content = PairwiseFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = str(error).splitlines()[:3]
        raise FileFormatError(
            f"not a pairwise accuracy model: {' '.join(first)}", where=path
        ) from error
    return PairwiseAccuracy(space, content, path)
