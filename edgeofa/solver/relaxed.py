"""Upper bounds of many linear functions over the networks within a budget, all at once.

For a price ``p >= 0`` on the budget no network within it scores more than

    max over all networks of (score - p * cost) + p * budget

and that maximum is a longest path. The best price is found by bisection on the slope, one for every
function. What is left to the true optimum is the gap of one knapsack's linear relaxation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edgeofa.accuracy.mlp import AnyFloats
from edgeofa.solver.choices import Choices, Floats, RowFeatures
from edgeofa.solver.problem import Bools

_STEPS = 24
#: relative rounding error allowed for a sum of some 100 terms in double precision, with room
_ROUNDING = 1e-12


def scarcest(choices: Choices) -> int | None:
    """The limited column of which an average option takes the largest share; None without any."""
    sums = choices.limits.sums
    axes = [a for a in range(len(sums)) if sums[a] is not None]
    if not axes:
        return None
    mean = choices.costs[choices.contexts].mean(axis=(0, 1, 2))
    return max(axes, key=lambda a: float(mean[a]) / max(sums[a] or 1, 1))


@dataclass(frozen=True, eq=False)
class Part:
    """Some networks of one context, within one summed budget.

    The scarcest budget counts here and the others do not, which keeps a bound a bound.

    Args:
        edges: (edges of the automaton,) those that are left.
        options: (positions, most options) those that are left.
    """

    choices: Choices
    features: RowFeatures
    context: int
    edges: Bools
    options: Bools

    @cached_property
    def _budget(self) -> tuple[Floats, float]:
        """(positions, options) costs and what is left for them, in units of that."""
        at, axis = self.choices, scarcest(self.choices)
        if axis is None:
            return np.zeros(self.options.shape), 1.0
        left = (at.limits.sums[axis] or 0) - int(at.problem.fixed_costs[self.context, axis])
        # so that prices are of the size of scores
        scale = max(left, 1)
        return at.costs[self.context, :, :-1, axis] / scale, left / scale

    @property
    def costs(self) -> Floats:
        return self._budget[0]

    @property
    def room(self) -> float:
        return self._budget[1]

    @classmethod
    def whole(cls, choices: Choices, features: RowFeatures, context: int) -> Part:
        """All networks of a context."""
        edges = np.ones(len(choices.position), dtype=np.bool_)
        return cls(choices, features, context, edges, choices.allowed[context, :, :-1])

    @property
    def empty(self) -> bool:
        """Whether not even the cheapest network is within the budget (sound: False when close)."""
        return self._cheapest() > self.room * (1 + 1e-9) + 1e-9

    def _cheapest(self) -> float:
        return -float(self._best(-self.costs[None])[0][0])

    def maximise(self, slopes: AnyFloats, offsets: AnyFloats) -> Floats:
        """Upper bounds (n,) of ``slopes @ x + offsets``, slopes (n, features)."""
        scores, offsets = self.scores(slopes, offsets)
        magnitude = np.abs(scores).max(axis=2).sum(axis=1) + np.abs(offsets)
        low = np.zeros(len(slopes))
        value, spent = self._best(scores)
        best = value.copy()
        # prices above the whole range of scores cannot be better than it
        slack = max(self.room - self._cheapest(), 1e-3)
        high = 2 * np.abs(scores).max(axis=2).sum(axis=1) / slack
        open_ = np.flatnonzero(spent > self.room)
        low, high = low[open_], high[open_]
        for _ in range(_STEPS):
            if not len(open_):
                break
            price = (low + high) / 2
            value, spent = self._best(scores[open_] - price[:, None, None] * self.costs)
            best[open_] = np.minimum(best[open_], value + price * self.room)
            over = spent > self.room
            low, high = np.where(over, price, low), np.where(over, high, price)
        result: Floats = np.asarray(best + offsets + _ROUNDING * magnitude, np.float64)
        return result

    def scores(self, slopes: AnyFloats, offsets: AnyFloats) -> tuple[Floats, AnyFloats]:
        """Linear functions of the inputs as (n, positions, options) scores and what is left."""
        padded = np.concatenate([slopes, np.zeros((len(slopes), 1))], axis=1)
        scores: Floats = padded[:, self.features.columns[:, :-1]].sum(axis=-1)
        return scores, offsets + slopes[:, int(self.features.resolution[self.context])]

    def _best(self, scores: Floats) -> tuple[Floats, Floats]:
        """The best sum over all paths whatever they cost (n,), and what its options cost (n,)."""
        at = self.choices
        masked = np.where(self.options, scores, -np.inf)
        picks = masked.argmax(axis=2)
        gains = np.take_along_axis(masked, picks[..., None], axis=2)[..., 0]
        spent = self.costs[np.arange(len(self.costs)), picks]
        n, last = len(scores), len(at.leaving) - 1
        values = [np.full(n, -np.inf)] * last + [np.zeros(n)]
        costs = [np.zeros(n)] * (last + 1)
        for node in range(last - 1, -1, -1):
            for edge in at.leaving[node]:
                if not self.edges[edge]:
                    continue
                target, p = at.targets[edge], int(at.position[edge])
                value, cost = values[target], costs[target]
                if p >= 0:
                    value, cost = value + gains[:, p], cost + spent[:, p]
                better = value > values[node]
                costs[node] = np.where(better, cost, costs[node])
                values[node] = np.where(better, value, values[node])
        return values[0], costs[0]

    # ------------------------------------------------------------ splitting

    def split(self, spread: Floats) -> Iterator[Part]:
        """Parts that together are this one; none for a single network.

        By the edges of the first node that several leave, else by the options of the position whose
        ``spread`` (positions,) is largest.
        """
        at = self.choices
        free = np.zeros(at.positions, dtype=np.bool_)
        reached = {0}
        for node in range(len(at.leaving) - 1):
            if node not in reached:
                continue
            edges = [e for e in at.leaving[node] if self._open(e)]
            if len(edges) > 1:
                for edge in edges:
                    left = self.edges.copy()
                    left[at.leaving[node]] = False
                    left[edge] = True
                    yield replace(self, edges=left)
                return
            for e in edges:
                reached.add(at.targets[e])
                if at.position[e] >= 0:
                    free[at.position[e]] = self.options[at.position[e]].sum() > 1
        if not free.any():
            return
        position = int(np.where(free, spread, -1).argmax())
        for option in np.flatnonzero(self.options[position]).tolist():
            options = self.options.copy()
            options[position] = False
            options[position, option] = True
            yield replace(self, options=options)

    def _open(self, edge: int) -> bool:
        position = int(self.choices.position[edge])
        return bool(self.edges[edge] and (position < 0 or self.options[position].any()))
