"""Search spaces, declared as data.

A space is a TOML file (or Python values of the same shape): input resolutions, named choices that
several places share, conditions, and a tree of blocks, sequences, repeats, choices and conditionals
(``docs/spaces.md``). It compiles to an automaton whose paths are its networks, from which
everything else follows: the exact count, the n-th network, fair samples, neighbours, blocks.

Networks of the staged MBConv shape, which supernets can be made of, have stages of layers too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from edgeofa.errors import UsageError
from edgeofa.spaces.automaton import Automaton, Context, restricted
from edgeofa.spaces.blocks import Block, Padding, SpaceActivation, make_divisible
from edgeofa.spaces.compile import compile_declaration, nothing_left
from edgeofa.spaces.declaration import Declaration, read_declaration
from edgeofa.spaces.neighbours import neighbours
from edgeofa.spaces.paths import Path, Paths
from edgeofa.spaces.staged import (
    Head,
    Model,
    NotStaged,
    Stage,
    Staged,
    StagedFile,
    Stem,
    declared_body,
    staged_view,
)
from edgeofa.spaces.staged_text import parse_staged, staged_path, staged_subnet, validate_staged
from edgeofa.spaces.subnet import Layer, Subnet
from edgeofa.spaces.text import parse_text, to_path, to_subnet

__all__ = [
    "Block",
    "Head",
    "Layer",
    "Padding",
    "Preprocess",
    "Space",
    "SpaceActivation",
    "Stage",
    "Stem",
    "Subnet",
    "make_divisible",
]


class Preprocess(Model):
    """``(pixel - mean) / std`` per RGB channel, pixels 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class _Common(Model):
    """What every version of a space file holds."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)
    description: str = Field(max_length=1000)
    classes: int = Field(gt=1, le=1_000_000)
    resolutions: tuple[int, ...] = Field(min_length=1, max_length=1024)
    padding: Padding
    batch_norm_epsilon: float = Field(gt=0)
    #: smaller kernels are cut from larger ones through learned matrices (once-for-all)
    kernel_transform: bool
    preprocess: Preprocess

    @field_validator("resolutions")
    @classmethod
    def _ascending(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if list(values) != sorted(set(values)) or values[0] < 1 or values[-1] > 4096:
            raise ValueError(f"1 to 4096 px, ascending and without repeats: {values}")
        return values


class SpaceV1(StagedFile, _Common):
    """A space file of version 1: stem, stages, head."""

    def upgraded(self) -> dict[str, Any]:
        """The same space as a declaration of today."""
        common = self.model_dump(exclude={"schema_version", "stem", "stages", "head"})
        body = declared_body(self.stem.model_dump(), self.stages, self.head.model_dump())
        return {"schema_version": 2, **common, "body": body}


class Space(_Common):
    """A declared space. Load one with :func:`edgeofa.spaces.load_space`.

    It is checked whole when it is made, its shapes included: a space that exists has networks.
    """

    schema_version: Literal[2]
    #: subtrees by name, for ``use``
    parts: dict[str, Any] = Field(default_factory=dict, max_length=256)
    #: choices that several places share, by name
    ties: dict[str, Any] = Field(default_factory=dict, max_length=32)
    constraints: tuple[Any, ...] = Field(default=(), max_length=64)
    body: tuple[Any, ...]
    _file: str | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("schema_version") == 1:
            return SpaceV1.model_validate(data).upgraded()
        return data

    @model_validator(mode="after")
    def _whole(self) -> Space:
        if not self._full.contexts:
            raise nothing_left(self.declaration, self.resolutions)
        return self

    @model_serializer(mode="wrap")
    def _dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Staged spaces are written as version 1, so that digests of them stay what they were."""
        data: dict[str, Any] = handler(self)
        if not self.is_staged:
            return data
        rest = ("schema_version", "parts", "ties", "constraints", "body")
        return {
            "schema_version": 1,
            **{k: v for k, v in data.items() if k not in rest},
            "stem": self.stem.model_dump(mode=info.mode),
            "stages": [s.model_dump(mode=info.mode) for s in self.stages],
            "head": self.head.model_dump(mode=info.mode),
        }

    def read_from(self, file: str) -> Space:
        """The same space, which knows its file."""
        self._file = file
        return self

    @property
    def source(self) -> str:
        """What ``--space`` finds it by: its file, or its name where it came from none."""
        return self._file or self.name

    @cached_property
    def _written(self) -> str:
        return self.model_dump_json()

    def __eq__(self, other: object) -> bool:
        """Spaces are equal that are written alike, however their files said it."""
        return self._written == other._written if isinstance(other, Space) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._written)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Space:  # noqa: ARG002
        """A copy with other fields, checked like any space."""
        return Space.model_validate({**self.model_dump(), **(update or {})})

    # ---------------------------------------------------------------- what it compiles to

    @cached_property
    def declaration(self) -> Declaration:
        """The tree, ties and constraints as they were read."""
        return read_declaration(
            self.body, self.parts, self.ties, self.constraints, self.padding, self.classes
        )

    @cached_property
    def _full(self) -> Automaton:
        automaton = compile_declaration(self.declaration, self.resolutions)
        return self.staged.placed(automaton) if self.is_staged else automaton

    @cached_property
    def paths(self) -> Paths:
        """Counts over the automaton."""
        return Paths(self._full)

    def automaton(self, resolutions: tuple[int, ...] | None = None) -> Automaton:
        """What solvers work on; contexts ascend by resolution.

        With ``resolutions`` only their contexts; edges and options keep their numbers, so that
        some options may be allowed in no context at all.
        """
        if resolutions is None or tuple(resolutions) == self.resolutions:
            return self._full
        if foreign := sorted(set(resolutions) - set(self.resolutions)):
            raise UsageError(
                f"resolutions {foreign} are not in space {self.name}",
                hint=f"it has {', '.join(map(str, self.resolutions))}",
            )
        return restricted(self._full, tuple(resolutions))

    def subnet(self, context: Context, path: Sequence[tuple[int, int]]) -> Subnet:
        """The subnet of a path: (edge, option) numbers of :meth:`automaton`, start to end."""
        if self.is_staged:
            return staged_subnet(self.name, self._full, context, path, len(self.stages))
        number = self.paths.context(context)
        if number is None:
            raise UsageError(f"no context {context}", where=f"space {self.name}")
        return to_subnet(self.paths, self.name, number, tuple(path))

    def path(self, subnet: Subnet) -> tuple[Context, Path]:
        """Where :meth:`automaton` has a subnet: its context, and (edge, option) start to end."""
        context, path = self._located(subnet)
        return self._full.contexts[context], path

    def _located(self, subnet: Subnet) -> tuple[int, Path]:
        self.validate_subnet(subnet)
        if not self.is_staged:
            return to_path(self.paths, subnet)
        context = self.paths.context(Context(subnet.resolution))
        assert context is not None  # noqa: S101 - a valid subnet
        return context, staged_path(self.paths, subnet)

    # ---------------------------------------------------------------- choices

    def count(self, resolution: int | None = None) -> int:
        """Exact number of subnets, of one resolution or of all."""
        return self.paths.count(resolution)

    def subnet_at_index(self, index: int) -> Subnet:
        """The subnet of a number from 0 to ``count() - 1``."""
        context, path = self.paths.at(index)
        return self.subnet(self._full.contexts[context], path)

    def index_of(self, subnet: Subnet) -> int:
        """The number of a subnet, ``subnet_at_index``'s inverse."""
        return self.paths.index(*self._located(subnet))

    def sample(self, rng: random.Random, resolution: int | None = None) -> Subnet:
        """A random subnet, every one with the same chance."""
        context, path = self.paths.at(rng.randrange(self.count(resolution)), resolution)
        return self.subnet(self._full.contexts[context], path)

    def sample_by_choice(self, rng: random.Random, resolution: int | None = None) -> Subnet:
        """A random subnet by fair choices one after the other: small networks are met as often as
        large ones, which training and calibration want.

        In staged spaces once-for-all's way: resolution, depth of each stage, then each layer.
        """
        if self.is_staged:
            return Subnet(
                self.name,
                rng.choice(self.resolutions) if resolution is None else resolution,
                tuple(
                    tuple(rng.choice(s.layers_at(i)) for i in range(rng.choice(s.depths)))
                    for s in self.stages
                ),
            )
        context = rng.choice(self.paths.of_resolution(resolution))
        return self.subnet(self._full.contexts[context], self.paths.walk(rng, context))

    def neighbours(self, subnet: Subnet) -> Iterator[Subnet]:
        """Every subnet that differs in one choice (see :mod:`edgeofa.spaces.neighbours`)."""
        for context, path in neighbours(self.paths, *self._located(subnet)):
            yield self.subnet(self._full.contexts[context], path)

    def largest(self, resolution: int | None = None) -> Subnet:
        """Everything at its largest; in spaces of other shapes the subnet of most MACs."""
        return self._corner(-1, resolution)

    def smallest(self, resolution: int | None = None) -> Subnet:
        """Everything at its smallest; in spaces of other shapes the subnet of fewest MACs."""
        return self._corner(0, resolution)

    def _corner(self, end: Literal[0, -1], resolution: int | None) -> Subnet:
        if self.is_staged:
            return Subnet(
                self.name,
                self.resolutions[end] if resolution is None else resolution,
                tuple(
                    tuple(s.layers_at(i)[end] for i in range(s.depths[end])) for s in self.stages
                ),
            )
        context, path = self.paths.corner(largest=end == -1, resolution=resolution)
        return self.subnet(self._full.contexts[context], path)

    def validate_subnet(self, subnet: Subnet) -> Subnet:
        """The same subnet, or a ``UsageError`` that names the first choice outside the space and
        the nearest subnet inside."""
        if subnet.space != self.name:
            raise UsageError(
                f"subnet belongs to space {subnet.space!r}",
                where=str(subnet),
                hint=f"a subnet of {self.name}, such as {self.smallest()}",
            )
        if self.is_staged:
            validate_staged(self.staged, self.resolutions, subnet)
        else:
            to_path(self.paths, subnet)
        return subnet

    def parse(self, text: str) -> Subnet:
        """The subnet that ``str(subnet)`` wrote."""
        found = parse_staged(text) if self.is_staged else parse_text(text, self._full)
        if found is None:
            raise UsageError(
                f"not a subnet: {text[:80]!r}", hint=f"a subnet looks like {self.smallest()}"
            )
        return self.validate_subnet(found)

    # ---------------------------------------------------------------- blocks

    def blocks(self, subnet: Subnet) -> tuple[Block, ...]:
        """The blocks of a subnet, input to output."""
        if self.is_staged:
            return self.staged.blocks(subnet)
        return self.paths.blocks(*to_path(self.paths, subnet))

    def all_blocks(self, resolutions: tuple[int, ...] | None = None) -> tuple[Block, ...]:
        """Every distinct block of the space, in a stable order."""
        automaton = self.automaton(resolutions)
        return tuple(
            dict.fromkeys(
                block
                for n in range(len(automaton.contexts))
                for edge in automaton.edges
                for option in edge.options
                for block in option.blocks[n] or ()
            )
        )

    # ---------------------------------------------------------------- the staged view

    @cached_property
    def _view(self) -> Staged | NotStaged:
        if self.ties or self.constraints:
            return NotStaged("it has ties or constraints")
        try:
            return staged_view(self.declaration.root, self.padding, self.classes)
        except NotStaged as reason:
            return reason

    @property
    def is_staged(self) -> bool:
        """Whether the space is a stem, stages of MBConv layers, and a head."""
        return isinstance(self._view, Staged)

    @property
    def staged(self) -> Staged:
        """The staged view; ``UsageError`` for a space of another shape."""
        if isinstance(self._view, NotStaged):
            raise UsageError(
                f"no supernet can be made of this shape: {self._view}",
                where=f"space {self.name}",
                hint="a supernet needs a stem, repeats of one mbconv each, and a head; "
                "other spaces are profiled, solved and deployed with --random-weights",
            )
        return self._view

    @property
    def stem(self) -> Stem:
        return self.staged.stem

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.staged.stages

    @property
    def head(self) -> Head:
        return self.staged.head

    @cached_property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """(stage, position) of every layer that can exist."""
        return tuple((i, j) for i, s in enumerate(self.stages) for j in range(s.depths[-1]))

    def stem_block(self, resolution: int) -> Block:
        return self.staged.stem_block(resolution)

    def head_block(self, resolution: int) -> Block:
        return self.staged.head_block(resolution)

    def layer_block(self, resolution: int, stage: int, position: int, layer: Layer) -> Block:
        """The block of one layer choice; it does not depend on the other layers."""
        return self.staged.layer_block(resolution, stage, position, layer)
