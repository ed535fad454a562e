"""What layers with weights have in common: how sums are finished, bands, and what may overlap."""

from __future__ import annotations

from collections.abc import Callable

from edgeofa.backends.firmware.shapes import Output
from edgeofa.graph.int8_kernels import activation_range
from edgeofa.graph.ir import Graph, Op
from edgeofa.graph.reference import quantization

#: scratch memory that a layer may take in any case, lest it be slow; enough for most, so that a
#: layer costs the same time in a block that is profiled and in a network with more memory
ALWAYS_BYTES = 7680
#: values that some loops take at once
LANES = 4


def output_of(graph: Graph, op: Op, raw: bool) -> tuple[Output | None, dict[str, int]]:
    """How the inner loops finish sums, and the same for the layer's description."""
    qy = quantization(graph, op.output)
    low, high = activation_range(op.activation, qy)
    fields = {"raw": int(raw), "out_zero_point": qy.zero_point, "low": low, "high": high}
    return None if raw else Output(qy.zero_point, low, high), fields


def largest_band(limit: int, most: int, scratch: Callable[[int], int]) -> int:
    """The largest band up to ``most`` whose scratch bytes are within the limit; at least 1."""
    fits, too_large = 1, most + 1
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if scratch(middle) <= limit:
            fits = middle
        else:
            too_large = middle
    return fits


def least_lead(band: int, outputs: int, written: int, read: Callable[[int], int]) -> int:
    """How far the input must lie above the output so that no pass writes over input that a later
    one still has to widen.

    Args:
        band: rows of outputs in a pass, of ``outputs``; ``written``: bytes of a row.
        read: bytes of the input that are widened once the first n rows of outputs can be computed.
    """
    ends = [*range(band, outputs, band), outputs]
    return max(int(end * written - read(end)) for end in ends)
