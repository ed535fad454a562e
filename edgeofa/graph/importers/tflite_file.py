"""A .tflite file, read lazily and with bounds: what the importer may ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import DTypeLike

from edgeofa.errors import FileFormatError, UnsupportedOperator
from edgeofa.graph.ir import Array, Quantization, Tensor

_IDENTIFIER = b"TFL3"
_LARGEST_FILE_BYTES = 256 << 20
_MOST_OPERATORS = 4096
_MOST_TENSORS = 4 * _MOST_OPERATORS
_MOST_DIMENSIONS = 6
_MOST_ELEMENTS = 1 << 28
#: operators have at most this many inputs and outputs
_MOST_OPERANDS = 64
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
_DTYPES: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.INT32: np.dtype(np.int32),
}


@dataclass(frozen=True)
class Operator:
    """One operator: its index in the file, its kind as TFLite calls it, its tensors' numbers."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    output: int
    table: Any

    @property
    def place(self) -> str:
        return f"{self.index}.{self.kind.lower()}"

    def input(self, position: int) -> int:
        number = self.optional_input(position)
        if number is None:
            raise FileFormatError(f"input {position} is missing", where=self.place)
        return number

    def optional_input(self, position: int) -> int | None:
        if position >= len(self.inputs) or self.inputs[position] < 0:
            return None
        return self.inputs[position]

    def options(self, kind: type) -> Any:
        """The operator's options as a reader of type ``kind``; all defaults where it has none."""
        reader, table = kind(), self.table
        expected = getattr(schema.BuiltinOptions, kind.__name__)
        if table.BuiltinOptionsType() != expected or table.BuiltinOptions() is None:
            raise FileFormatError(f"no {kind.__name__}", where=self.place)
        options = table.BuiltinOptions()
        reader.Init(options.Bytes, options.Pos)
        return reader


