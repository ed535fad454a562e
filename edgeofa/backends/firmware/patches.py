"""Convolutions of short kernel rows, for vectors: what each output reads, gathered into one row.

A vector takes sixteen inputs of a kernel row; of three colours or one, a row has fewer. Where rows
leave many lanes empty, the runtime copies the inputs of some outputs one kernel row after the other
("im2col"), once for all channels, and the products are a pointwise convolution's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeofa.backends.firmware.assembly_mve import VECTOR_BYTES, VECTOR_PAIRS
from edgeofa.backends.firmware.layer import Field
from edgeofa.backends.firmware.packing import QUANT_BYTES, widened_order
from edgeofa.backends.firmware.shapes import ConvShape, Output
from edgeofa.graph.ir import Array, Graph, Op

#: outputs that a pass takes at least, and a block
_LEAST_OUTPUTS, _BLOCK = 32, 4
#: channels that pay for copying
_LEAST_CHANNELS = 16
#: share of the usual way's vectors that is few enough
_FEWER = 0.5
#: of a pair of channels' packed weights: places in them are bytes
_MOST_PLACES = 256


@dataclass(frozen=True, eq=False)
class Patches:
    """``outputs`` in a pass, ``vectors`` of inputs for each; ``pitch`` bytes of a row of the band,
    ``step`` between neighbouring outputs' inputs; ``places`` of the first channel's weights among
    a pair's packed ones, uint8 (inputs,)."""

    outputs: int
    vectors: int
    pitch: int
    step: int
    scratch_bytes: int
    channels: int
    places: Array


def fitting_patches(
    op: Op,
    graph: Graph,
    *,
    words: int,
    stored: int,
    band: int,
    pairs: int,
    limit: int,
    strict: bool,
) -> Patches | None:
    """The passes within ``limit`` bytes of scratch memory, or the shortest ones; None where the
    usual way is as good.

    Args:
        words, stored: of a packed kernel row, and int16 of a pixel in it.
        band: rows of outputs that are prepared together.
        strict: take no more memory than needs be.
    """
    weight, _ = op.linear
    cout, rows, columns, cin = (int(n) for n in weight.shape)
    _, out_height, out_width, _ = graph.shape(op.output)
    vectors = -(-rows * columns * cin // VECTOR_BYTES)
    last = (out_height % band or band) * out_width
    fewer = vectors <= _FEWER * rows * -(-words // VECTOR_PAIRS)
    packed = 4 * rows * words <= _MOST_PLACES
    if not (fewer and packed and cout >= _LEAST_CHANNELS and cout % 2 == 0 and last >= _BLOCK):
        return None
    _, _, left, right = op.pads
    pitch = (left + graph.shape(op.inputs[0])[2] + right) * cin
    pitch += pitch % 2
    fixed = ((band - 1) * op.stride[0] + rows) * pitch + VECTOR_BYTES
    fixed += pairs * 2 * (VECTOR_BYTES * vectors + QUANT_BYTES)
    each = VECTOR_BYTES * vectors
    most = -(-band * out_width // _BLOCK) * _BLOCK
    least = _BLOCK if strict else _LEAST_OUTPUTS
    outputs = max((limit - fixed) // each // _BLOCK * _BLOCK, least)
    outputs = min(outputs, most)
    return Patches(
        outputs,
        vectors,
        pitch,
        op.stride[1] * cin,
        fixed + outputs * each,
        cout,
        _places(rows, columns, cin, words, stored),
    )


def _places(rows: int, columns: int, cin: int, words: int, stored: int) -> Array:
    """A pair of channels' packed rows are words (o k, o' k, o k', o' k') of inputs k: for each
    input, in natural order, the byte of its weight of o."""
    numbers = widened_order(np.arange(columns * cin).reshape(columns, cin))
    packed = np.pad(numbers, [(0, 0), (0, stored - cin)], constant_values=-1).ravel()
    place = np.empty(columns * cin, np.int64)
    place[packed[packed >= 0]] = np.flatnonzero(packed >= 0)
    return (2 * place + 4 * words * np.arange(rows)[:, np.newaxis]).astype(np.uint8).ravel()


def patch_fields(patches: Patches | None, output: Output | None) -> dict[str, Field]:
    """Of a convolution's description."""
    if patches is None or output is None:
        return {"patch_products": (None,)}
    words = VECTOR_PAIRS * patches.vectors
    products = ConvShape(
        pixels=_BLOCK,
        rows=1,
        words=words,
        chunk=1,
        group=1,
        pitch=words,
        step=words,
        channels=2,
        out_step=patches.channels,
        output=output,
        level="mve",
    )
    return {
        "patch_products": (products,),
        "patch_outputs": patches.outputs,
        "patch_inputs": len(patches.places),
        "patch_pitch": patches.pitch,
        "patch_step": patches.step,
    }
