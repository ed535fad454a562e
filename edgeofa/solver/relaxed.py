"""Upper bounds of many linear functions over the subnets within a budget, all at once.

For a price ``p >= 0`` on the budget no subnet within it scores more than

    max over all subnets of (score - p * cost) + p * budget

and that maximum is a choice per layer and a depth per stage. The best price is found by bisection
on the slope, one for every function. What is left to the true optimum is the gap of one knapsack's
linear relaxation.
"""

from __future__ import annotations

import numpy as np

from edgeofa.accuracy.mlp import AnyFloats
from edgeofa.solver.choices import Choices, Floats, RowFeatures
from edgeofa.solver.problem import Bools

_STEPS = 24
#: relative rounding error allowed for a sum of some 100 terms in double precision, with room
_ROUNDING = 1e-12


class Part:
    """Some subnets of one resolution, within one summed budget.

    The tightest budget by share counts here and the others do not, which keeps a bound a bound.

    Args:
        depths: for every stage the depths that are left.
        options: (slots, most options) those that are left.
    """

    def __init__(
        self,
        choices: Choices,
        features: RowFeatures,
        resolution: int,
        depths: tuple[tuple[int, ...], ...],
        options: Bools,
    ):
        self.resolution = resolution
        self.depths = depths
        self.options = options
        self._starts = choices.starts.tolist()
        self._columns = features.columns
        self._resolution_column = int(features.resolution[resolution])
        self.features = features.model.encoder.features
        sums = choices.limits.sums
        axes = [a for a in range(len(sums)) if sums[a] is not None]
        rooms = {a: (sums[a] or 0) - int(choices.problem.fixed_costs[resolution, a]) for a in axes}
        costs = choices.costs[resolution, :, :-1]
        self._room = 1.0
        self._costs = np.zeros(costs.shape[:2])
        if axes:
            axis = max(axes, key=lambda a: float(costs[..., a].mean()) / max(rooms[a], 1))
            # in units of the room, so that prices are of the size of scores
            scale = max(rooms[axis], 1)
            self._costs = costs[..., axis] / scale
            self._room = rooms[axis] / scale

    @property
    def empty(self) -> bool:
        """Whether not even the cheapest subnet is within the budget (sound: False when close)."""
        return self._cheapest() > self._room * (1 + 1e-9) + 1e-9

    def _cheapest(self) -> float:
        zero = np.zeros((1, *self._costs.shape))
        return -float(self._best(zero - self._costs)[0][0])

    def maximise(self, slopes: AnyFloats, offsets: AnyFloats) -> Floats:
        """Upper bounds (n,) of ``slopes @ x + offsets``, slopes (n, features)."""
        scores, offsets = self.scores(slopes, offsets)
        magnitude = np.abs(scores).max(axis=2).sum(axis=1) + np.abs(offsets)
        low = np.zeros(len(slopes))
        value, spent = self._best(scores)
        best = value.copy()
        # prices above the whole range of scores cannot be better than it
        high = 2 * np.abs(scores).max(axis=2).sum(axis=1) / max(self._slack(), 1e-3)
        open_ = np.flatnonzero(spent > self._room)
        low, high = low[open_], high[open_]
        for _ in range(_STEPS):
            if not len(open_):
                break
            price = (low + high) / 2
            value, spent = self._best(scores[open_] - price[:, None, None] * self._costs)
            best[open_] = np.minimum(best[open_], value + price * self._room)
            over = spent > self._room
            low, high = np.where(over, price, low), np.where(over, high, price)
        result: Floats = np.asarray(best + offsets + _ROUNDING * magnitude, np.float64)
        return result

    def scores(self, slopes: AnyFloats, offsets: AnyFloats) -> tuple[Floats, AnyFloats]:
        """Linear functions of the inputs as a score per option (n, slots, options) and the rest."""
        padded = np.concatenate([slopes, np.zeros((len(slopes), 1))], axis=1)
        scores: Floats = padded[:, self._columns[:, :-1]].sum(axis=-1)
        return scores, offsets + slopes[:, self._resolution_column]

    def _slack(self) -> float:
        return self._room - self._cheapest()

    def _best(self, scores: Floats) -> tuple[Floats, Floats]:
        """The best sum over all subnets whatever they cost (n,), and what its layers cost (n,)."""
        masked = np.where(self.options, scores, -np.inf)
        picks = masked.argmax(axis=2)
        gains = np.take_along_axis(masked, picks[..., None], axis=2)[..., 0]
        spent = self._costs[np.arange(len(self._costs)), picks]
        total, cost = np.zeros(len(scores)), np.zeros(len(scores))
        for start, depths in zip(self._starts, self.depths, strict=True):
            sums = np.cumsum(gains[:, start : start + depths[-1]], axis=1)
            costs = np.cumsum(spent[:, start : start + depths[-1]], axis=1)
            at = np.array(depths) - 1
            which = sums[:, at].argmax(axis=1)[:, None]
            total += np.take_along_axis(sums[:, at], which, axis=1)[:, 0]
            cost += np.take_along_axis(costs[:, at], which, axis=1)[:, 0]
        return total, cost
