"""What int8 templates ask of a machine and of a call."""

from __future__ import annotations

from edgeofa.backends.tvm.int8_isa import Isa
from edgeofa.backends.tvm.int8_neon import Neon, NeonDot
from edgeofa.backends.tvm.int8_x86 import Madd, Vnni
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.templates import Call
from edgeofa.errors import UsageError
from edgeofa.graph.int8_kernels import activation_range
from edgeofa.graph.ir import Activation, Quantization


def isa_of(machine: Machine) -> Isa:
    """The instructions that a machine's int8 kernels are written with."""
    match machine.dot:
        case "mlal":
            return Neon()
        case "sdot":
            return NeonDot()
        case "vnni":
            return Vnni(machine.lanes(4))
        case "none":
            return Madd(machine.lanes(4))


def quantizations(call: Call) -> tuple[Quantization, Quantization, Quantization]:
    """Of the input, between operator and residual, and of the result."""
    if not call.quantizations or call.between is None or call.result is None:
        raise UsageError("an int8 kernel needs quantised tensors", where=call.op.name)
    return call.quantizations[0], call.between, call.result


def activation_limits(activation: Activation, q: Quantization) -> tuple[int, int, int]:
    """Zero point, smallest and largest stored value."""
    return (q.zero_point, *activation_range(activation, q))
