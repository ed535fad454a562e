"""Search spaces of inverted-bottleneck (MBConv) networks, declared as data.

A space is a TOML file: a stem, stages with elastic depth whose layers each choose a kernel and an
expansion, a head, and the input resolutions. A ``Subnet`` is one choice; it lists the layers that
exist and nothing else, so two equal networks are equal values with one text form::

    cifar_lite@128/3x1/3x6,3x4/5x3/...      resolution, then the stages: kernel x expansion

A ``Block`` is the unit that a latency table describes: the stem, one whole fused MBConv, the head.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeofa.errors import UsageError
from edgeofa.spaces.automaton import Automaton, Context, staged_automaton

SpaceActivation = Literal["relu", "relu6", "hard_swish"]
Padding = Literal["same", "symmetric"]

_MAX_TEXT = 4096


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round channels to a multiple of ``divisor``, never below 90% of ``value``.

    The rule of MobileNetV2's reference code, as once-for-all uses it.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True, order=True)
class Layer:
    """The two choices of one MBConv layer: kernel size and expansion."""

    kernel: int
    expand: int


@dataclass(frozen=True, order=True)
class Subnet:
    """One network of a space: resolution, and the layers of each stage."""

    space: str
    resolution: int
    stages: tuple[tuple[Layer, ...], ...]

    def __str__(self) -> str:
        stages = "/".join(",".join(f"{x.kernel}x{x.expand}" for x in s) for s in self.stages)
        return f"{self.space}@{self.resolution}/{stages}"

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(len(s) for s in self.stages)


@dataclass(frozen=True, order=True)
class Block:
    """One row's subject in a latency table.

    ``size`` is the input's height and width. ``mid`` is the expanded width (stem: 0; head: the
    width before pooling). ``mix`` is the width of the head's layer after pooling, 0 for none.
    """

    kind: Literal["stem", "mbconv", "head"]
    size: int
    cin: int
    cout: int
    mid: int
    kernel: int
    stride: int
    residual: bool
    se: bool
    activation: SpaceActivation
    padding: Padding
    mix: int = 0

    @property
    def size_out(self) -> int:
        """Height and width after the block; both paddings give ``ceil(size / stride)``."""
        return 1 if self.kind == "head" else -(-self.size // self.stride)

    @property
    def key(self) -> str:
        """Stable text form, the key of a table row."""
        parts = [
            self.kind,
            f"{self.size}x{self.size}x{self.cin}",
            f"{self.size_out}x{self.size_out}x{self.cout}",
            f"m{self.mid}",
            f"k{self.kernel}",
            f"s{self.stride}",
            f"r{int(self.residual)}",
            f"se{int(self.se)}",
            self.activation.replace("_", ""),
            self.padding,
        ]
        return "-".join(parts + ([f"x{self.mix}"] if self.mix else []))


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stem(_Model):
    out: int = Field(gt=0)
    kernel: int = Field(gt=0)
    stride: int = Field(gt=0)
    activation: SpaceActivation


class Stage(_Model):
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


class Head(_Model):
    #: width of the 1x1 convolution before global pooling
    expand: int = Field(gt=0)
    #: width of a further layer after pooling (MobileNetV3), 0 for none
    mix: int = Field(default=0, ge=0)
    activation: SpaceActivation


class Preprocess(_Model):
    """``(pixel - mean) / std`` per RGB channel, pixels 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Space(_Model):
    """A declared space. Load the shipped ones with :func:`edgeofa.spaces.load_space`."""

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    classes: int = Field(gt=1)
    resolutions: tuple[int, ...] = Field(min_length=1)
    padding: Padding
    batch_norm_epsilon: float = Field(gt=0)
    #: smaller kernels are cut from larger ones through learned matrices (once-for-all)
    kernel_transform: bool
    preprocess: Preprocess
    stem: Stem
    stages: tuple[Stage, ...] = Field(min_length=1)
    head: Head

    # ---------------------------------------------------------------- choices

    def count(self) -> int:
        """Exact number of subnets, all resolutions."""

        def stage_count(stage: Stage) -> int:
            return sum(
                prod(len(stage.layers_at(i)) for i in range(depth)) for depth in stage.depths
            )

        return len(self.resolutions) * prod(stage_count(s) for s in self.stages)

    def sample(self, rng: random.Random, resolution: int | None = None) -> Subnet:
        """A random subnet, once-for-all's way: depth uniform per stage, then each layer."""
        return Subnet(
            self.name,
            rng.choice(self.resolutions) if resolution is None else resolution,
            tuple(
                tuple(rng.choice(s.layers_at(i)) for i in range(rng.choice(s.depths)))
                for s in self.stages
            ),
        )

    def _corner(self, end: Literal[0, -1], resolution: int | None) -> Subnet:
        return Subnet(
            self.name,
            self.resolutions[end] if resolution is None else resolution,
            tuple(tuple(s.layers_at(i)[end] for i in range(s.depths[end])) for s in self.stages),
        )

    def largest(self, resolution: int | None = None) -> Subnet:
        return self._corner(-1, resolution)

    def smallest(self, resolution: int | None = None) -> Subnet:
        return self._corner(0, resolution)

    def validate_subnet(self, subnet: Subnet) -> Subnet:
        """The same subnet, or a ``UsageError`` that names the first choice outside the space."""

        def refuse(what: str, allowed: object) -> UsageError:
            return UsageError(what, where=str(subnet), hint=f"allowed: {allowed}")

        if subnet.space != self.name:
            raise refuse(f"subnet belongs to space {subnet.space!r}", self.name)
        if subnet.resolution not in self.resolutions:
            raise refuse(f"resolution {subnet.resolution}", list(self.resolutions))
        if len(subnet.stages) != len(self.stages):
            raise refuse(f"{len(subnet.stages)} stages", len(self.stages))
        for i, (stage, layers) in enumerate(zip(self.stages, subnet.stages, strict=True)):
            if len(layers) not in stage.depths:
                raise refuse(f"depth {len(layers)} in stage {i}", list(stage.depths))
            for j, layer in enumerate(layers):
                if layer.kernel not in stage.kernels:
                    raise refuse(f"kernel {layer.kernel} in stage {i} layer {j}", stage.kernels)
                if layer.expand not in stage.expands_at(j):
                    raise refuse(
                        f"expansion {layer.expand} in stage {i} layer {j}", stage.expands_at(j)
                    )
        return subnet

    def parse(self, text: str) -> Subnet:
        """The subnet that ``str(subnet)`` wrote."""
        match = re.fullmatch(r"([a-z][a-z0-9_]*)@(\d{1,5})/([\d,x/]+)", text[:_MAX_TEXT])
        if match is None:
            raise UsageError(
                f"not a subnet: {text[:80]!r}", hint=f"a subnet looks like {self.smallest()}"
            )
        try:
            stages = tuple(
                tuple(Layer(*map(int, x.split("x"))) for x in s.split(","))
                for s in match[3].split("/")
            )
        except (ValueError, TypeError):
            raise UsageError(
                f"not a subnet: {text[:80]!r}", hint=f"a subnet looks like {self.smallest()}"
            ) from None
        return self.validate_subnet(Subnet(match[1], int(match[2]), stages))

    # ---------------------------------------------------------------- blocks

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
        stride = s.stride if position == 0 else 1
        return Block(
            "mbconv",
            size,
            cin,
            s.out,
            make_divisible(cin * layer.expand),
            layer.kernel,
            stride,
            stride == 1 and cin == s.out,
            s.se,
            s.activation,
            self.padding,
        )

    def head_block(self, resolution: int) -> Block:
        size, cin = self.stage_inputs(resolution)[-1]
        h = self.head
        return Block(
            "head",
            size,
            cin,
            self.classes,
            h.expand,
            1,
            1,
            False,
            False,
            h.activation,
            self.padding,
            h.mix,
        )

    def blocks(self, subnet: Subnet) -> tuple[Block, ...]:
        """The blocks of a subnet, input to output."""
        r = subnet.resolution
        middle = (
            self.layer_block(r, i, j, layer)
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        )
        return (self.stem_block(r), *middle, self.head_block(r))

    def all_blocks(self, resolutions: tuple[int, ...] | None = None) -> tuple[Block, ...]:
        """Every distinct block of the space, in a stable order."""

        def generate() -> Iterator[Block]:
            for r in resolutions or self.resolutions:
                yield self.stem_block(r)
                for i, stage in enumerate(self.stages):
                    for j in range(stage.depths[-1]):
                        for layer in stage.layers_at(j):
                            yield self.layer_block(r, i, j, layer)
                yield self.head_block(r)

        return tuple(dict.fromkeys(generate()))

    @cached_property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """(stage, position) of every layer that can exist."""
        return tuple((i, j) for i, s in enumerate(self.stages) for j in range(s.depths[-1]))

    # ---------------------------------------------------------------- automaton

    def automaton(self, resolutions: tuple[int, ...] | None = None) -> Automaton:
        """What solvers work on; contexts ascend by resolution."""
        chosen = self.resolutions if resolutions is None else tuple(resolutions)
        found = self._automata.get(chosen)
        if found is None:
            found = self._automata[chosen] = staged_automaton(self, chosen)
        return found

    @cached_property
    def _automata(self) -> dict[tuple[int, ...], Automaton]:
        return {}

    def subnet(self, context: Context, path: Sequence[tuple[int, int]]) -> Subnet:
        """The subnet of a path: (edge, option) indices of :meth:`automaton`, start to end."""
        edges = self.automaton().edges
        stages: list[list[Layer]] = [[] for _ in self.stages]
        for e, o in path:
            edge = edges[e]
            layer = edge.options[o].layer
            if edge.place is not None and layer is not None:
                stages[edge.place[0]].append(layer)
        return Subnet(self.name, context.resolution, tuple(map(tuple, stages)))

    def path(self, subnet: Subnet) -> tuple[Context, tuple[tuple[int, int], ...]]:
        """Where :meth:`automaton` has a subnet: its context, and (edge, option) start to end."""
        self.validate_subnet(subnet)
        steps: list[tuple[int, int]] = []
        node = 0
        for e, edge in enumerate(self.automaton().edges):
            if edge.source != node:
                continue
            wanted: Layer | None = None
            if edge.place is not None:
                layers = subnet.stages[edge.place[0]]
                if edge.place[1] >= len(layers):
                    continue
                wanted = layers[edge.place[1]]
            option = next((n for n, x in enumerate(edge.options) if x.layer == wanted), None)
            if option is not None:
                steps.append((e, option))
                node = edge.target
        return Context(subnet.resolution), tuple(steps)
