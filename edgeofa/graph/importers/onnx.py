""".onnx file to graph: float32, or int8 as QuantizeLinear and DequantizeLinear pairs (QDQ).

A quantised file computes in float between pairs; a runtime reads it as integer operators, and so
does this: a DequantizeLinear makes the stored tensor real, a QuantizeLinear gives the tensor that
an operator wrote its scale. uint8 activations become int8 by taking 128 off values and zero point,
which changes no real number. Images are NCHW in the file and NHWC in the graph. Nothing of the file
is trusted (see :mod:`edgeofa.graph.importers.onnx_file`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeofa.errors import FileFormatError, UnsupportedOperator, UsageError
from edgeofa.graph.gains import GainBuilder
from edgeofa.graph.importers.nearest import nearest_form
from edgeofa.graph.importers.onnx_file import Node, OnnxFile, shown
from edgeofa.graph.importers.onnx_values import Const, Operand, Order, Stream
from edgeofa.graph.importers.pieces import channel_ones
from edgeofa.graph.ir import Activation, Array, Graph, Op, Quantization, Tensor
from edgeofa.graph.ops import FUSABLE, RULES
from edgeofa.graph.rewrites import fold_pads

#: what hostile numbers make numpy raise
_UNREADABLE = (ValueError, TypeError, OverflowError, IndexError, AttributeError)
_WEIGHTED = frozenset(kind for kind, rule in RULES.items() if rule.weighted)
#: (height, width, channels last) as axes of an NCHW image, and back
TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_PASSING = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast")


Handler = Callable[["Importer", Node], Operand]


def import_onnx(source: Path | bytes, name: str | None = None) -> Graph:
    """The graph of an .onnx file with one input and one output: int8 where the file holds
    quantised activations, else float32.

    A float32 input or output of a quantised file is accepted where it is quantised or dequantised
    directly; the graph then starts and ends with the int8 tensors. Images enter and leave the graph
    as NHWC, whatever the file's order.

    Args:
        source: the file, or its content.
        name: the graph's name; by default the file's.

    Raises:
        FileFormatError: no .onnx file, a damaged one, or one with data elsewhere.
        UnsupportedOperator: an operator, or a use of it, that the graph does not know, by its
            index.
    """
    from edgeofa.graph.importers.onnx_ops import HANDLERS

    place = name or (source.stem if isinstance(source, Path) else "model")
    try:
        return Importer(OnnxFile(source), place, HANDLERS).graph()
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise FileFormatError(f"a damaged .onnx file ({error})", where=place) from error


class Importer:
    """One file on its way into a graph; ``values`` holds what each name of the file stands for."""

    def __init__(self, file: OnnxFile, name: str, handlers: Mapping[str, Handler]):
        self.file = file
        self.name = name
        self.handlers = handlers
        self.nodes = list(file.nodes())
        self.readers = Counter(x for node in self.nodes for x in node.inputs if x)
        self.readers[file.output.name] += 1
        self.values: dict[str, Operand] = {k: Const(v) for k, v in file.constants.items()}
        #: quantisation of the graph's tensors, by number
        self.stored: dict[int, Quantization] = {}
        self._replaceable: set[int] = set()
        #: tensors whose quantisation cuts off what a clip cuts off
        self._clipped: set[int] = set()
        self.int8 = self._is_quantised()
        shape, order = self._input()
        self.builder = GainBuilder(name, Tensor(shown(file.input.name), shape))
        self.values[file.input.name] = Stream(self.builder.input, order)

    def graph(self) -> Graph:
        for node in self.nodes:
            if node.output in self.values:
                raise FileFormatError(
                    f"node {node.index} writes {shown(node.output)} again", where=self.name
                )
            for source in node.inputs:
                if source and source not in self.values:
                    raise FileFormatError(
                        f"node {node.index}, {node.kind}, reads {shown(source)}, which is no "
                        "constant and of no node before it: a cycle, or a part is missing",
                        where=self.name,
                    )
            handler = self.handlers.get(node.kind)
            if handler is None:
                raise self.unsupported(node, "the graph has no such operator")
            self.values[node.output] = self._noted(node, handler(self, node))
        return self._finished()

    def _finished(self) -> Graph:
        output = self.values.get(self.file.output.name)
        if not isinstance(output, Stream):
            raise FileFormatError("its output is of no node", where=self.name)
        if output.order == "flat NCHW":
            raise UnsupportedOperator("its output is a flattened image", where=self.name)
        if output.limits is not None:
            raise UnsupportedOperator(
                f"its output is clipped to {output.limits}, and not quantised afterwards",
                where=self.name,
                hint="leave the clip to the application, after the network",
            )
        if self.int8 and output.value.tensor not in self.stored:
            op = self.builder.producer(output.value)
            raise UnsupportedOperator(
                f"its output ({op.name if op else 'the input'}) is not quantised",
                where=self.name,
                hint="quantise every operator",
            )
        return fold_pads(self.builder.build(output.value, self.stored))

    def _noted(self, node: Node, found: Operand) -> Operand:
        """The result, and whether more may be fused into what wrote it."""
        if isinstance(found, Const):
            return found
        sources = [self.values[x] for x in node.inputs if x]
        shared = [
            s for s in sources if isinstance(s, Stream) and s.value.tensor == found.value.tensor
        ]
        alone = self.readers[node.output] == 1 and all(s.exclusive for s in shared)
        return replace(found, exclusive=alone)

    def _is_quantised(self) -> bool:
        constant = set(self.file.constants) | {n.output for n in self.nodes if n.kind == "Constant"}
        quantised = any(
            n.kind == "QuantizeLinear" and n.input(0) not in constant for n in self.nodes
        )
        return quantised or self.file.input.dtype in ("int8", "uint8")

    def _input(self) -> tuple[tuple[int, ...], Order]:
        """Shape of the graph's input, and how the file sees it."""
        end = self.file.input
        types = ("float32", "int8", "uint8") if self.int8 else ("float32",)
        if end.dtype not in types or len(end.shape) not in (2, 4) or end.shape[0] != 1:
            raise UnsupportedOperator(
                f"an input {end.dtype}{list(end.shape)}",
                where=self.name,
                hint="one image, [1, channels, height, width], or one vector, [1, features]",
            )
        if any(axis > 0 for axis in end.open):
            sizes = ["?" if axis in end.open else size for axis, size in enumerate(end.shape)]
            raise UnsupportedOperator(
                f"an input of open size, [{', '.join(map(str, sizes))}]",
                where=self.name,
                hint="export it with a fixed height and width; only the batch may be open",
            )
        if len(end.shape) == 2:
            return end.shape, "flat"
        if self._starts_channels_last():
            return end.shape, "NHWC"
        return tuple(end.shape[axis] for axis in TO_NHWC), "NCHW"

    def _starts_channels_last(self) -> bool:
        """Whether all that the file does with its input is to bring channels to the front."""
        names, ends = {self.file.input.name}, []
        for node in self.nodes:
            if node.inputs and node.inputs[0] in names:
                if node.kind in _PASSING:
                    names.add(node.output)
                else:
                    ends.append(node)
        return bool(ends) and all(
            n.kind == "Transpose" and tuple(n.attributes.get("perm", ())) == TO_NCHW for n in ends
        )

    # ------------------------------------------------------------ what handlers ask for

    def unsupported(self, node: Node, why: str) -> UnsupportedOperator:
        """The error to raise for a node that no graph operator expresses."""
        return UnsupportedOperator(
            f"node {node.index}, {node.kind}: {why}",
            where=f"{self.name}, {node.place}",
            hint=nearest_form(node.kind),
        )

    def stream(self, node: Node, position: int = 0) -> Stream:
        """An input that must be an activation, in real numbers or stored."""
        found = self.values[node.input(position)]
        if isinstance(found, Const):
            raise self.unsupported(node, f"input {position} is a constant")
        return found

    def real(self, node: Node, position: int = 0) -> Stream:
        """An input that must be an activation in real numbers whose quantisation is known."""
        found = self.stream(node, position)
        if self.int8 and found.declared is not None:
            raise self.unsupported(node, "it computes on stored numbers")
        if self.int8 and found.value.tensor not in self.stored:
            raise self.unsupported(node, f"its input {position} is not quantised")
        if found.limits is not None:
            raise self.unsupported(node, f"a clip to {found.limits} before it")
        return found

    def image(self, node: Node, position: int = 0) -> Stream:
        """A real activation that must be an image."""
        found = self.real(node, position)
        if found.order not in ("NCHW", "NHWC") or len(self.shape(found)) != 4:
            raise self.unsupported(node, f"an input of shape {self.shape(found)}, no image")
        if found.order == "NHWC":
            raise self.unsupported(node, "an image whose channels are last")
        return found

    def const(self, node: Node, position: int) -> Const | None:
        """A constant input; None where it is left out or an activation."""
        name = node.optional(position)
        found = None if name is None else self.values[name]
        return found if isinstance(found, Const) else None

    def numbers(self, node: Node, position: int, attribute: str) -> list[float] | None:
        """A short list that newer operator sets take as an input, older ones as an attribute."""
        found = self.const(node, position)
        if found is not None:
            if found.stored.size > 64:
                raise self.unsupported(node, f"{found.stored.size} numbers as input {position}")
            return [float(x) for x in found.real.reshape(-1)]
        if node.optional(position) is not None:
            raise self.unsupported(node, f"input {position} is no constant")
        value = node.attributes.get(attribute)
        if value is None:
            return None
        return [float(x) for x in (value if isinstance(value, (list, tuple)) else [value])]

    def comes_stored(self, stream: Stream) -> bool:
        """Whether it is the input of a file whose input is int8 or uint8 already."""
        return stream.value == self.builder.input and self.file.input.dtype != "float32"

    def shape(self, stream: Stream) -> tuple[int, ...]:
        """The graph's shape of the tensor: NHWC."""
        return self.builder.shape(stream.value)

    def logical_shape(self, stream: Stream) -> tuple[int, ...]:
        """The shape as the file sees it."""
        shape = self.shape(stream)
        if stream.order == "NCHW":
            return tuple(shape[axis] for axis in TO_NCHW)
        return shape if stream.order == "NHWC" else (shape[0], int(np.prod(shape[1:])))

    # ------------------------------------------------------------ operators

    def add(self, node: Node, op: Op, inputs: list[Stream], order: Order | None = None) -> Stream:
        """Append an operator; its result is real, and quantised where its kind says how."""
        value = self.builder.add_op(replace(op, name=node.place), [s.value for s in inputs])
        if self.int8 and RULES[op.kind].keeps_quantization:
            self.stored[value.tensor] = self.stored[inputs[0].value.tensor]
        return Stream(value, order or inputs[0].order)

    def fused(self, stream: Stream, kinds: Iterable[str]) -> Op | None:
        """The operator that wrote ``stream`` if something more may be put into it."""
        free = stream.exclusive and stream.value.tensor not in self._clipped
        op = self.builder.producer(stream.value) if free else None
        return op if op is not None and op.activation == "none" and op.kind in kinds else None

    def activate(self, node: Node, stream: Stream, activation: Activation) -> Stream:
        op = self.fused(stream, FUSABLE)
        tensor = stream.value.tensor
        if op is not None and (stream.value.gain == 1.0 or activation == "relu"):
            self.builder.amend(stream.value, replace(op, activation=activation))
            if not RULES[op.kind].keeps_quantization:
                # quantised before and perhaps after: the last one is what is read
                self._replaceable.add(tensor)
            return stream
        if not self.int8:
            value = self.builder.affine(stream.value, node.place, 1.0, 0.0, activation)
            return Stream(value, stream.order)
        return self.requantised(node, stream, activation)

    def requantised(self, node: Node, stream: Stream, activation: Activation = "none") -> Stream:
        """The same numbers, to be quantised otherwise: a depthwise convolution with ones."""
        shape = self.shape(stream)
        if stream.value.tensor not in self.stored:
            raise self.unsupported(node, "its input is not quantised, and other operators read it")
        if len(shape) != 4:
            raise self.unsupported(node, "another quantisation of a flat tensor")
        ones = channel_ones(shape[3], "int8")
        op = Op("depthwise_conv2d", "", (), 0, activation=activation, **ones)
        return replace(self.add(node, op, [stream]), declared=None, limits=None)

    def affine(
        self, node: Node, stream: Stream, scale: Array | float, offset: Array | float
    ) -> Stream:
        """``scale * stream + offset`` per channel, inside the producer where that is possible."""
        if self.int8:
            if not isinstance(scale, float) or scale != 1.0:
                raise self.unsupported(node, "a constant factor in a quantised network")
            return self._offset(node, stream, np.asarray(offset))
        if self.fused(stream, _WEIGHTED) is not None:
            return replace(stream, value=self.builder.scale_producer(stream.value, scale, offset))
        return Stream(self.builder.affine(stream.value, node.place, scale, offset), stream.order)

    def _offset(self, node: Node, stream: Stream, offset: Array) -> Stream:
        """``stream + offset`` per channel, as a part of the bias before it."""
        op = self.fused(stream, _WEIGHTED)
        known = self.stored.get(stream.value.tensor)
        # a relu that its quantisation implies would be lost
        cut = known is not None and known.zero_point in (-128, 127)
        if op is None or op.weight_scale is None or cut:
            raise self.unsupported(node, "a constant summand, and no weights before it to take it")
        weight, bias = op.linear
        steps = self.stored[op.inputs[0]].scale * op.weight_scale.astype(np.float64)
        whole = bias + np.rint(np.broadcast_to(offset, bias.shape) / steps)
        if np.abs(whole).max(initial=0) >= 1 << 31:
            raise self.unsupported(node, "a bias that does not fit 32 bits")
        self.builder.amend(stream.value, replace(op, weight=weight, bias=whole.astype(np.int32)))
        self._replaceable.add(stream.value.tensor)
        return stream

    def quantised(self, node: Node, stream: Stream, q: Quantization) -> Stream:
        """``stream`` as stored numbers of that quantisation."""
        if stream.declared is not None:
            raise self.unsupported(node, "its input is quantised already")
        limits = stream.limits
        if limits is not None:
            low, high = (q.scale * (stored - q.zero_point) for stored in (-128, 127))
            half = q.scale / 2
            if low < limits[0] - half or high > limits[1] + half:
                raise self.unsupported(node, f"a clip to {limits} that it does not imply")
        known = self.stored.get(stream.value.tensor)
        producer = self.builder.producer(stream.value)
        # a softmax's own quantisation is TFLite's, and as fine as any
        softmax = producer is not None and producer.kind == "softmax"
        if known is None or stream.value.tensor in self._replaceable:
            self.stored[stream.value.tensor] = q
            self._replaceable.discard(stream.value.tensor)
        elif known != q and not softmax:
            stream = self.requantised(node, stream)
            self.stored[stream.value.tensor] = q
        if limits is not None:
            self._clipped.add(stream.value.tensor)
        return replace(stream, declared=q, limits=None)

    def parameters(
        self, node: Node, stream: Stream, weight: Const, bias: Const | None, axis: int
    ) -> dict[str, Any]:
        """Weight (in the file's arrangement), bias and scales of a linear operator.

        Args:
            axis: of the weight that holds the output channels.
        """
        channels = weight.stored.shape[axis]
        if channels == 0:
            raise self.unsupported(node, "a weight without output channels")
        if bias is not None and bias.stored.size != channels:
            raise self.unsupported(node, f"a bias of {bias.stored.shape} for {channels} channels")
        offset = np.zeros(channels) if bias is None else bias.real.reshape(-1)
        if not self.int8:
            return {
                "weight": weight.real.astype(np.float32),
                "bias": offset.astype(np.float32),
            }
        if weight.scale is None:
            raise self.unsupported(node, "its weight is not quantised")
        if weight.scale.size > 1 and weight.axis % weight.stored.ndim != axis:
            raise self.unsupported(node, f"scales along axis {weight.axis} of the weight")
        stored = weight.stored.astype(np.int16) - weight.zero_point
        expected = {"int8": 0, "uint8": 128}.get(weight.stored.dtype.name)
        if expected is None or weight.zero_point != expected or stored.min(initial=0) < -127:
            raise self.unsupported(
                node, "its weight is not quantised symmetrically (int8, zero point 0, no -128)"
            )
        scale = weight.scale.astype(np.float32).reshape(-1)
        steps = self.stored[stream.value.tensor].scale * scale.astype(np.float64)
        whole = np.rint(offset / steps)
        if bias is not None and bias.scale is not None and bias.stored.dtype == np.int32:
            given = bias.scale.astype(np.float64).reshape(-1)
            if np.allclose(given, steps, rtol=1e-5, atol=0.0):
                # of the very scale, one float32 rounding aside
                whole = bias.stored.reshape(-1).astype(np.float64) - bias.zero_point
        if np.abs(whole).max(initial=0) >= 1 << 31:
            raise self.unsupported(node, "a bias that does not fit 32 bits")
        return {
            "weight": stored.astype(np.int8),
            "bias": whole.astype(np.int32),
            "weight_scale": scale,
        }
