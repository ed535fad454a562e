"""A ceiling by quadratic bounds, far below that of lines where a network is wide.

With ``y = (x, z_1, .., z_n)``, inputs and what each hidden layer gives, every network has for its
own y and any multipliers ``a .. e >= 0``

    f(x) <= L(y) = w z_n + b  + a_k z_k                            (z_k >= 0)
                              + b_k (z_k - s_k)                    (z_k >= s_k, the sum before ReLU)
                              + c_k (u_k (s_k - l_k) / (u_k - l_k) - z_k)       (the chord)
                              + d_k z_k (s_k - z_k)                (which is 0)
                              + e_k z_k (u_k - z_k)                (0 <= z_k <= u_k)
                              - x R x + sum over segments of q(x)  (the same thing twice)

where R has one block a segment (``segments``) and q(x) = x R x is looked up way by way. Where L is
concave but for q, it lies below its tangent at any point, which is linear; that is maximised over
the networks within a price of the budget. This is the dual of Shor's semidefinite relaxation
(Raghunathan et al. 2018, "Semidefinite relaxations for certifying robustness to adversarial
examples"; Dathathri et al. 2020 solve it by first-order steps too). Its slack grows with the norms
of the weight matrices, not with the sums of their absolute values, as that of CROWN does.

``improve`` descends on the multipliers with torch; what it finds proves nothing. ``certify`` does,
with numpy: it adds to the diagonal what makes the Cholesky factor of L's matrix prove concavity in
floating point, and lifts the value by more than all rounding errors of its sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from edgeofa.accuracy.mlp import AnyFloats, Network
from edgeofa.solver.choices import Floats
from edgeofa.solver.relaxed import Part
from edgeofa.solver.segments import Segment, segments_of

_EPSILON = float(np.finfo(np.float64).eps)
_ROUNDING = 1e-11
_WIDER = 1e-9
_NAMES = ("a", "b", "c", "d", "e")

#: Adam's steps on logarithms
_STEP = 0.15
_ROUND = 8
#: share of the time in which one context leads, and how often the others try its multipliers
_LEADING = 0.6
_SHARED_EVERY = 4
_DECAYS_TO = 0.1
_BETAS = (0.8, 0.95)
_MARGIN = 0.5
_SOFTNESS = 0.003


@dataclass(frozen=True, eq=False)
class Multipliers:
    """See the module's text: a to e have one item (width,) a layer, R's blocks one a segment."""

    a: tuple[Floats, ...]
    b: tuple[Floats, ...]
    c: tuple[Floats, ...]
    d: tuple[Floats, ...]
    e: tuple[Floats, ...]
    blocks: tuple[Floats, ...]
    point: Floats
    price: float


class Relaxation:
    """The bound of one context.

    Args:
        ranges: for each hidden layer low and high ends (width,) of its sums before the ReLU.
    """

    def __init__(self, network: Network, part: Part, ranges: Sequence[tuple[Floats, Floats]]):
        segments = segments_of(part)
        self.possible = segments is not None and any(len(s.columns) for s in segments)
        if segments is None or not self.possible:
            return
        self.segments: list[Segment] = [s for s in segments if len(s.columns)]
        rest = sum(float(s.costs.min()) for s in segments if not len(s.columns))
        self.room = part.room - rest
        columns = np.concatenate([s.columns for s in self.segments])
        first = network.weights[0].astype(np.float64)
        resolution = int(part.features.resolution[part.context])
        self.weights = [first[:, columns], *(w.astype(np.float64) for w in network.weights[1:-1])]
        self.biases = [b.astype(np.float64) for b in network.biases[:-1]]
        self.biases[0] = self.biases[0] + first[:, resolution]
        self.out: Floats = network.weights[-1][0].astype(np.float64)
        self.out_bias = float(network.biases[-1][0])
        self.low = [np.minimum(low, 0) - _WIDER * (1 + np.abs(low)) for low, _ in ranges]
        self.high = [np.maximum(high, 0) + _WIDER * (1 + np.abs(high)) for _, high in ranges]
        ends = np.cumsum([0] + [len(s.columns) for s in self.segments])
        self.slices = [slice(i, j) for i, j in pairwise(ends.tolist())]

    # ------------------------------------------------------------ proof

    def certify(self, m: Multipliers) -> float:
        """An upper bound that holds whatever the multipliers are; infinite where not concave."""
        if min(float(x.min()) for n in _NAMES for x in getattr(m, n)) < 0 or m.price < 0:
            return np.inf
        sizes = [self.weights[0].shape[1], *(len(w) for w in self.weights)]
        ends = np.cumsum([0, *sizes])
        at = [slice(i, j) for i, j in pairwise(ends.tolist())]
        matrix = np.zeros((ends[-1], ends[-1]))
        for block, s in zip(m.blocks, self.slices, strict=True):
            matrix[s, s] = (block + block.T) / 2
        for k, weight in enumerate(self.weights):
            matrix[at[k + 1], at[k + 1]] = np.diag(m.d[k] + m.e[k])
            matrix[at[k + 1], at[k]] = -0.5 * m.d[k][:, None] * weight
            matrix[at[k], at[k + 1]] = matrix[at[k + 1], at[k]].T
        # adding to R and to e is allowed; half of it covers what a Cholesky factor can be wrong by
        more = 16 * len(matrix) * _EPSILON * float(np.trace(matrix))
        diagonal = np.arange(len(matrix))
        matrix[diagonal, diagonal] += more / 2
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return np.inf
        matrix[diagonal, diagonal] += more / 2
        e = [x + more for x in m.e]
        linear, size = np.zeros(ends[-1]), np.zeros(ends[-1])
        constant = [self.out_bias]
        linear[at[-1]] += self.out
        size[at[-1]] += np.abs(self.out)
        for k, weight in enumerate(self.weights):
            slope = self.high[k] / (self.high[k] - self.low[k])
            terms = [m.a[k], m.b[k], -m.c[k], m.d[k] * self.biases[k], e[k] * self.high[k]]
            linear[at[k + 1]] += sum(terms)
            size[at[k + 1]] += sum(np.abs(x) for x in terms) + m.d[k] * self.high[k]
            sums = m.c[k] * slope - m.b[k]
            magnitude = m.c[k] * slope + m.b[k]
            linear[at[k]] += sums @ weight
            size[at[k]] += magnitude @ np.abs(weight)
            constant += [*(sums * self.biases[k]), *(-m.c[k] * slope * self.low[k])]
        # z is chosen to be the best for the point; any would do
        y = np.zeros(ends[-1])
        x = slice(0, sizes[0])
        y[x] = m.point
        z = slice(sizes[0], None)
        y[z] = np.linalg.solve(matrix[z, z], linear[z] / 2 - matrix[z, x] @ m.point)
        gradient = linear - 2 * (matrix @ y)
        steep = size + 2 * (np.abs(matrix) @ np.abs(y))
        value = sum(constant) + linear @ y - y @ matrix @ y
        magnitude_of_value = sum(map(abs, constant)) + steep @ np.abs(y)
        # what the layers can still add where the slope is not quite zero
        high = np.concatenate(self.high)
        far = np.maximum(high, np.abs(y[z])) + np.abs(y[z])
        slope_z = np.abs(gradient[z]) + _ROUNDING * steep[z]
        value += float(slope_z @ far) - gradient[x] @ y[x] + m.price * self.room
        magnitude_of_value += float(steep[x] @ np.abs(y[x])) + m.price * abs(self.room)
        for segment, s in zip(self.segments, self.slices, strict=True):
            block = matrix[s, s]
            squares = ((segment.inputs @ block) * segment.inputs).sum(axis=1)
            scores = segment.inputs @ gradient[s] + squares - m.price * segment.costs
            value += float(scores.max())
            each = segment.inputs @ steep[s] + segment.inputs @ np.abs(block).sum(axis=1)
            magnitude_of_value += float(each.max()) + m.price * float(segment.costs.max())
        return float(value + _ROUNDING * magnitude_of_value)


class Descent:
    """First-order steps on the multipliers of one context, in torch."""

    def __init__(self, relaxation: Relaxation, start: Descent | None = None):
        import torch

        self._torch = torch
        self._r = r = relaxation

        def tensor(x: AnyFloats) -> Any:
            return torch.tensor(np.ascontiguousarray(x, dtype=np.float64))

        self._weights = [tensor(w) for w in r.weights]
        self._biases = [tensor(b) for b in r.biases]
        self._out = tensor(r.out)
        self._low, self._high = [tensor(x) for x in r.low], [tensor(x) for x in r.high]
        self._inputs = [tensor(s.inputs) for s in r.segments]
        self._costs = [tensor(s.costs) for s in r.segments]
        self._vectors: dict[int, Any] = {}
        self._free: dict[str, Any] = {}
        if start is not None:
            for name, value in start._free.items():
                self._free[name] = value.detach().clone()
        else:
            self._begin()
        for value in self._free.values():
            value.requires_grad_(True)
        self._optimiser = torch.optim.Adam(self._free.values(), lr=_STEP, betas=_BETAS)

    def _begin(self) -> None:
        torch, r = self._torch, self._r
        worth = float(np.abs(r.out).mean()) + 1e-12
        reach = float(np.abs(r.high[0] - r.low[0]).mean())
        for k, weight in enumerate(r.weights):
            width = len(weight)
            for name, value in (("a", 0.1), ("b", 0.02), ("c", 1e-3), ("e", 1e-4)):
                self._free[f"{name}{k}"] = torch.full((width,), float(np.log(value * worth)))
            self._free[f"d{k}"] = torch.full((width,), float(np.log(1e-3 * worth / reach)))
        self._free["price"] = torch.tensor(float(np.log(worth)))
        self._free["point"] = torch.cat([x.mean(dim=0) for x in self._inputs])
        for name in self._free:
            self._free[name] = self._free[name].to(torch.float64)
        last = f"d{len(r.weights) - 1}"
        tried = []
        for factor in 10.0 ** np.arange(-1.5, 2.6, 0.5):
            self._free[last].fill_(float(np.log(factor * worth / reach)))
            with torch.no_grad():
                tried.append((float(self._bound()[0]), factor))
        self._free[last].fill_(float(np.log(min(tried)[1] * worth / reach)))

    def improve(self, steps: int, spent: float) -> bool:
        """``steps`` steps; ``spent`` is the share of the time that is used up, 0 to 1.

        False where a step led out of what is concave.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = _STEP * _DECAYS_TO ** min(spent, 1.0)
        for _ in range(steps):
            try:
                value, _ = self._bound()
            except self._torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                return False
            self._optimiser.zero_grad()
            value.backward()
            self._optimiser.step()
        return True

    def multipliers(self) -> Multipliers | None:
        """As they are now, made concave; None where that fails."""
        try:
            with self._torch.no_grad():
                return self._bound()[1]
        except self._torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return None

    # ------------------------------------------------------------ the bound and its slopes

    def _dominating(self, k: int, base: Any, below: Any) -> Any:
        """``base`` scaled so that its diagonal lies above the matrix ``below``, with a margin."""
        torch = self._torch
        root = base.rsqrt()
        scaled = below * root[:, None] * root[None]
        with torch.no_grad():
            vector = self._vectors.get(k)
            steps = 6
            if vector is None:
                vector, steps = torch.ones(len(base), dtype=torch.float64), 40
            for _ in range(steps):
                vector = scaled @ vector
                vector = vector / vector.norm()
            self._vectors[k] = vector
        largest = vector @ (scaled @ vector)
        return base * torch.clamp((1 + _MARGIN) * largest, min=1.0)

    def _bound(self) -> tuple[Any, Multipliers]:
        torch, r = self._torch, self._r
        layers = len(self._weights)
        free = self._free
        a, b, c, e = (
            [torch.exp(free[f"{name}{k}"]) for k in range(layers)] for name in ("a", "b", "c", "e")
        )
        d = [torch.exp(free[f"d{k}"]) for k in range(layers)]
        # eliminate the layers from the last one down; what is left of each must stay positive
        factors: list[Any] = [None] * layers
        below: Any = None
        for k in range(layers - 1, -1, -1):
            if below is None:
                kept = torch.diag(d[k] + e[k])
            else:
                d[k] = self._dominating(k, d[k] + e[k], below) - e[k]
                kept = torch.diag(d[k] + e[k]) - below
            factors[k] = torch.linalg.cholesky(kept)
            coupled = d[k][:, None] * self._weights[k]
            below = 0.25 * coupled.T @ torch.cholesky_solve(coupled, factors[k])
        ridge = 1e-3 * below.diagonal().mean().detach()
        blocks = [
            below[s, s] + ridge * torch.eye(s.stop - s.start, dtype=torch.float64) for s in r.slices
        ]
        square = torch.block_diag(*blocks)
        lower = torch.linalg.cholesky(square)
        half = torch.linalg.solve_triangular(lower, below, upper=False)
        full = torch.linalg.solve_triangular(lower, half.T, upper=False)
        with torch.no_grad():
            vector = torch.linalg.eigh((full + full.T) / 2)[1][:, -1]
        scale = (1 + 1e-6) * (vector @ (full @ vector))
        square = square * scale
        linear = [
            a[k] + b[k] - c[k] + d[k] * self._biases[k] + e[k] * self._high[k]
            for k in range(layers)
        ]
        linear[-1] = linear[-1] + self._out
        value = torch.tensor(r.out_bias, dtype=torch.float64)
        point, price = free["point"], torch.exp(free["price"])
        slope_x: Any = 0.0
        for k in range(layers):
            slope = self._high[k] / (self._high[k] - self._low[k])
            sums = c[k] * slope - b[k]
            value = value + sums @ self._biases[k] - (c[k] * slope * self._low[k]).sum()
            if k:
                linear[k - 1] = linear[k - 1] + self._weights[k].T @ sums
            else:
                slope_x = self._weights[0].T @ sums
        right = [x / 2 for x in linear]
        right[0] = right[0] + d[0] * (self._weights[0] @ point) / 2
        total = list(right)
        for k in range(layers - 1, 0, -1):
            solved = torch.cholesky_solve(total[k][:, None], factors[k])[:, 0]
            total[k - 1] = total[k - 1] + 0.5 * self._weights[k].T @ (d[k] * solved)
        z: list[Any] = []
        for k in range(layers):
            pushed = total[k]
            if k:
                pushed = pushed + 0.5 * d[k] * (self._weights[k] @ z[-1])
            z.append(torch.cholesky_solve(pushed[:, None], factors[k])[:, 0])
        value = value + slope_x @ point - point @ square @ point
        value = value + sum(x @ y for x, y in zip(right, z, strict=True))
        gradient = slope_x - 2 * square @ point + self._weights[0].T @ (d[0] * z[0])
        value = value - gradient @ point + price * r.room
        for inputs, costs, s in zip(self._inputs, self._costs, r.slices, strict=True):
            squares = ((inputs @ square[s, s]) * inputs).sum(dim=1)
            scores = inputs @ gradient[s] + squares - price * costs
            soft = _SOFTNESS * (scores.max() - scores.min()).detach() + 1e-12
            value = value + soft * torch.logsumexp(scores / soft, 0)

        def plain(x: Any) -> Floats:
            array: Floats = x.detach().numpy().copy()
            return array

        def each(tensors: list[Any]) -> tuple[Floats, ...]:
            return tuple(plain(x) for x in tensors)

        found = Multipliers(
            a=each(a),
            b=each(b),
            c=each(c),
            d=each(d),
            e=each(e),
            blocks=each([square[s, s] for s in r.slices]),
            point=plain(point),
            price=float(price.detach()),
        )
        return value, found


