"""The text by which a library of the TVM back end tells what it takes and gives.

    edgeofa-tvm 1
    input float32 1 224 224 3
    output float32 1 1000
    operators 53

It is the exported symbol ``edgeofa_interface``; the native runner reads it there (see
targets/runtime/linux/runtime_tvm.c), and Python finds it among the bytes of the file, so that a
library for another machine can be read too and nothing is loaded for it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeofa.errors import FileFormatError

#: of the C string
SYMBOL = "edgeofa_interface"
_MAGIC = "edgeofa-tvm 1\n"
_TEXT = re.compile(rb"edgeofa-tvm 1\n((?:[a-z]{1,16} [ -~]{1,200}\n){1,32})")
_TENSOR = re.compile(r"(float32|int8|uint8)((?: [1-9][0-9]{0,8}){1,8})")
_MAX_TENSOR_BYTES = 1 << 30


@dataclass(frozen=True)
class Tensor:
    """An input or output; its memory is the caller's."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Interface:
    """``operators``: how many kernels an invoke starts."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: int

    @property
    def text(self) -> str:
        """What the symbol holds, without its end."""
        lines = [f"input {_tensor_text(t)}\n" for t in self.inputs]
        lines += [f"output {_tensor_text(t)}\n" for t in self.outputs]
        return _MAGIC + "".join(lines) + f"operators {self.operators}\n"


def read_interface(path: Path) -> Interface:
    """The interface of a library; ``FileFormatError`` where it is none of this back end."""
    found = _TEXT.search(path.read_bytes())
    if found is None:
        raise FileFormatError("not a library of edgeofa's TVM back end", where=path)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    operators: int | None = None
    for line in found[1].decode().splitlines():
        key, _, value = line.partition(" ")
        if key in ("input", "output"):
            (inputs if key == "input" else outputs).append(_parse_tensor(value, path))
        elif key == "operators" and re.fullmatch("[0-9]{1,6}", value):
            operators = int(value)
    if not inputs or not outputs or operators is None:
        raise FileFormatError("its interface has no input, output or operators", where=path)
    return Interface(tuple(inputs), tuple(outputs), operators)


def _tensor_text(tensor: Tensor) -> str:
    return " ".join([tensor.dtype, *map(str, tensor.shape)])


def _parse_tensor(value: str, path: Path) -> Tensor:
    match = _TENSOR.fullmatch(value)
    if match is None:
        raise FileFormatError(f"its interface says {value[:60]!r}", where=path)
    tensor = Tensor(match[1], tuple(map(int, match[2].split())))
    if tensor.bytes > _MAX_TENSOR_BYTES:
        raise FileFormatError(f"a tensor of {tensor.bytes} bytes", where=path)
    return tensor
