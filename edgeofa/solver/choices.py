"""Many subnets of a problem at once, as rows of numbers, for searches that guess and look.

A row is ``[resolution index, option of slot 0, option of slot 1, ...]`` with -1 for a layer that is
not there. What rows cost is added up from the problem's own integers, so that a search and the
exact solver hold one and the same thing against a budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeofa.accuracy.mlp import MlpAccuracy
from edgeofa.solver.problem import Bools, Ints, Limits, Problem
from edgeofa.spaces.space import Subnet

Floats = NDArray[np.float64]


class Choices:
    """The options of every slot of a problem within limits.

    ``costs`` is (resolutions, slots, options + 1, 3): the last option is "no layer" and costs
    nothing, so that -1 finds it. Slots are those of all stages in order.
    """

    def __init__(self, problem: Problem, limits: Limits):
        self.problem = problem.within(limits)
        self.limits = limits
        self.resolutions = np.flatnonzero(self.problem.allowed)
        slots = [slot for stage in problem.stages for slot in stage.slots]
        self.slots = len(slots)
        self.options = np.array([len(slot.layers) for slot in slots])
        #: first slot of every stage, and the depths that it may have
        counts = [len(stage.slots) for stage in problem.stages]
        self.starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        self.depths = [np.array(stage.depths) for stage in problem.stages]
        most, r = int(self.options.max()), len(problem.resolutions)
        self.costs = np.zeros((r, self.slots, most + 1, problem.columns), dtype=np.int64)
        self.allowed = np.zeros((r, self.slots, most + 1), dtype=np.bool_)
        self.allowed[:, :, -1] = True
        for s, slot in enumerate(sl for st in self.problem.stages for sl in st.slots):
            self.costs[:, s, : len(slot.layers)] = slot.costs
            self.allowed[:, s, : len(slot.layers)] = slot.allowed
        self._most: Ints = np.array(
            [np.iinfo(np.int64).max if limit is None else limit for limit in limits.sums]
        )
        self._at = np.arange(self.slots)

    def sums(self, rows: Ints) -> Ints:
        """(n, 3) latency in ns, energy in nJ and weight bytes."""
        r = rows[:, 0]
        inside = self.costs[r[:, None], self._at, rows[:, 1:]].sum(axis=1)
        total: Ints = self.problem.fixed_costs[r] + inside
        return total

    def fits(self, rows: Ints) -> Bools:
        """Whether each row is within every limit."""
        allowed = self.allowed[rows[:, :1], self._at, rows[:, 1:]].all(axis=1)
        within = (self.sums(rows) <= self._most).all(axis=1)
        result: Bools = np.logical_and(allowed, within)
        return result

    def sample(self, rng: np.random.Generator, n: int) -> Ints:
        """Random rows, once-for-all's way: depth uniform per stage, then each layer; any cost."""
        rows = np.full((n, 1 + self.slots), -1, dtype=np.int64)
        rows[:, 0] = rng.choice(self.resolutions, n)
        for start, depths in zip(self.starts, self.depths, strict=True):
            depth = rng.choice(depths, n)
            for j in range(int(depths[-1])):
                pick = rng.integers(self.options[start + j], size=n)
                rows[:, 1 + start + j] = np.where(j < depth, pick, -1)
        return rows

    def depths_of(self, row: Ints) -> list[int]:
        """Number of layers in every stage of one row."""
        ends = [*self.starts[1:], self.slots]
        return [
            int((row[1 + start : 1 + end] >= 0).sum())
            for start, end in zip(self.starts, ends, strict=True)
        ]

    def subnet(self, row: Ints) -> Subnet:
        return self.problem.subnet(int(row[0]), row[1:].tolist())

    def row(self, subnet: Subnet) -> Ints:
        """The row of a subnet of the problem's space and resolutions."""
        picks: list[int] = []
        for stage, layers in zip(self.problem.stages, subnet.stages, strict=True):
            for n, slot in enumerate(stage.slots):
                picks.append(slot.layers.index(layers[n]) if n < len(layers) else -1)
        return np.array([self.problem.resolutions.index(subnet.resolution), *picks])


class Objective:
    """What a search maximises, over rows; it counts every row that it is asked about.

    A network is evaluated on its own inputs without building subnets, in single precision; any
    other model through ``rerank``.
    """

    def __init__(self, choices: Choices):
        self.choices = choices
        self.calls = 0
        model = choices.problem.accuracy
        self._features = RowFeatures(choices, model) if isinstance(model, MlpAccuracy) else None

    def __call__(self, rows: Ints) -> Floats:
        self.calls += len(rows)
        if self._features is not None:
            return self._features.model.network.single(self._features.encode(rows))
        subnets: Sequence[Subnet] = [self.choices.subnet(row) for row in rows]
        return np.asarray(self.choices.problem.accuracy.rerank(subnets), dtype=np.float64)


class RowFeatures:
    """Rows as inputs of a predictor that is a network.

    ``columns`` is (slots, options + 1, ones): the inputs that an option sets to 1, padded with a
    column that is dropped.
    """

    def __init__(self, choices: Choices, model: MlpAccuracy):
        self.model = model
        encoder = model.encoder
        spare = encoder.features
        self.columns = np.full((choices.slots, choices.costs.shape[2], 2), spare)
        for (i, start), stage in zip(
            enumerate(choices.starts), choices.problem.stages, strict=True
        ):
            for j, slot in enumerate(stage.slots):
                for o, layer in enumerate(slot.layers):
                    found = encoder.columns(i, j, layer)
                    self.columns[start + j, o, : len(found)] = found
        self.resolution = np.array(
            [encoder.resolution_column(r) for r in choices.problem.resolutions]
        )
        self._at = np.arange(choices.slots)

    def encode(self, rows: Ints) -> NDArray[np.float32]:
        """(n, features) of zeros and ones."""
        x = np.zeros((len(rows), self.model.encoder.features + 1), dtype=np.float32)
        at = np.arange(len(rows))
        x[at[:, None, None], self.columns[self._at, rows[:, 1:]]] = 1
        x[at, self.resolution[rows[:, 0]]] = 1
        return x[:, :-1]
