"""The selection problem, free of devices and files: what each choice costs and what it is worth.

A network is a context (what its places share, such as the resolution) and a path of the space's
automaton, one option an edge. Its costs are sums over the path of latency, energy and weight bytes,
on one board or on several, and the maximum over its blocks of peak bytes (a network runs block by
block, so that the largest block decides; what a runtime keeps besides is not in it).

Scores are integers like the costs: multiples of ``score_unit``, which is at most 2**-44 of the
largest score, by rounding to nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

import numpy as np

from edgeofa.accuracy.base import AccuracyModel
from edgeofa.errors import UsageError
from edgeofa.solver.budgets import Board, Bools, Budgets, Ints, Limits, Totals
from edgeofa.spaces.automaton import Automaton
from edgeofa.spaces.space import Block, Space, Subnet
from edgeofa.tables.table import Table

#: (edge, option) of the automaton, from the start to the end
Path = tuple[tuple[int, int], ...]
#: more bytes than any block has
_MOST = 1 << 62


@dataclass(frozen=True, eq=False)
class Arc:
    """Options that lead from one node to another; arrays are stacked over the contexts.

    ``edge`` and ``options`` (n,) say which edge and options of the automaton these are: a pairwise
    model splits an edge into several arcs. ``costs`` is (contexts, n, columns), ``peaks``
    (contexts, n, boards), the others (contexts, n).
    """

    source: int
    target: int
    edge: int
    options: Ints
    costs: Ints
    peaks: Ints
    scores: Ints
    allowed: Bools

    @cached_property
    def free(self) -> bool:
        """One option that changes nothing: only the node moves on."""
        return (
            len(self.options) == 1
            and not self.costs.any()
            and not self.scores.any()
            and bool(self.allowed.all())
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """All options of a space on one board or several.

    ``fixed_*`` is what every network of a context has (stem, head, the score's intercept); the arcs
    of those edges then cost nothing. Space and accuracy model are those that the figures were taken
    from; the solver itself works on the arrays alone.
    """

    space: Space
    automaton: Automaton
    boards: tuple[Board, ...]
    accuracy: AccuracyModel
    nodes: int
    arcs: tuple[Arc, ...]  # ascending by source
    fixed_costs: Ints  # (contexts, columns)
    fixed_peaks: Ints  # (contexts, boards)
    fixed_scores: Ints  # (contexts,)
    allowed: Bools  # (contexts,)
    score_unit: float

    # ------------------------------------------------------------ shape

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Of every context."""
        return tuple(c.resolution for c in self.automaton.contexts)

    @property
    def columns(self) -> int:
        """Number of summed costs."""
        return int(self.fixed_costs.shape[1])

    @cached_property
    def leaving(self) -> tuple[tuple[Arc, ...], ...]:
        """The arcs of every node."""
        found: list[list[Arc]] = [[] for _ in range(self.nodes)]
        for arc in self.arcs:
            found[arc.source].append(arc)
        return tuple(map(tuple, found))

    @cached_property
    def dearest(self) -> Ints:
        """(columns,) no network of any context costs more."""
        ahead = np.zeros((self.nodes, self.columns), dtype=np.int64)
        for arc in reversed(self.arcs):
            most = arc.costs.max(axis=(0, 1), initial=0) + ahead[arc.target]
            ahead[arc.source] = np.maximum(ahead[arc.source], most)
        return np.asarray(self.fixed_costs.max(axis=0, initial=0) + ahead[0])

    @cached_property
    def _position(self) -> dict[tuple[int, int, int], tuple[Arc, int]]:
        """The arc and place of (node, edge, option)."""
        return {
            (arc.source, arc.edge, int(o)): (arc, n)
            for arc in self.arcs
            for n, o in enumerate(arc.options)
        }

    # ------------------------------------------------------------ units

    @property
    def table(self) -> Table:
        """Of the first board, like every figure that follows without a board."""
        return self.boards[0].table

    @property
    def power_w(self) -> float | None:
        return self.boards[0].power_w

    def latency_ms(self, latency_ns: int) -> float:
        """See :meth:`Board.latency_ms`."""
        return self.boards[0].latency_ms(latency_ns)

    def plan_ms(self, latency_ns: int) -> float:
        """See :meth:`Board.plan_ms`."""
        return self.boards[0].plan_ms(latency_ns)

    def energy_mj(self, energy_nj: int) -> float:
        """See :meth:`Board.energy_mj`."""
        return self.boards[0].energy_mj(energy_nj)

    def plan_energy_mj(self, energy_nj: int) -> float:
        """See :meth:`Board.plan_energy_mj`."""
        return self.boards[0].plan_energy_mj(energy_nj)

    def score(self, units: int) -> float:
        return units * self.score_unit

    def limits(self, *budgets: Budgets) -> Limits:
        """The limits of budgets, one a board; boards past the end have none."""
        if len(budgets) > len(self.boards):
            raise UsageError(f"budgets of {len(budgets)} targets, where {len(self.boards)} are")
        each = list(zip_longest(self.boards, budgets, fillvalue=None))
        given = [b or Budgets() for _, b in each]
        peaks = [None if b.peak_bytes is None else min(int(b.peak_bytes), _MOST) for b in given]
        sums = [s for board, b in zip(self.boards, given, strict=True) for s in board.limits(b)]
        # a limit above every network's cost would only leave 64 bits when it is multiplied
        capped = [
            None if s is None else min(s, int(most))
            for s, most in zip(sums, self.dearest, strict=True)
        ]
        return Limits(tuple(capped), peaks[0], tuple(peaks[1:]))

    # ------------------------------------------------------------ networks

    def path_totals(self, context: int, path: Path) -> Totals:
        """Costs and score of one network."""
        costs, score = self.fixed_costs[context].copy(), self.fixed_scores[context]
        peaks, node = self.fixed_peaks[context], 0
        for edge, option in path:
            arc, n = self._position[node, edge, option]
            costs += arc.costs[context, n]
            peaks = np.maximum(peaks, arc.peaks[context, n])
            score += arc.scores[context, n]
            node = arc.target
        return Totals(tuple(costs.tolist()), tuple(peaks.tolist()), int(score))

    def totals(self, subnet: Subnet) -> Totals:
        """Costs and score of a subnet of this problem's space and contexts."""
        return self.path_totals(*self.place(subnet))

    def picks_path(self, picks: Sequence[int]) -> Path:
        """The path of options by edge of the automaton, -1 for an edge that is not taken."""
        return tuple((edge, int(o)) for edge, o in enumerate(picks) if o >= 0)

    def blocks(self, context: int, path: Path) -> tuple[Block, ...]:
        """The blocks of a network, input to output."""
        edges = self.automaton.edges
        return tuple(
            block
            for edge, option in path
            for block in edges[edge].options[option].blocks[context] or ()
        )

    def place(self, subnet: Subnet) -> tuple[int, Path]:
        """Context and path of a subnet."""
        context, path = self.space.path(subnet)
        return self.automaton.contexts.index(context), path

    def named(self, context: int, path: Path) -> Subnet:
        """The subnet of a context and a path."""
        return self.space.subnet(self.automaton.contexts[context], path)

    # ------------------------------------------------------------ other problems

    def within(self, limits: Limits) -> Problem:
        """The problem without the options, and the contexts, whose peak is above a limit."""
        peaks = [*limits.peaks[: len(self.boards)]]
        peaks += [None] * (len(self.boards) - len(peaks))
        if all(p is None for p in peaks):
            return self
        most = np.array([np.iinfo(np.int64).max if p is None else p for p in peaks])
        return replace(
            self,
            arcs=tuple(
                replace(a, allowed=a.allowed & (a.peaks <= most).all(axis=2)) for a in self.arcs
            ),
            allowed=self.allowed & (self.fixed_peaks <= most).all(axis=1),
        )

    def rescored(self, column: int) -> Problem:
        """The problem whose best network is the one of least cost on ``column``."""
        return replace(
            self,
            arcs=tuple(replace(a, scores=-a.costs[:, :, column]) for a in self.arcs),
            fixed_scores=-self.fixed_costs[:, column],
            score_unit=1.0,
        )
