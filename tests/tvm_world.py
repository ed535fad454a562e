"""Runs libraries of the TVM back end in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeofa.backends.tvm.backend import TvmBackend
from edgeofa.backends.tvm.machine import MACHINES, host_machine
from edgeofa.backends.tvm.program import Choose
from edgeofa.graph.ir import Array, Graph


def runnable() -> list[str]:
    """Keys of the machines whose code this processor runs."""
    own = host_machine().key
    order = ["x86-64-avx2", "x86-64-avx512", "x86-64-avx512-vnni"]
    return order[: order.index(own) + 1] if own in order else [own]


def run_library(
    graph: Graph,
    x: Array,
    folder: Path,
    machine: str | None = None,
    choose: Choose | None = None,
) -> Array:
    """Output of the compiled graph for one input as stored."""
    import tvm
    import tvm_ffi

    backend = TvmBackend(MACHINES[machine] if machine else None, choose)
    path = folder / f"{graph.name[:40].replace('/', '-')}-{machine}.so"
    backend.compile(graph, path)
    main = tvm_ffi.load_module(str(path))["main"]
    given = tvm.runtime.tensor(np.ascontiguousarray(x))
    shape, dtype = graph.output_tensor.shape, graph.output_tensor.dtype
    taken = tvm.runtime.tensor(np.full(shape, 77, dtype))
    main(given, taken)
    return taken.numpy()
