"""Subnets of staged spaces: their text, their paths, and what lies outside."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeofa.errors import UsageError
from edgeofa.spaces.automaton import Automaton, Context
from edgeofa.spaces.paths import Path, Paths
from edgeofa.spaces.staged import Staged
from edgeofa.spaces.subnet import Layer, Subnet

_MAX_TEXT = 4096


def parse_staged(text: str) -> Subnet | None:
    """What a text says, whether or not the space has it; None for no subnet's text."""
    match = re.fullmatch(r"([a-z][a-z0-9_]*)@(\d{1,5})/([\d,x/]+)", text[: _MAX_TEXT + 1])
    if match is None or len(text) > _MAX_TEXT:
        return None
    stages = match[3].split("/")
    if not all(re.fullmatch(r"\d{1,5}x\d{1,5}", x) for s in stages for x in s.split(",")):
        return None
    return Subnet(
        match[1],
        int(match[2]),
        tuple(tuple(Layer(*map(int, x.split("x"))) for x in s.split(",")) for s in stages),
    )


def staged_subnet(
    space: str, automaton: Automaton, context: Context, path: Sequence[tuple[int, int]], count: int
) -> Subnet:
    """The subnet of a path through a staged space of ``count`` stages."""
    stages: list[list[Layer]] = [[] for _ in range(count)]
    for e, o in path:
        edge = automaton.edges[e]
        layer = edge.options[o].layer
        if edge.place is not None and layer is not None:
            stages[edge.place[0]].append(layer)
    return Subnet(space, context.resolution, tuple(map(tuple, stages)))


def staged_path(paths: Paths, subnet: Subnet) -> Path:
    """The path of a subnet that the space has."""
    edges = paths.automaton.edges
    steps: list[tuple[int, int]] = []
    node = 0
    while node != paths.automaton.nodes - 1:
        for e in paths.leaving[node]:
            # a layer's edge comes before the one that ends its stage
            place, wanted = edges[e].place, None
            if place is not None:
                layers = subnet.stages[place[0]]
                if place[1] >= len(layers):
                    continue
                wanted = layers[place[1]]
            steps.append((e, [o.layer for o in edges[e].options].index(wanted)))
            node = edges[e].target
            break
    return tuple(steps)


def validate_staged(staged: Staged, resolutions: Sequence[int], subnet: Subnet) -> None:
    """A ``UsageError`` that names the first choice outside, and the nearest subnet inside."""
    refusal = _first_outside(staged, resolutions, subnet)
    if refusal is not None:
        what, allowed = refusal
        raise UsageError(
            what,
            where=str(subnet)[:200],
            hint=f"allowed: {allowed}; the nearest is {_nearest(staged, resolutions, subnet)}",
        )


def _first_outside(
    staged: Staged, resolutions: Sequence[int], subnet: Subnet
) -> tuple[str, str] | None:
    def listed(values: Sequence[int]) -> str:
        return ", ".join(map(str, values))

    if subnet.ties or subnet.choices:
        return "a staged space has layers, and no other choices", "stages of layers"
    if subnet.resolution not in resolutions:
        return f"resolution {subnet.resolution}", listed(resolutions)
    if len(subnet.stages) != len(staged.stages):
        return f"{len(subnet.stages)} stages", str(len(staged.stages))
    for i, (stage, layers) in enumerate(zip(staged.stages, subnet.stages, strict=True)):
        if len(layers) not in stage.depths:
            return f"depth {len(layers)} in stage {i}", listed(stage.depths)
        for j, layer in enumerate(layers):
            if layer.kernel not in stage.kernels:
                return f"kernel {layer.kernel} in stage {i} layer {j}", listed(stage.kernels)
            if layer.expand not in stage.expands_at(j):
                return (
                    f"expansion {layer.expand} in stage {i} layer {j}",
                    listed(stage.expands_at(j)),
                )
    return None


def _nearest(staged: Staged, resolutions: Sequence[int], subnet: Subnet) -> Subnet:
    """Every choice moved to the nearest allowed value; what is not said is the smallest."""

    def near(values: Sequence[int], wanted: int) -> int:
        return min(values, key=lambda v: abs(v - wanted))

    stages = []
    for i, stage in enumerate(staged.stages):
        layers = subnet.stages[i] if i < len(subnet.stages) else ()
        found = []
        for j in range(near(stage.depths, len(layers))):
            wanted = layers[j] if j < len(layers) else Layer(0, 0)
            found.append(
                Layer(near(stage.kernels, wanted.kernel), near(stage.expands_at(j), wanted.expand))
            )
        stages.append(tuple(found))
    return Subnet(subnet.space, near(resolutions, subnet.resolution), tuple(stages))