class File:
    """The first subgraph of a .tflite file."""

    def __init__(self, source: Path | bytes):
        if isinstance(source, Path):
            if source.stat().st_size > _LARGEST_FILE_BYTES:
                raise FileFormatError(f"larger than {_LARGEST_FILE_BYTES >> 20} MiB", where=source)
            source = source.read_bytes()
        if len(source) < 8 or source[4:8] != _IDENTIFIER:
            raise FileFormatError("no .tflite file", where="header")
        self._model = schema.Model.GetRootAs(source, 0)
        if self._model.SubgraphsLength() != 1:
            raise UnsupportedOperator(
                f"{self._model.SubgraphsLength()} subgraphs; only one", where="model"
            )
        graph = self._graph = self._model.Subgraphs(0)
        for what, count, most in (
            ("tensors", graph.TensorsLength(), _MOST_TENSORS),
            ("buffers", self._model.BuffersLength(), _MOST_TENSORS),
            ("operators", graph.OperatorsLength(), _MOST_OPERATORS),
            ("operator codes", self._model.OperatorCodesLength(), _MOST_OPERATORS),
        ):
            if count > most:
                raise FileFormatError(f"{count} {what}; at most {most}", where="model")
        if (graph.InputsLength(), graph.OutputsLength()) != (1, 1):
            raise UnsupportedOperator(
                f"{graph.InputsLength()} inputs and {graph.OutputsLength()} outputs; only one each",
                where="model",
            )
        self.input, self.output = self._known(graph.Inputs(0)), self._known(graph.Outputs(0))
        self._refuse_open_sizes()

    def _refuse_open_sizes(self) -> None:
        """The shape of an input says 1 where its signature leaves a size open."""
        tensor = self._graph.Tensors(self.input)
        count = min(tensor.ShapeSignatureLength(), _MOST_DIMENSIONS)
        signature = [int(tensor.ShapeSignature(axis)) for axis in range(count)]
        if any(size < 1 for size in signature[1:]):
            raise UnsupportedOperator(
                f"an input of open size, {signature}",
                where="model",
                hint="convert it with a fixed height and width; only the batch may be open",
            )

    def _known(self, number: int) -> int:
        if not 0 <= number < self._graph.TensorsLength():
            raise FileFormatError(f"no tensor {number}", where="model")
        return int(number)

    def operators(self) -> Iterator[Operator]:
        """The operators in execution order."""
        for index in range(self._graph.OperatorsLength()):
            table = self._graph.Operators(index)
            if table.OpcodeIndex() >= self._model.OperatorCodesLength():
                raise FileFormatError(f"no operator code {table.OpcodeIndex()}", where=str(index))
            code = self._model.OperatorCodes(table.OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = _NAMES.get(number, f"operator code {number}")
            if max(table.InputsLength(), table.OutputsLength()) > _MOST_OPERANDS:
                raise FileFormatError("too many operands", where=f"{index}.{kind}")
            inputs = tuple(int(table.Inputs(i)) for i in range(table.InputsLength()))
            if table.OutputsLength() != 1:
                raise UnsupportedOperator(
                    f"operator {index}, {kind}: {table.OutputsLength()} outputs", where=str(index)
                )
            for number in inputs:
                if number >= 0:
                    self._known(number)
            yield Operator(index, kind, inputs, self._known(table.Outputs(0)), table)

    def shape(self, number: int) -> tuple[int, ...]:
        tensor = self._graph.Tensors(self._known(number))
        if tensor.ShapeLength() > _MOST_DIMENSIONS:
            raise FileFormatError(f"{tensor.ShapeLength()} dimensions", where=f"tensor {number}")
        shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
        if any(size < 1 for size in shape) or prod(shape) > _MOST_ELEMENTS:
            raise FileFormatError(f"shape {shape}", where=f"tensor {number}")
        return shape

    def dtype(self, number: int) -> np.dtype[Any] | None:
        """The stored type; None for one that the graph does not know."""
        return _DTYPES.get(self._graph.Tensors(self._known(number)).Type())

    def activation(self, number: int) -> Tensor:
        """A tensor that an operator writes, or the input: float32, or int8 with one scale;
        batch 1."""
        tensor, where = self._graph.Tensors(self._known(number)), f"tensor {number}"
        shape, dtype = self.shape(number), self.dtype(number)
        if dtype not in (np.int8, np.float32):
            raise UnsupportedOperator(
                "an activation that is neither int8 nor float32",
                where=where,
                hint="quantise the whole model to int8, or leave it in float32",
            )
        if len(shape) < 2 or shape[0] != 1:
            raise UnsupportedOperator(f"shape {shape}; only batch 1", where=where)
        name = tensor.Name()
        label = where if name is None else name[:200].decode("utf-8", errors="replace")
        if dtype == np.float32:
            return Tensor(label, shape)
        scale, zero_point = self._quantization(number)
        if len(scale) != 1 or len(zero_point) != 1:
            raise FileFormatError("an activation needs one scale and zero point", where=where)
        return Tensor(label, shape, Quantization(float(scale[0]), int(zero_point[0])))

    def is_same_in_uint8(self, unsigned: int, signed: int) -> bool:
        """Whether a uint8 tensor stands for the numbers that an int8 one does, 128 added."""
        scale, zero_point = self._quantization(unsigned)
        other, other_zero = self._quantization(signed)
        return bool(
            self.dtype(unsigned) == np.uint8
            and self.dtype(signed) == np.int8
            and len(scale) == len(other) == 1
            and scale[0] == other[0]
            and int(zero_point[0]) - 128 == int(other_zero[0])
        )

    def _quantization(self, number: int) -> tuple[Array, Array]:
        quantization = self._graph.Tensors(number).Quantization()
        if quantization is None or not quantization.ScaleLength():
            raise FileFormatError("no scale", where=f"tensor {number}")
        zero_point = quantization.ZeroPointAsNumpy()
        return (
            np.array(quantization.ScaleAsNumpy(), np.float32),
            np.zeros(1, np.int64) if isinstance(zero_point, int) else np.array(zero_point),
        )

    def constant(self, number: int, dtype: DTypeLike) -> Array:
        """The content of a constant tensor, in its shape."""
        tensor, where = self._graph.Tensors(self._known(number)), f"tensor {number}"
        if self.dtype(number) != np.dtype(dtype):
            raise UnsupportedOperator(f"a constant that is not {np.dtype(dtype)}", where=where)
        if tensor.Buffer() >= self._model.BuffersLength():
            raise FileFormatError(f"no buffer {tensor.Buffer()}", where=where)
        content = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        shape = self.shape(number)
        size = prod(shape) * np.dtype(dtype).itemsize
        if isinstance(content, int) or len(content) != size:
            raise FileFormatError(f"its buffer does not hold {size} bytes", where=where)
        little_endian = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(bytes(content), little_endian).astype(dtype).reshape(shape)

    def weight(self, number: int, rank: int) -> tuple[Array, Array]:
        """A symmetric int8 weight and its scales, one or one for each output channel."""
        weight, where = self.constant(number, np.int8), f"tensor {number}"
        scale, zero_point = self._quantization(number)
        if weight.ndim != rank:
            raise FileFormatError(f"a weight of shape {weight.shape}", where=where)
        if zero_point.any():
            raise UnsupportedOperator("a weight with a zero point", where=where)
        return weight, scale

    def real_weight(self, number: int, rank: int) -> Array:
        """A weight in float32: stored so, or as float16, or as int8 with scales (a file that was
        quantised dynamically)."""
        dtype, where = self.dtype(number), f"tensor {number}"
        if dtype != np.int8:
            kind = np.float16 if dtype == np.float16 else np.float32
            weight = self.constant(number, kind).astype(np.float32)
        else:
            stored, scale = self.weight(number, rank)
            axis = self._graph.Tensors(number).Quantization().QuantizedDimension()
            if len(scale) > 1 and not (0 <= axis < rank and stored.shape[axis] == len(scale)):
                raise FileFormatError(f"{len(scale)} scales of {stored.shape}", where=where)
            shape = [1] * rank
            shape[axis if len(scale) > 1 else 0] = -1
            weight = stored.astype(np.float32) * scale.reshape(shape)
        if weight.ndim != rank:
            raise FileFormatError(f"a weight of shape {weight.shape}", where=where)
        return weight
