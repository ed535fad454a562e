"""What a schedule is here: a template that writes a kernel's loops, steered by a few knobs.

A configuration (one value for each knob) is a line that a person can read; a tuned one differs from
the default in nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import Machine
from edgeofa.errors import UnsupportedOperator
from edgeofa.graph.ir import Array, Op, Quantization

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

Config = Mapping[str, int | str]
Knobs = Mapping[str, tuple[int | str, ...]]


@dataclass(frozen=True, eq=False)
class Call:
    """A kernel with its operands, from a graph.

    Attributes:
        op: the operator, weights included.
        residual: the sum that is fused behind it, else None.
        inputs: tensor numbers; the second one is the residual's other operand where there is one.
        quantizations: of ``inputs``, in an int8 graph; of the operator's own output (``between``)
            and of what the kernel writes (``result``): they differ only with a residual.
    """

    kernel: Kernel
    op: Op
    residual: Op | None
    inputs: tuple[int, ...]
    output: int
    quantizations: tuple[Quantization, ...] = ()
    between: Quantization | None = None
    result: Quantization | None = None


class Template(ABC):
    """Loops for a family of kernels.

    The function that it writes takes pointers: the inputs, then :meth:`constants`, then scratch
    memory where :meth:`scratch_bytes` is not 0, then the output. All are aligned to 64 bytes, and
    at least 64 bytes beyond each of them can be read where it ``reads_beyond``.
    """

    #: it may read up to 64 bytes beyond an input's end
    reads_beyond: bool = True

    @abstractmethod
    def accepts(self, kernel: Kernel, machine: Machine) -> bool:
        """Whether it can write this kernel for this machine."""

    @abstractmethod
    def knobs(self, kernel: Kernel, machine: Machine) -> Knobs:
        """The values that each knob can take, in a fixed order."""

    @abstractmethod
    def default(self, kernel: Kernel, machine: Machine) -> Config:
        """A good guess: what an untuned kernel is made with."""

    def statics(self, call: Call) -> tuple[int, ...]:  # noqa: ARG002 - the contract
        """Numbers of the operands that go into the code itself, such as zero points."""
        return ()

    @abstractmethod
    def function(
        self, kernel: Kernel, machine: Machine, config: Config, statics: tuple[int, ...], name: str
    ) -> PrimFunc:
        """The kernel's code under ``name``."""

    @abstractmethod
    def constants(self, call: Call, machine: Machine, config: Config) -> Sequence[Array]:
        """Weights and the like, as the function reads them."""

    def scratch_bytes(self, kernel: Kernel, machine: Machine, config: Config) -> int:  # noqa: ARG002
        """Memory that the function needs while it runs."""
        return 0


#: modules whose ``TEMPLATES`` are looked through, in this order
_MODULES = (
    "edgeofa.backends.tvm.float_conv",
    "edgeofa.backends.tvm.float_depthwise",
    "edgeofa.backends.tvm.float_simple",
    "edgeofa.backends.tvm.int8_templates",
    "edgeofa.backends.tvm.int8_elementwise",
    "edgeofa.backends.tvm.int8_pool",
    "edgeofa.backends.tvm.int8_softmax",
)


@cache
def _templates() -> tuple[Template, ...]:
    found: list[Template] = []
    for name in _MODULES:
        found += import_module(name).TEMPLATES
    return tuple(found)


def template_for(kernel: Kernel, machine: Machine) -> Template:
    """The template that writes a kernel; ``UnsupportedOperator`` where none does."""
    for template in _templates():
        if template.accepts(kernel, machine):
            return template
    raise UnsupportedOperator(
        f"no schedule for {kernel.key}", where=machine.key, hint="another back end may take it"
    )


def checked(config: Mapping[str, Any], kernel: Kernel, machine: Machine) -> Config | None:
    """A configuration from a record, or None where it is not one of this kernel's."""
    knobs = template_for(kernel, machine).knobs(kernel, machine)
    if config.keys() != knobs.keys() or any(config[k] not in knobs[k] for k in knobs):
        return None
    return dict(config)
