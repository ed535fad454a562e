"""A proven ceiling on what a predictor that is a ReLU network says of any subnet in the budget.

Every sum before a ReLU is enclosed in an interval that holds for all subnets within the budget, and
the ReLU between two lines that hold on it (Zhang et al. 2018, "Efficient neural network robustness
certification with general activation functions", CROWN). Put one into the other, the network is
below a linear function of its inputs. That is maximised over real subnets, not over a box: by one
priced budget for the many inner sums (``relaxed``), by the exact solver for the output.

Branch and bound splits the subnets by resolution, then along the path by the edge taken (in a
staged space the depths), then by the option of a layer, always where the ceiling is highest, until
the time is over or the ceiling meets the best known subnet: down to single subnets it is exact.

Where the network is wide, lines are far too loose to get anywhere by splitting, and most of the
time goes to the quadratic bounds of ``quadratic`` instead, one a resolution.

Floating-point errors go outwards: every linear function is lifted by 1e-12 of the sum of the
absolute values that went into it, some hundred times what double precision can lose.

The proof is about the network, not about the accuracy that it predicts.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, floor, inf

import numpy as np

from edgeofa.accuracy.mlp import AnyFloats, MlpAccuracy, Network
from edgeofa.errors import NoSubnetFits, UsageError
from edgeofa.solver.choices import Choices, Floats, RowFeatures
from edgeofa.solver.exact import k_best
from edgeofa.solver.problem import Limits, Problem
from edgeofa.solver.quadratic import Relaxation, descend
from edgeofa.solver.relaxed import Part

_ROUNDING = 1e-12
_BITS = 40
#: hidden units above which splitting is hopeless, and the share of the time that it gets then
_WIDE = 100
_SPLITTING = 0.03


@dataclass(frozen=True)
class Bound:
    """``value``: no subnet within the limits is predicted better.

    ``root`` is the ceiling before any split, ``interval`` the one of interval arithmetic alone.
    ``closed``: the ceiling met the value that was to be proven best. ``trace`` has (seconds, value)
    of every time that the ceiling became lower.
    """

    value: float
    root: float
    interval: float
    nodes: int
    seconds: float
    closed: bool
    trace: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Line:
    """Lines around a ReLU on an interval: ``low * z <= relu(z) <= up * z + lift``."""

    low: Floats
    up: Floats
    lift: Floats


def relu_lines(low: Floats, high: Floats) -> Line:
    """The chord above; below, the one of 0 and z that leaves the smaller triangle."""
    unstable = (low < 0) & (high > 0)
    width = np.where(unstable, high - low, 1.0)
    on = (low >= 0).astype(np.float64)
    chord = np.where(unstable, high / width, on)
    lift = np.where(unstable, -chord * low, 0.0)
    below = np.where(unstable, (high >= -low).astype(np.float64), on)
    return Line(below, chord, lift)


Lines = Callable[[Floats, Floats], Line]


def interval_ceiling(network: Network, part: Part) -> float:
    """The output's upper end by interval arithmetic after the first layer."""
    weight, bias = network.weights[0], network.biases[0]
    high, low = part.maximise(weight, bias), -part.maximise(-weight, -bias)
    for weight, bias in zip(network.weights[1:], network.biases[1:], strict=True):
        low, high = _interval(np.maximum(low, 0), np.maximum(high, 0), weight, bias)
    return float(high[0])


def _interval(
    low: Floats, high: Floats, weight: AnyFloats, bias: AnyFloats
) -> tuple[Floats, Floats]:
    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    margin = _ROUNDING * (np.abs(weight) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(bias))
    return up @ low + down @ high + bias - margin, up @ high + down @ low + bias + margin


@dataclass(frozen=True, eq=False)
class Crown:
    """A linear function of the inputs above the network, slopes (1, features) and offset (1,).

    ``ranges``: for every hidden layer the ends (width,) between which its sums before the ReLU lie.
    """

    slopes: AnyFloats
    offsets: AnyFloats
    ceiling: float
    ranges: tuple[tuple[Floats, Floats], ...]


def crown_line(network: Network, part: Part, lines: Lines = relu_lines) -> Crown:
    """A linear function above the network on ``part``.

    ``lines`` is only changed to test that unsound lines are found out.
    """
    around: list[Line] = []
    ranges: list[tuple[Floats, Floats]] = []
    low = high = np.zeros(0)
    for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        last = k == len(network.weights) - 1
        both = weight if last else np.concatenate([weight, -weight])
        start = bias if last else np.concatenate([bias, -bias])
        slopes, offsets = _back(network, around, both, start)
        ends = part.maximise(slopes, offsets)
        if k:
            # what interval arithmetic says from here is as true, and sometimes less
            plain_low, plain_high = _interval(np.maximum(low, 0), np.maximum(high, 0), weight, bias)
        if last:
            ceiling = float(min(ends[0], plain_high[0]))
            return Crown(slopes, offsets, ceiling, tuple(ranges))
        high, low = ends[: len(weight)], -ends[len(weight) :]
        if k:
            low, high = np.maximum(low, plain_low), np.minimum(high, plain_high)
        around.append(lines(low, high))
        ranges.append((low, high))
    raise UsageError("a network without layers has no ceiling")


def _back(
    network: Network, around: list[Line], slopes: AnyFloats, offsets: AnyFloats
) -> tuple[AnyFloats, AnyFloats]:
    """Functions of a layer's inputs as functions of the network's inputs that are above them."""
    size, total = np.abs(slopes), np.abs(offsets)
    for line, weight, bias in zip(
        around[::-1],
        network.weights[: len(around)][::-1],
        network.biases[: len(around)][::-1],
        strict=True,
    ):
        positive, negative = np.maximum(slopes, 0), np.minimum(slopes, 0)
        total = total + size @ line.lift
        size = size * np.maximum(line.up, line.low)
        total = total + size @ np.abs(bias)
        offsets = offsets + positive @ line.lift
        slopes = positive * line.up + negative * line.low
        offsets = offsets + slopes @ bias
        slopes, size = slopes @ weight, size @ np.abs(weight)
    return slopes, offsets + _ROUNDING * (total + size.sum(axis=1))


