"""What an accuracy model is to the solver: a sum over choices that it can optimise exactly.

A model of staged MBConv spaces scores layers (:class:`AccuracyModel`). One that knows the edges and
options of any space's automaton says so by ``option_score``; one whose choices also depend on the
choice before them, by ``pair_score``. The solver asks through ``context_scores``,
``option_scores`` and ``pair_scorer``.

``score`` is the additive part, in whatever unit the model was fitted in (a logit, a log error);
``accuracy`` turns it into a fraction. ``rerank`` may use a better model than the additive one: the
solver optimises ``score``, takes the K best, and lets ``rerank`` choose among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import UsageError
from edgeofa.spaces.automaton import Automaton, Context, Edge, Option
from edgeofa.spaces.blocks import Block, block_macs
from edgeofa.spaces.space import Layer, Space, Subnet


class AccuracyModel(Protocol):
    """``score(subnet) == intercept(resolution) + sum of layer_score`` over its layers.

    ``position`` counts layers inside their stage from 0. A higher score is better, at every
    resolution on one scale.
    """

    @property
    def claims_accuracy(self) -> bool:
        """False for a stand-in whose score orders subnets but predicts no accuracy."""
        ...

    @property
    def error(self) -> float | None:
        """Mean absolute error of ``rerank`` as a fraction, None where no accuracy is claimed."""
        ...

    def intercept(self, resolution: int) -> float: ...

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float: ...

    def score(self, subnet: Subnet) -> float: ...

    def accuracy(self, subnet: Subnet) -> float:
        """Predicted top-1 accuracy, 0 to 1."""
        ...

    def rerank(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        """The best available prediction for each subnet, in the order given."""
        ...


@runtime_checkable
class OptionScorer(Protocol):
    """A model of any space: what an option of an edge is worth in a context."""

    def option_score(self, context: int, automaton: Automaton, edge: Edge, option: Option) -> float:
        """``context`` is an index into ``automaton.contexts``."""
        ...


@runtime_checkable
class ContextScorer(Protocol):
    """A model whose intercept depends on more of a context than its resolution."""

    def context_score(self, context: Context) -> float: ...


@runtime_checkable
class PairScorer(Protocol):
    """A model in which neighbours matter: what ``option`` is worth more after ``before``.

    Options that add no block (stop, skip) are no neighbours: what comes before them comes before
    what follows them.
    """

    def pair_score(
        self, context: Context, before: tuple[Edge, Option], edge: Edge, option: Option
    ) -> float: ...


@runtime_checkable
class AccuracyScale(Protocol):
    """A model whose score and predicted accuracy are two names of one thing."""

    def score_at(self, accuracy: float) -> float:
        """The score at which ``accuracy`` (0 to 1) is predicted; rises with it."""
        ...


def context_scores(model: AccuracyModel, automaton: Automaton) -> list[float]:
    """What every context is worth by itself."""
    if isinstance(model, ContextScorer):
        return [model.context_score(c) for c in automaton.contexts]
    return [model.intercept(c.resolution) for c in automaton.contexts]


def option_scores(model: AccuracyModel, automaton: Automaton) -> list[NDArray[np.float64]]:
    """One array (contexts, options) for each edge; 0 where a context does not allow an option."""

    def score(c: int, edge: Edge, option: Option) -> float:
        if option.blocks[c] is None:
            return 0.0
        if isinstance(model, OptionScorer):
            return model.option_score(c, automaton, edge, option)
        if edge.place is None or option.layer is None:
            return 0.0
        return model.layer_score(automaton.contexts[c].resolution, *edge.place, option.layer)

    return [
        np.array(
            [[score(c, edge, o) for o in edge.options] for c in range(len(automaton.contexts))],
            dtype=np.float64,
        )
        for edge in automaton.edges
    ]


class MacsProxy:
    """A stand-in for untrained supernets: it prefers more work, evenly spread over the layers.

    A block scores ``log2(1 + MACs / 1e6)``, so that a second million in one place is worth less
    than a first one elsewhere; stem and head score nothing. It orders the networks of any space for
    a latency test and predicts no accuracy.
    """

    claims_accuracy = False
    error = None

    def __init__(self, space: Space):
        self._space = space

    def intercept(self, resolution: int) -> float:  # noqa: ARG002 - part of the contract
        return 0.0

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float:
        return self._worth((self._space.layer_block(resolution, stage, position, layer),))

    def option_score(self, context: int, automaton: Automaton, edge: Edge, option: Option) -> float:  # noqa: ARG002
        return self._worth(option.blocks[context] or ())

    def score(self, subnet: Subnet) -> float:
        return self._worth(self._space.blocks(subnet))

    @staticmethod
    def _worth(blocks: Sequence[Block]) -> float:
        return sum(log2(1 + block_macs(b) / 1e6) for b in blocks if b.kind not in ("stem", "head"))

    def accuracy(self, subnet: Subnet) -> float:
        raise UsageError(
            "no accuracy is known for untrained weights",
            where=str(subnet),
            hint="use a space with a trained supernet, or deploy for latency alone",
        )

    def rerank(self, subnets: Sequence[Subnet]) -> NDArray[np.float64]:
        return np.array([self.score(s) for s in subnets], dtype=np.float64)
