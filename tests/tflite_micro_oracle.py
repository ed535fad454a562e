"""tflite-micro as an independent judge of int8 graphs: the same .tflite, its reference kernels."""

from __future__ import annotations

import numpy as np
import pytest

from edgeofa.graph.ir import Array, Graph


def tflite_micro_tensors(graph: Graph, x: Array) -> dict[int, Array]:
    """Every activation of one int8 inference (batch 1) as tflite-micro computes it.

    The LiteRT writer keeps the graph's tensor numbers, which is how they are found again.
    """
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    litert = pytest.importorskip("edgeofa.backends.litert")
    content = litert.LiteRtBackend().serialize(graph)
    # all tensors stay allocated: nothing may overlap, plus room for scratch buffers
    arena = 4 * sum(t.nbytes + 512 for t in graph.tensors) + 4 * len(content) + (1 << 20)
    interpreter = runtime.Interpreter.from_bytes(
        content,
        arena_size=arena,
        intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
    )
    interpreter.set_input(x, 0)
    interpreter.invoke()
    return {
        number: np.array(interpreter.GetTensor(number, 0)["tensor_data"])
        for number in range(len(graph.tensors))
    }