def bound(
    problem: Problem,
    limits: Limits,
    *,
    best: float = -inf,
    seconds: float = 10.0,
    max_nodes: int = 1_000_000,
) -> Bound:
    """The ceiling over all subnets within ``limits``, as low as the time makes it.

    Args:
        best: the value of a known subnet; the search ends when the ceiling is down to it.

    Raises:
        UsageError: the accuracy model is not a network (an additive one is solved exactly).
        NoSubnetFits: there is no subnet within the limits.
    """
    model = problem.accuracy
    if not isinstance(model, MlpAccuracy):
        raise UsageError(
            "only a predictor that is a network needs a bound",
            hint="an additive model's optimum is exact: edgeofa.solver.select",
        )
    start = time.perf_counter()
    choices = Choices(problem, limits)
    tree = _Tree(choices, model.network)
    features = RowFeatures(choices, model)
    heap: list[tuple[float, int, _Node]] = []
    roots: list[_Node] = []
    interval = -inf
    for context in choices.contexts.tolist():
        node = tree.node(Part.whole(choices, features, context))
        if node is not None:
            roots.append(node)
            interval = max(interval, interval_ceiling(model.network, node.part))
            heapq.heappush(heap, (-node.ceiling, len(roots), node))
    if not heap:
        raise NoSubnetFits("no subnet is within the budgets", where=f"space {problem.space.name}")
    root = -heap[0][0]
    trace = [(time.perf_counter() - start, root)]

    def told(value: float) -> None:
        if value < trace[-1][1]:
            trace.append((time.perf_counter() - start, value))

    wide = sum(len(w) for w in model.network.weights[:-1]) > _WIDE
    count = len(roots)
    done = -inf  # the highest ceiling of single subnets, which cannot be split
    while heap and -heap[0][0] > max(best, done):
        passed = time.perf_counter() - start
        if passed > seconds * (_SPLITTING if wide else 1) or count >= max_nodes:
            break
        node = heapq.heappop(heap)[2]
        parts = list(node.part.split(node.spread))
        if not parts:
            done = max(done, node.ceiling)
        for part in parts:
            child = tree.node(part)
            if child is None:
                continue
            count += 1
            # a child's subnets are the parent's too
            ceiling = min(child.ceiling, node.ceiling)
            heapq.heappush(heap, (-ceiling, count, replace(child, ceiling=ceiling)))
        told(max(done, -heap[0][0] if heap else -inf))
    closed = not heap or -heap[0][0] <= max(best, done)
    left = seconds - (time.perf_counter() - start)
    if wide and not closed and left > 0:
        relaxations = [Relaxation(model.network, n.part, n.ranges) for n in roots]
        descend(relaxations, [n.ceiling for n in roots], left, told, best)
        closed = trace[-1][1] <= best
    value = max(trace[-1][1], best)
    return Bound(value, root, interval, count, time.perf_counter() - start, closed, tuple(trace))


@dataclass(frozen=True, eq=False)
class _Node:
    part: Part
    ceiling: float
    ranges: tuple[tuple[Floats, Floats], ...]
    spread: Floats  # (positions,) how much the option can change the linear ceiling


class _Tree:
    """Ceilings of parts of the space."""

    def __init__(self, choices: Choices, network: Network):
        self._choices, self._network = choices, network

    def node(self, part: Part) -> _Node | None:
        """The part and its ceiling, None where no subnet of it is within the limits."""
        if part.empty:
            return None
        crown = crown_line(self._network, part)
        scores, rest = part.scores(crown.slopes, crown.offsets)
        exact = self._exact(part, scores[0], float(rest[0]))
        if exact is None:
            return None
        highest = np.where(part.options, scores[0], -np.inf).max(axis=1)
        lowest = np.where(part.options, scores[0], np.inf).min(axis=1)
        spread = np.where(part.options.any(axis=1), highest - lowest, 0.0)
        return _Node(part, min(crown.ceiling, exact), crown.ranges, spread)

    def _exact(self, part: Part, scores: Floats, rest: float) -> float | None:
        """The exact maximum of a linear function over the part's subnets, rounded up."""
        at = self._choices
        most = max(float(np.abs(scores).max()), 1e-9)
        unit = 2.0 ** (floor(np.log2(most)) + 6 - _BITS)
        units = np.ceil(scores / unit).astype(np.int64)
        arcs = []
        for arc in at.problem.arcs:
            position = int(at.position[arc.edge])
            allowed = np.zeros_like(arc.allowed)
            given = np.zeros_like(arc.scores)
            if part.edges[arc.edge]:
                allowed[part.context] = True
                if position >= 0:
                    allowed[part.context] = part.options[position, arc.options]
                    given[:] = units[position, arc.options]
            arcs.append(replace(arc, scores=given, allowed=allowed))
        contexts = np.zeros_like(at.problem.allowed)
        contexts[part.context] = True
        linear = replace(
            at.problem,
            allowed=contexts,
            arcs=tuple(arcs),
            fixed_scores=np.zeros_like(at.problem.fixed_scores),
            score_unit=unit,
        )
        ranking = k_best(linear, at.limits, 1)
        if not ranking.best and ranking.proven:
            return None
        lift = _ROUNDING * (np.abs(scores).max(axis=1).sum() + abs(rest))
        return float(ceil(ranking.bound) * unit + rest + lift)
