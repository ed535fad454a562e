"""The back end ``tvm``: schedules of our own, compiled by TVM's LLVM to a library for one core."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from edgeofa.backends.base import Backend, TensorSpec
from edgeofa.backends.tvm.fuse import fuse
from edgeofa.backends.tvm.installed import VERSIONS
from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.library import link
from edgeofa.backends.tvm.machine import Machine, host_machine, machine_for
from edgeofa.backends.tvm.program import (
    Arrangement,
    Choose,
    arrange,
    default_config,
    make_program,
)
from edgeofa.backends.tvm.templates import Config, checked
from edgeofa.graph.ir import Graph, Tensor
from edgeofa.targets import Target
from edgeofa.tuning.records import records_digest, tuned


class TvmBackend(Backend):
    """Writes a shared library that the native runner loads.

    Args:
        machine: what code is for; this computer by default, see :meth:`for_target`.
        choose: the configuration of each kernel; by default the tuned one where there is a record
            of it, else the template's guess.
    """

    name = "tvm"
    suffix = ".so"
    exact = True
    is_parallel = False

    def __init__(self, machine: Machine | None = None, choose: Choose | None = None):
        self._machine = machine
        self._choose = choose

    @property
    def machine(self) -> Machine:
        """What code is generated for."""
        return self._machine or host_machine()

    def for_target(self, target: Target) -> TvmBackend:
        return TvmBackend(machine_for(target), self._choose)

    def version(self) -> str:
        """TVM's version, a digest of the schedules and one of the records of tuning: all decide
        what code comes out."""
        records = records_digest(self.machine.key) if self._choose is None else "own"
        return f"{VERSIONS['apache-tvm']}+{templates_digest()}.{records}"

    def config(self, kernel: Kernel) -> Config:
        """What a kernel is made with."""
        return self._choose(kernel) if self._choose else tuned_config(kernel, self.machine)

    def arrangement(self, graph: Graph) -> Arrangement:
        """The graph's kernels, with their configurations and memory."""
        return arrange(graph, self.machine, self.config)

    def serialize(self, graph: Graph) -> bytes:
        return link(make_program(self.arrangement(graph)), self.machine)

    def memory(self, graph: Graph) -> tuple[int, int]:
        plan = self.arrangement(graph)
        return plan.weight_bytes, plan.arena_bytes

    def specs(self, graph: Graph) -> tuple[TensorSpec, TensorSpec]:
        return _spec(graph.input_tensor), _spec(graph.output_tensor)

    def kernels(self, graph: Graph) -> tuple[Kernel, ...]:
        """The kernels that compute a graph, each once, in order."""
        return tuple(dict.fromkeys(call.kernel for call in fuse(graph, self.machine)))


def tuned_config(kernel: Kernel, machine: Machine) -> Config:
    """The configuration on record where it is one of the kernel's, else the template's guess."""
    recorded = tuned(machine.key, kernel.plain.key)
    known = None if recorded is None else checked(recorded, kernel, machine)
    return known or default_config(kernel, machine)


@cache
def templates_digest() -> str:
    """Digest of everything here that decides what code is generated."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:8]


def _spec(tensor: Tensor) -> TensorSpec:
    layout = "NHWC" if len(tensor.shape) == 4 else "NC"
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, layout, tensor.quantization)
