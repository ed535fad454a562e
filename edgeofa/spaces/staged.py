"""The staged MBConv shape: a stem, stages of MBConv layers with elastic depth, a head.

Supernets, training and accuracy models speak of stages and layers. A space of this shape has a
``Staged`` view, which is read off its declaration; and version 1 of the file format, which knew no
other shape, is written as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeofa.spaces.automaton import Automaton, Edge
from edgeofa.spaces.blocks import Block, Padding, SpaceActivation, head_block, mbconv_block
from edgeofa.spaces.nodes import BlockNode, Choice, Node, RepeatNode, SequenceNode
from edgeofa.spaces.subnet import Layer, Subnet


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stem(Model):
    out: int = Field(gt=0)
    kernel: int = Field(gt=0)
    stride: int = Field(gt=0)
    activation: SpaceActivation


class Stage(Model):
    """A run of layers of one width; the first one carries the stride and the change of width."""

    out: int = Field(gt=0)
    stride: int = Field(gt=0)
    depths: tuple[int, ...] = Field(min_length=1)
    kernels: tuple[int, ...] = Field(min_length=1)
    expands: tuple[int, ...] = Field(min_length=1)
    #: expansions of the first layer where they differ from the others'
    first_expands: tuple[int, ...] | None = None
    activation: SpaceActivation
    se: bool = False

    @model_validator(mode="after")
    def _sorted(self) -> Stage:
        for name in ("depths", "kernels", "expands", "first_expands"):
            values = getattr(self, name)
            if values is not None and (list(values) != sorted(set(values)) or values[0] < 1):
                raise ValueError(
                    f"{name} must be positive, ascending and without repeats: {values}"
                )
        if any(k % 2 == 0 for k in self.kernels):
            raise ValueError(f"kernels must be odd: {self.kernels}")
        return self

    def expands_at(self, position: int) -> tuple[int, ...]:
        return self.first_expands if position == 0 and self.first_expands else self.expands

    def layers_at(self, position: int) -> tuple[Layer, ...]:
        """Every choice of the layer at ``position``, smallest first."""
        return tuple(Layer(k, e) for k, e in product(self.kernels, self.expands_at(position)))


class Head(Model):
    #: width of the 1x1 convolution before global pooling
    expand: int = Field(gt=0)
    #: width of a further layer after pooling (MobileNetV3), 0 for none
    mix: int = Field(default=0, ge=0)
    activation: SpaceActivation


@dataclass(frozen=True)
class Staged:
    """The staged view of a space. ``names`` are its layers' places in the declaration."""

    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    padding: Padding
    classes: int
    names: tuple[tuple[str, ...], ...]

    def stem_block(self, resolution: int) -> Block:
        s = self.stem
        return Block(
            "stem",
            resolution,
            3,
            s.out,
            0,
            s.kernel,
            s.stride,
            False,
            False,
            s.activation,
            self.padding,
        )

    def stage_inputs(self, resolution: int) -> tuple[tuple[int, int], ...]:
        """(size, channels) at the entry of every stage, and of the head as last item."""
        size, channels = self.stem_block(resolution).size_out, self.stem.out
        entries = [(size, channels)]
        for stage in self.stages:
            size, channels = -(-size // stage.stride), stage.out
            entries.append((size, channels))
        return tuple(entries)

    def layer_block(self, resolution: int, stage: int, position: int, layer: Layer) -> Block:
        """The block of one layer choice; it does not depend on the other layers."""
        s = self.stages[stage]
        entries = self.stage_inputs(resolution)
        size, cin = entries[stage] if position == 0 else (entries[stage + 1][0], s.out)
        return mbconv_block(
            size,
            cin,
            s.out,
            kernel=layer.kernel,
            expand=layer.expand,
            stride=s.stride if position == 0 else 1,
            se=s.se,
            activation=s.activation,
            padding=self.padding,
        )

    def head_block(self, resolution: int) -> Block:
        size, cin = self.stage_inputs(resolution)[-1]
        h = self.head
        return head_block(size, cin, self.classes, h.expand, h.mix, h.activation, self.padding)

    def blocks(self, subnet: Subnet) -> tuple[Block, ...]:
        """The blocks of a subnet, input to output."""
        r = subnet.resolution
        middle = (
            self.layer_block(r, i, j, layer)
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        )
        return (self.stem_block(r), *middle, self.head_block(r))

    def placed(self, automaton: Automaton) -> Automaton:
        """The automaton with stages and layers told on its edges."""
        places = {
            name: (i, j) for i, names in enumerate(self.names) for j, name in enumerate(names)
        }

        def told(edge: Edge) -> Edge:
            place = places.get(edge.name)
            if place is None:
                return edge
            options = tuple(
                replace(option, label=f"{layer.kernel}x{layer.expand}", layer=layer)
                for option, layer in zip(
                    edge.options, self.stages[place[0]].layers_at(place[1]), strict=True
                )
            )
            name = f"stages.{place[0]}.{place[1]}"
            return replace(edge, name=name, options=options, place=place)

        return replace(automaton, edges=tuple(map(told, automaton.edges)))


# ------------------------------------------------------------------------------------ reading


class NotStaged(ValueError):
    """Why a space has no staged view; the text names the first node that is of another shape."""


def staged_view(root: Node, padding: Padding, classes: int) -> Staged:
    """The view of a declared tree, or ``NotStaged``."""
    items = root.items if isinstance(root, SequenceNode) else ()
    if len(items) < 3:
        raise NotStaged("it is not a sequence of stem, stages and head")
    (_, first), *middle, (_, last) = items
    stem = _fields(first, "stem")
    head = _fields(last, "head")
    found = [_stage(node, name) for name, node in middle]
    return Staged(
        stem=Stem.model_validate({k: _one(v, "stem", k) for k, v in stem.items()}),
        stages=tuple(stage for stage, _ in found),
        head=Head.model_validate({k: _one(v, "head", k) for k, v in head.items()}),
        padding=padding,
        classes=classes,
        names=tuple(names for _, names in found),
    )


def _stage(node: Node, name: str) -> tuple[Stage, tuple[str, ...]]:
    if isinstance(node, BlockNode):
        depths: tuple[int, ...] = (1,)
        first = body = _fields(node, "mbconv")
        names: tuple[str, ...] = (name,)
    elif isinstance(node, RepeatNode) and not node.tied and isinstance(node.times, Choice):
        depths = cast(tuple[int, ...], node.times.values)
        if depths[0] < 1:
            raise NotStaged(f"{name} can be empty")
        first, body = _fields(node.first, "mbconv"), _fields(node.body, "mbconv")
        names = tuple(f"{name}.{j}" for j in range(depths[-1]))
    else:
        raise NotStaged(f"{name} is not a stage of MBConv layers")
    for key in ("out", "kernel", "se", "activation"):
        if first[key] != body[key]:
            raise NotStaged(f"{name}: the layers of a stage differ in {key}")
    if _one(body["stride"], name, "stride") != 1 and depths != (1,):
        raise NotStaged(f"{name}: only the first layer of a stage has a stride")
    stage = Stage.model_validate(
        {
            "out": _one(first["out"], name, "out"),
            "stride": _one(first["stride"], name, "stride"),
            "depths": depths,
            "kernels": first["kernel"],
            "expands": body["expand"],
            "first_expands": None if first["expand"] == body["expand"] else first["expand"],
            "activation": _one(first["activation"], name, "activation"),
            "se": _one(first["se"], name, "se"),
        }
    )
    return stage, names


def _fields(node: Node, kind: str) -> dict[str, tuple[Any, ...]]:
    if not isinstance(node, BlockNode) or node.kind != kind:
        raise NotStaged(f"there is no {kind} where a staged network has one")
    at = ".".join(map(str, node.location))
    if node.where is not None:
        raise NotStaged(f"{at} has a condition")
    found: dict[str, tuple[Any, ...]] = {}
    for name, value in node.fields:
        if not isinstance(value, Choice):
            raise NotStaged(f"{at}.{name} depends on other choices")
        found[name] = value.values
    return found


def _one(values: Sequence[Any], where: str, name: str) -> Any:
    if len(values) != 1:
        raise NotStaged(f"{where}: {name} is a choice")
    return values[0]


# ------------------------------------------------------------------------------------ version 1


def declared_body(
    stem: Mapping[str, Any], stages: Sequence[Stage], head: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The tree that stem, stages and head of version 1 mean."""
    body: list[dict[str, Any]] = [{"block": "stem", **stem}]
    for stage in stages:
        layer: dict[str, Any] = {
            "block": "mbconv",
            "out": stage.out,
            "kernel": list(stage.kernels),
            "expand": list(stage.expands),
            "activation": stage.activation,
            "se": stage.se,
        }
        first: dict[str, Any] = {"stride": stage.stride}
        if stage.first_expands is not None:
            first["expand"] = list(stage.first_expands)
        body.append({"repeat": [layer], "times": list(stage.depths), "first": first})
    return [*body, {"block": "head", **head}]


class StagedFile(Model):
    """What a space file of version 1 holds besides the keys that every version has."""

    schema_version: Literal[1]
    stem: Stem
    stages: tuple[Stage, ...] = Field(min_length=1)
    head: Head