def descend(
    relaxations: Sequence[Relaxation],
    ceilings: Sequence[float],
    seconds: float,
    tell: Callable[[float], None],
    floor: float = -np.inf,
) -> list[float]:
    """The ceilings after ``seconds`` of descent, at least one round of it.

    The multipliers of one context hold for the others too, and are nearly as good. So one leads for
    the first part of the time, and the others begin where it ends; then it is always the turn of
    the one whose ceiling is the highest. ``tell`` hears the highest whenever it may have changed.
    Ends early where that is down to ``floor``, or where it cannot be lowered this way.
    """
    found = list(ceilings)
    if not all(r.possible for r in relaxations):
        return found
    start = time.perf_counter()
    lead = int(np.argmax(found))
    descents = {lead: Descent(relaxations[lead])}
    going, rounds = True, 0
    while going and max(found) > floor:
        spent = (time.perf_counter() - start) / max(seconds, 1e-9)
        if rounds and spent >= 1:
            break
        leading = spent < _LEADING
        n = lead if leading else int(np.argmax(found))
        if n not in descents:
            descents[n] = Descent(relaxations[n], descents[lead])
        going = not rounds or descents[n].improve(_ROUND, spent)
        m = descents[n].multipliers()
        if m is None:
            break
        shared = not rounds or (leading and not rounds % _SHARED_EVERY)
        for i in range(len(found)) if shared else (n,):
            found[i] = min(found[i], relaxations[i].certify(m))
        tell(max(found))
        rounds += 1
    return found
