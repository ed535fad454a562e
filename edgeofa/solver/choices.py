"""Many networks of a problem at once, as rows of numbers, for searches that guess and look.

A row is ``[context, option of position 0, option of position 1, ...]`` with -1 for a position that
the network's path does not pass. Positions are the edges of the automaton, in order, without those
that follow by themselves: an edge with one free option is taken where no other is. What rows cost
is added up from the problem's own integers, so that a search and the exact solver hold one and the
same thing against a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.mlp import MlpAccuracy
from edgeofa.errors import UsageError
from edgeofa.solver.problem import Bools, Ints, Limits, Path, Problem
from edgeofa.spaces.space import Subnet

Floats = NDArray[np.float64]
#: what a slope of a network costs, in evaluations: one forwards, about two backwards
SLOPE_CALLS = 3
#: any objective: a finite number for every subnet, higher is better
BlackBox = Callable[[Sequence[Subnet]], Floats]


class Choices:
    """The options of every position of a problem within limits.

    ``costs`` is (contexts, positions, options + 1, columns) and ``allowed`` without the columns:
    the last option is "not passed" and costs nothing, so that -1 finds it. ``contexts`` are the
    indices of those allowed, ``options`` (positions,) counts, ``edges`` the automaton's edges.
    """

    def __init__(self, problem: Problem, limits: Limits):
        self.problem = problem.within(limits)
        self.limits = limits
        self.contexts = np.flatnonzero(self.problem.allowed)
        automaton = problem.automaton
        edges = automaton.edges
        count, most = len(automaton.contexts), max(len(e.options) for e in edges)
        costs = np.zeros((count, len(edges), most + 1, problem.columns), dtype=np.int64)
        allowed = np.zeros((count, len(edges), most + 1), dtype=np.bool_)
        for arc in self.problem.arcs:
            # arcs of one edge differ in their scores alone
            costs[:, arc.edge, arc.options] = arc.costs
            allowed[:, arc.edge, arc.options] = arc.allowed
        free: Bools = np.logical_not(costs.any(axis=(0, 2, 3))) & allowed[:, :, 0].all(axis=0)
        #: the edge that is taken at a node where the row names none
        self.implied: dict[int, int] = {}
        for e, edge in enumerate(edges):
            if len(edge.options) == 1 and free[e] and edge.source not in self.implied:
                self.implied[edge.source] = e
        self.edges = np.setdiff1d(np.arange(len(edges)), list(self.implied.values()))
        self.positions = len(self.edges)
        #: position of an edge, -1 for an implied one
        self.position = np.full(len(edges), -1)
        self.position[self.edges] = np.arange(self.positions)
        self.options = np.array([len(edges[e].options) for e in self.edges], dtype=np.int64)
        self.costs = costs[:, self.edges]
        self.allowed = allowed[:, self.edges]
        self.allowed[:, :, -1] = True
        # plain lists, for walks that take one edge at a time
        self._position: list[int] = self.position.tolist()
        self._open: dict[tuple[int, int], list[int]] = {}
        #: edges that leave each node
        self.leaving: list[list[int]] = [[] for _ in range(automaton.nodes)]
        for e, edge in enumerate(edges):
            self.leaving[edge.source].append(e)
        self.targets = [edge.target for edge in edges]
        self._most: Ints = np.array(
            [np.iinfo(np.int64).max if limit is None else limit for limit in limits.sums]
        )
        self._at = np.arange(self.positions)
        self._draws = _Draws(self)
        #: (nodes, contexts) whether the end can be reached from a node
        self.goes_on: Bools = np.isfinite(self._draws.shapes)

    # ------------------------------------------------------------ rows

    def sums(self, rows: Ints) -> Ints:
        """(n, columns) summed costs."""
        c = rows[:, 0]
        inside = self.costs[c[:, None], self._at, rows[:, 1:]].sum(axis=1)
        total: Ints = self.problem.fixed_costs[c] + inside
        return total

    def fits(self, rows: Ints) -> Bools:
        """Whether each row is within every limit."""
        allowed = self.allowed[rows[:, :1], self._at, rows[:, 1:]].all(axis=1)
        within = (self.sums(rows) <= self._most).all(axis=1)
        result: Bools = np.logical_and(allowed, within)
        return result

    def sample(self, rng: np.random.Generator, n: int) -> Ints:
        """Random rows of any cost: the shape uniformly, then every option.

        In a staged space that is once-for-all's way: the depth of each stage, then each layer.
        """
        return self._draws.rows(rng, n)

    def path(self, row: Ints) -> list[tuple[int, int]]:
        """(edge, option) of a row, start to end."""
        named = row[1:].tolist()
        steps, node = [], 0
        while node < len(self.leaving) - 1:
            edge, option = self._step(node, named)
            steps.append((edge, option))
            node = self.targets[edge]
        return steps

    def _step(self, node: int, named: list[int]) -> tuple[int, int]:
        for edge in self.leaving[node]:
            at = self._position[edge]
            if at >= 0 and named[at] >= 0:
                return edge, named[at]
        return self.implied[node], 0

    def subnet(self, row: Ints) -> Subnet:
        return self.problem.named(int(row[0]), tuple(self.path(row)))

    def row(self, subnet: Subnet) -> Ints:
        """The row of a subnet of the problem's space and contexts."""
        return self.row_of(*self.problem.place(subnet))

    def row_of(self, context: int, path: Path) -> Ints:
        row = np.full(1 + self.positions, -1, dtype=np.int64)
        row[0] = context
        for edge, option in path:
            if self.position[edge] >= 0:
                row[1 + self.position[edge]] = option
        return row

    def open(self, context: int, edge: int) -> list[int]:
        """Options of an edge that a context allows."""
        found = self._open.get((context, edge))
        if found is None:
            at = self._position[edge]
            found = [0] if at < 0 else np.flatnonzero(self.allowed[context, at, :-1]).tolist()
            self._open[context, edge] = found
        return found


