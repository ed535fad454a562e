"""State of one import: which tensor carries each exported node, and what may still be fused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx

from edgeofa.errors import UnsupportedOperator, UsageError
from edgeofa.graph.gains import GainBuilder, Value
from edgeofa.graph.importers.arguments import Arguments, place_of
from edgeofa.graph.ir import Activation, Array, Graph, Op, Pads, Tensor
from edgeofa.graph.ops import FUSABLE, RULES

NO_PADS: Pads = (0, 0, 0, 0)
#: kinds with weights, into which constant factors and offsets can go
_WEIGHTED = frozenset(kind for kind, rule in RULES.items() if rule.weighted)

Handler: TypeAlias = "Callable[[Translator, fx.Node, Arguments], Value]"


class Translator:
    """One export on its way into a graph.

    ``values`` holds, per node, the tensor that carries it; ``pads`` the zeros that a padding node
    owes to whoever reads it.
    """

    def __init__(
        self,
        program: Any,
        name: str,
        shape: tuple[int, ...],
        handlers: Mapping[str, Handler],
    ):
        _, channels, height, width = shape
        self.name = name
        self.handlers = handlers
        self.builder = GainBuilder(name, Tensor("input", (1, height, width, channels)))
        self.nodes: list[fx.Node] = list(program.graph.nodes)
        self.values: dict[fx.Node, Value] = {}
        self.pads: dict[fx.Node, Pads] = {}
        #: nodes whose tensor nobody else reads, so that an operator may be fused into its producer
        self.exclusive: dict[fx.Node, bool] = {}
        self.constants = _constants(program)
        self.user_inputs = set(program.graph_signature.user_inputs)

    def graph(self) -> Graph:
        output: Value | None = None
        for node in self.nodes:
            if node.op == "placeholder":
                if node.name in self.user_inputs:
                    self.values[node] = self.builder.input
            elif node.op == "output":
                output = self.value(self._single_output(node))
            elif node.op == "call_function":
                self.values[node] = self._call(node)
        if output is None:
            raise UsageError("the module has no output", where=self.name)
        return self.builder.build(output)

    def _single_output(self, node: fx.Node) -> fx.Node:
        found = node.args[0]
        while isinstance(found, (tuple, list)) and len(found) == 1:
            found = found[0]
        if not isinstance(found, fx.Node):
            raise UsageError("the module must return one tensor", where=self.name)
        return found

    def _call(self, node: fx.Node) -> Value:
        arguments = Arguments(node)
        handler = self.handlers.get(arguments.name)
        if handler is None:
            raise self.unsupported(node, "not known to the graph")
        value = handler(self, node, arguments)
        sources = [s for s in node.all_input_nodes if s in self.values]
        shared = [s for s in sources if self.values[s].tensor == value.tensor]
        self.exclusive[node] = len(node.users) == 1 and all(
            self.exclusive.get(s, False) for s in shared
        )
        return value

    def unsupported(self, node: fx.Node, why: str) -> UnsupportedOperator:
        """The error to raise for a call that no graph operator expresses."""
        return UnsupportedOperator(f"{node.target}: {why}", where=place_of(node, self.name))

    # ------------------------------------------------------------ values

    def value(self, node: fx.Node) -> Value:
        """The node's value, its zero padding made an operator where it is still owed."""
        if node in self.pads:
            op = Op("pad", place_of(node, self.name), (), 0, pads=self.pads.pop(node))
            self.values[node] = self.builder.add_op(op, [self.values[node]])
        return self.values[node]

    def padded(self, node: fx.Node, own: Pads) -> tuple[Value, Pads]:
        """A convolution's input and pads, with the zeros that its input owes."""
        owed = self.pads.get(node, NO_PADS)
        top, bottom, left, right = (a + b for a, b in zip(owed, own, strict=True))
        return self.values[node], (top, bottom, left, right)

    def constant(self, node: object) -> Array | None:
        """A parameter or buffer in float64, or None for anything else."""
        tensor = self.constants.get(node.name) if isinstance(node, fx.Node) else None
        return None if tensor is None else tensor.detach().to(torch.float64).numpy()

    def fused(self, source: fx.Node, kinds: Iterable[str]) -> Op | None:
        """The operator that made ``source`` if something more may be put into it."""
        if not self.exclusive.get(source, False) or source in self.pads:
            return None
        op = self.builder.producer(self.values[source])
        return op if op is not None and op.activation == "none" and op.kind in kinds else None

    # ------------------------------------------------------------ operators

    def linear(
        self, node: fx.Node, op: Op, source: Value, weight: Array, bias: Array | None, axis: int
    ) -> Value:
        full = np.zeros(weight.shape[axis]) if bias is None else bias
        return self.builder.add_op(
            replace(
                op,
                name=place_of(node, self.name),
                weight=np.ascontiguousarray(weight, dtype=np.float32),
                bias=full.astype(np.float32),
            ),
            [source],
        )

    def affine(self, node: fx.Node, source: fx.Node, scale: Array, offset: Array) -> Value:
        """``scale * source + offset`` per channel, inside the producer where that is possible."""
        value = self.values[source]
        op = self.fused(source, _WEIGHTED)
        if op is None:
            place = place_of(node, self.name)
            return self.builder.affine(self.value(source), place, scale, offset)
        return self.builder.scale_producer(value, scale, offset)

    def activate(self, node: fx.Node, source: fx.Node, activation: Activation) -> Value:
        value = self.values[source]
        op = self.fused(source, FUSABLE)
        if op is not None and (value.gain == 1.0 or activation == "relu"):
            return self.builder.amend(value, replace(op, activation=activation))
        place = place_of(node, self.name)
        return self.builder.affine(self.value(source), place, 1.0, 0.0, activation)

    def hard_sigmoid(self, node: fx.Node, source: fx.Node) -> Value:
        op = self.fused(source, _WEIGHTED)
        if op is None or self.values[source].gain != 1.0:
            return self.builder.gate(self.value(source), place_of(node, self.name))
        _, bias = op.linear
        amended = replace(op, bias=bias + np.float32(3), activation="relu6")
        return replace(self.builder.amend(self.values[source], amended), gain=6.0)


def _constants(program: Any) -> dict[str, torch.Tensor]:
    """Parameters, buffers and lifted constants by the name of their placeholder."""
    signature = program.graph_signature
    named = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    named.update({k: v for k, v in program.constants.items() if isinstance(v, torch.Tensor)})
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {placeholder: named[target] for placeholder, target in targets.items()}
