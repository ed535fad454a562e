"""Operators with one obvious way to be computed, in any precision: they have no knobs."""

from __future__ import annotations

from math import prod

from edgeofa.backends.tvm.emit import Buffer, Emitter
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Config, Knobs, Template
from edgeofa.graph.ir import DType


class Simple(Template):
    """A template of some ``kinds`` in one ``dtype``, for every machine."""

    dtype: DType
    kinds: tuple[str, ...]

    def accepts(self, kernel: Kernel, machine: Machine) -> bool:  # noqa: ARG002 - any machine
        return kernel.dtype == self.dtype and kernel.kind in self.kinds and kernel.residual is None

    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:  # noqa: ARG002 - there are none
        return {}

    def default(self, kernel: Kernel, machine: Machine) -> Config:  # noqa: ARG002
        return {}


def operands(e: Emitter, kernel: Kernel) -> list[Buffer]:
    """The function's first arguments: its input, and the other operand where there is one."""
    found = [e.parameter("x", prod(kernel.input), kernel.dtype)]
    if kernel.other != "none":
        counts = {"same": prod(kernel.input), "channel": kernel.input[-1], "scalar": 1}
        found.append(e.parameter("other", counts[kernel.other], kernel.dtype))
    return found