class _Draws:
    """Random paths, many at once."""

    def __init__(self, choices: Choices):
        self._choices = choices
        allowed = choices.allowed[:, :, :-1]
        count = len(allowed)
        #: allowed options first, and how many they are
        self._order = np.argsort(~allowed, axis=2, kind="stable")
        self._open = allowed.sum(axis=2)
        nodes = len(choices.leaving)
        shapes = np.full((nodes, count), -np.inf)
        shapes[-1] = 0
        #: (nodes, contexts) logarithm of the number of ways to the end, options not counted
        self.shapes: Floats = shapes
        self._shares: list[Floats] = [np.ones((count, 1))] * nodes
        for node in range(nodes - 2, -1, -1):
            ways = np.array(
                [
                    np.where(self._passable(edge), shapes[choices.targets[edge]], -np.inf)
                    for edge in choices.leaving[node]
                ]
            ).reshape(-1, count)
            shapes[node] = np.logaddexp.reduce(ways, axis=0) if len(ways) else -np.inf
            with np.errstate(invalid="ignore"):
                shares = np.exp(ways - shapes[node])
            self._shares[node] = np.cumsum(np.nan_to_num(shares), axis=0).T
        #: contexts that have a network at all
        self._contexts = np.array(
            [c for c in choices.contexts.tolist() if np.isfinite(shapes[0, c])], dtype=np.int64
        )

    def _passable(self, edge: int) -> Bools:
        at = self._choices.position[edge]
        passable: Bools = self._open[:, at] > 0 if at >= 0 else np.ones(len(self._open), np.bool_)
        return passable

    def rows(self, rng: np.random.Generator, n: int) -> Ints:
        at = self._choices
        rows = np.full((n, 1 + at.positions), -1, dtype=np.int64)
        if not len(self._contexts):
            return rows[:0]
        rows[:, 0] = rng.choice(self._contexts, n)
        where = np.zeros(n, dtype=np.int64)
        for node in range(len(at.leaving) - 1):
            here = np.flatnonzero(where == node)
            if not len(here):
                continue
            c = rows[here, 0]
            edges = np.array(at.leaving[node])
            which = np.zeros(len(here), dtype=np.int64)
            if len(edges) > 1:
                drawn = rng.random(len(here))[:, None] * self._shares[node][c][:, -1:]
                which = (drawn >= self._shares[node][c]).sum(axis=1)
            for k, edge in enumerate(edges.tolist()):
                going = here[which == k]
                position = int(at.position[edge])
                if position >= 0 and len(going):
                    c = rows[going, 0]
                    picks = (rng.random(len(going)) * self._open[c, position]).astype(np.int64)
                    rows[going, 1 + position] = self._order[c, position, picks]
                where[going] = at.targets[edge]
        return rows


