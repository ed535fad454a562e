"""Faults and slow-downs put into real .tflite files, for tests of the regression tests.

Each function takes the path of an int8 .tflite file that edgeofa wrote and returns the content of a
faulty one. Nothing is mocked: the file is a valid model that computes something else, or the same
more slowly.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeofa.backends.litert import pack_model
from edgeofa.regression.cuts import read_tflite

_CODE = schema.BuiltinOperator
_WEIGHTED = (_CODE.CONV_2D, _CODE.DEPTHWISE_CONV_2D, _CODE.FULLY_CONNECTED)


@dataclass(frozen=True)
class Faulty:
    """A file with one fault in the layer of that name."""

    fault: str
    layer: str
    content: bytes


class _File:
    """A model that is about to be spoilt."""

    def __init__(self, path: Path):
        self.model = read_tflite(path)
        self.body = self.model.subgraphs[0]

    def code(self, operator: Any) -> int:
        return int(self.model.operatorCodes[operator.opcodeIndex].builtinCode)

    def layers(self, *codes: int) -> list[Any]:
        return [op for op in self.body.operators if self.code(op) in codes]

    def name(self, operator: Any) -> str:
        return str(self.body.tensors[operator.outputs[0]].name.decode())

    def weight(self, operator: Any) -> np.ndarray[Any, np.dtype[np.int8]]:
        """A copy of the weight; :meth:`store` puts it back."""
        tensor = self.body.tensors[operator.inputs[1]]
        data = self.model.buffers[tensor.buffer].data
        return np.frombuffer(bytes(data), np.int8).reshape(tensor.shape).copy()

    def store(self, operator: Any, value: np.ndarray[Any, Any]) -> None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.model.buffers[self.body.tensors[operator.inputs[1]].buffer] = buffer

    def faulty(self, fault: str, operator: Any) -> Faulty:
        return Faulty(fault, self.name(operator), pack_model(self.model))


def wrong_kernel(path: Path, rng: random.Random) -> Faulty:
    """A depthwise layer with its kernel's rows and columns exchanged."""
    file = _File(path)
    square = [op for op in file.layers(_CODE.DEPTHWISE_CONV_2D) if file.weight(op).shape[1] > 1]
    operator = rng.choice(square)
    file.store(operator, file.weight(operator).transpose(0, 2, 1, 3))
    return file.faulty("wrong kernel", operator)


def wrong_scale(path: Path, rng: random.Random) -> Faulty:
    """A layer whose output is stored with a scale that is 5% too large."""
    file = _File(path)
    operator = rng.choice(file.layers(*_WEIGHTED)[:-1])
    quantization = file.body.tensors[operator.outputs[0]].quantization
    quantization.scale = np.asarray(quantization.scale, np.float32) * np.float32(1.05)
    return file.faulty("wrong scale", operator)


def swapped_channels(path: Path, rng: random.Random) -> Faulty:
    """A layer with the weights of two output channels exchanged."""
    file = _File(path)
    operator = rng.choice(file.layers(*_WEIGHTED))
    axis = 3 if file.code(operator) == _CODE.DEPTHWISE_CONV_2D else 0
    weight = np.moveaxis(file.weight(operator), axis, 0)
    one, other = rng.sample(range(len(weight)), 2)
    weight[[one, other]] = weight[[other, one]]
    file.store(operator, np.moveaxis(weight, 0, axis))
    return file.faulty("swapped channels", operator)


def flipped_bit(path: Path, rng: random.Random) -> Faulty:
    """One of the two top bits of one weight, flipped (-128 is no weight and is left out)."""
    file = _File(path)
    operator = rng.choice(file.layers(*_WEIGHTED))
    weight = file.weight(operator)
    flat = weight.reshape(-1).view(np.uint8)
    while True:
        place, bit = rng.randrange(flat.size), rng.choice((6, 7))
        value = int(flat[place]) ^ (1 << bit)
        if value != 0x80:
            break
    flat[place] = value
    file.store(operator, weight)
    return file.faulty("flipped bit", operator)


FAULTS = (wrong_kernel, wrong_scale, swapped_channels, flipped_bit)


def slowed(path: Path, layer: str, copies: int) -> bytes:
    """The same network with ``copies`` idle operators behind a layer: each is a 1x1 depthwise
    convolution by one, so that every output stays the same, bit for bit."""
    file = _File(path)
    place, operator = next(
        (i, op) for i, op in enumerate(file.body.operators) if file.name(op) == layer
    )
    number = int(operator.outputs[0])
    channels = int(file.body.tensors[number].shape[-1])
    readers = [op for op in file.body.operators if any(int(i) == number for i in op.inputs)]
    code = next(
        i
        for i, c in enumerate(file.model.operatorCodes)
        if int(c.builtinCode) == _CODE.DEPTHWISE_CONV_2D
    )
    idle = []
    source = number
    for copy_number in range(copies):
        sink = copy.copy(file.body.tensors[number])
        sink.name = f"{layer}/idle{copy_number}".encode()
        file.body.tensors.append(sink)
        output = len(file.body.tensors) - 1
        idle.append(_identity(file, source, output, code, channels))
        source = output
    for reader in readers:
        reader.inputs = [source if int(i) == number else int(i) for i in reader.inputs]
    file.body.operators[place + 1 : place + 1] = idle
    return pack_model(file.model)


def _identity(file: _File, source: int, sink: int, code: int, channels: int) -> Any:
    scale = float(np.asarray(file.body.tensors[source].quantization.scale)[0])
    one = np.full((1, 1, 1, channels), 127, np.int8)
    weight_scale = np.full(channels, 1 / 127, np.float32)
    name = f"idle{len(file.body.tensors)}"
    weight = _constant(file, f"{name}/weight", one, weight_scale, 3)
    bias = _constant(file, f"{name}/bias", np.zeros(channels, np.int32), weight_scale * scale, 0)
    options = schema.DepthwiseConv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = options.depthMultiplier = 1
    options.dilationHFactor = options.dilationWFactor = 1
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source, weight, bias], [sink]
    operator.builtinOptionsType = schema.BuiltinOptions.DepthwiseConv2DOptions
    operator.builtinOptions = options
    return operator


def _constant(
    file: _File, name: str, value: np.ndarray[Any, Any], scale: np.ndarray[Any, Any], axis: int
) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    file.model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), list(value.shape)
    tensor.type = schema.TensorType.INT8 if value.dtype == np.int8 else schema.TensorType.INT32
    tensor.buffer = len(file.model.buffers) - 1
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.asarray(scale, np.float32)
    quantization.zeroPoint = np.zeros(len(scale), np.int64)
    quantization.quantizedDimension = axis
    tensor.quantization = quantization
    file.body.tensors.append(tensor)
    return len(file.body.tensors) - 1