class Objective:
    """What a search maximises, over rows; it counts every row that it is asked about.

    Args:
        function: any objective over subnets; by default the accuracy model's ``rerank``. A network
            is then evaluated on its own inputs without building subnets, in single precision.
    """

    def __init__(self, choices: Choices, function: BlackBox | None = None):
        self.choices = choices
        self.calls = 0
        self.function = function
        model = choices.problem.accuracy
        known = function is None and isinstance(model, MlpAccuracy)
        self._features = RowFeatures(choices, model) if known else None  # type: ignore[arg-type]

    def __call__(self, rows: Ints) -> Floats:
        self.calls += len(rows)
        return self.values(rows)

    def estimated(self, row: Ints, others: Ints) -> Floats | None:
        """How much better ``others`` are than ``row`` by its slope; None where there is no slope.

        It counts as ``SLOPE_CALLS`` calls.
        """
        if self._features is None:
            return None
        self.calls += SLOPE_CALLS
        x = self._features.encode(np.concatenate([row[None], others]))
        slope = self._features.model.network.single.gradient(x[:1])[0]
        gains: Floats = (x[1:] - x[0]) @ slope
        return gains

    def values(self, rows: Ints) -> Floats:
        """Like a call, uncounted.

        Raises:
            UsageError: the objective did not give one finite number for every subnet.
        """
        if self._features is not None:
            return self._features.model.network.single(self._features.encode(rows))
        subnets: Sequence[Subnet] = [self.choices.subnet(row) for row in rows]
        function = self.function or self.choices.problem.accuracy.rerank
        values = np.asarray(function(subnets), dtype=np.float64)
        if values.shape != (len(rows),) or not np.isfinite(values).all():
            raise UsageError(
                f"the objective gave {values.shape} values, not all finite, for {len(rows)} subnets"
                if values.shape == (len(rows),)
                else f"the objective gave values of shape {values.shape} for {len(rows)} subnets",
                hint="it must return one finite number for every subnet, in their order",
            )
        return values


class RowFeatures:
    """Rows of a staged space as inputs of a predictor that is a network.

    ``columns`` is (positions, options + 1, 2): the inputs that an option sets to 1, padded with a
    column that is dropped. ``resolution`` is (contexts,): the input of each one's resolution.
    """

    def __init__(self, choices: Choices, model: MlpAccuracy):
        self.model = model
        encoder = model.encoder
        self.columns = np.full((choices.positions, choices.costs.shape[2], 2), encoder.features)
        for n, e in enumerate(choices.edges.tolist()):
            edge = choices.problem.automaton.edges[e]
            for o, option in enumerate(edge.options):
                if edge.place is not None and option.layer is not None:
                    stage, place = edge.place
                    found = encoder.columns(stage, place, option.layer)
                    self.columns[n, o, : len(found)] = found
        self.resolution = np.array(
            [encoder.resolution_column(r) for r in choices.problem.resolutions]
        )
        self._at = np.arange(choices.positions)

    def encode(self, rows: Ints) -> NDArray[np.float32]:
        """(n, features) of zeros and ones."""
        x = np.zeros((len(rows), self.model.encoder.features + 1), dtype=np.float32)
        at = np.arange(len(rows))
        x[at[:, None, None], self.columns[self._at, rows[:, 1:]]] = 1
        x[at, self.resolution[rows[:, 0]]] = 1
        return x[:, :-1]
