"""Dense layers and depthwise convolutions, lowered to the runtime's kernels."""

from __future__ import annotations

from edgeofa.backends.firmware.assembly_mve_simple import OVERREAD_BYTES
from edgeofa.backends.firmware.layer import Constant, Field, Layer
from edgeofa.backends.firmware.packing import (
    dense_words,
    depthwise_data,
    padded_rows,
    requantization,
)
from edgeofa.backends.firmware.passes import (
    ALWAYS_BYTES,
    LANES,
    largest_band,
    least_lead,
    output_of,
)
from edgeofa.backends.firmware.shapes import (
    DenseShape,
    DepthwiseShape,
    SplitShape,
    chunked,
    depthwise_blocks,
)
from edgeofa.graph.ir import Graph, Op
from edgeofa.graph.memory import Lead
from edgeofa.graph.reference import quantization

#: sums of merged weights have 24 bits, sign included
_MERGED_SUM = 1 << 23


def lower_dense(graph: Graph, op: Op) -> Layer:
    """A dense layer, or a 1x1 convolution of one pixel."""
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    weight, bias = op.linear
    weight = weight.reshape(len(bias), -1)
    outputs, inputs = (int(n) for n in weight.shape)
    words, chunk = chunked(-(-inputs // 2))
    requant = requantization(op, qx, qy)
    output, fields = output_of(graph, op, requant.raw)
    largest = max(127 - qx.zero_point, qx.zero_point + 128)
    merged = int(abs(weight.astype(int)).sum(axis=1).max()) * largest < _MERGED_SUM
    struct: dict[str, Field] = {
        "inputs": inputs,
        "outputs": outputs,
        "words": words,
        "zero_point": qx.zero_point,
        **fields,
        "kernel": (DenseShape(words, chunk, merged, output),),
    }
    sums = padded_rows(bias, LANES).size if requant.raw else 0
    return Layer(
        op.name,
        "edgeofa_fully_connected",
        ("{a}", "{out}", "{scratch}", "{weights}", "{quant}"),
        ("edgeofa_dense", struct),
        (
            Constant("weights", "uint32_t", dense_words(weight, words, merged)),
            Constant("quant", "int32_t", padded_rows(requant.constants, LANES)),
        ),
        scratch_bytes=4 * (words + sums),
        overwrites={0: Lead(0)},
    )


def lower_depthwise(graph: Graph, op: Op, limit: int, *, strict: bool) -> Layer:
    """A depthwise convolution.

    Args:
        limit: of its scratch memory, in bytes: planes of four channels, for a band of rows.
        strict: keep to the limit where a band of one row does, however slow that is.
    """
    weight, _ = op.linear
    _, kernel_height, kernel_width, channels = (int(n) for n in weight.shape)
    _, height, width, _ = graph.shape(op.inputs[0])
    _, out_height, out_width, _ = graph.shape(op.output)
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    down, along = op.stride
    top, _, left, right = op.pads
    pitch = -(-(left + width + right) // 2)
    requant = requantization(op, qx, qy)
    output, fields = output_of(graph, op, requant.raw)

    def plane(band: int) -> int:
        return ((band - 1) * down + kernel_height) * pitch

    def scratch(band: int) -> int:
        sums = band * out_width if requant.raw else 0
        return 4 * (LANES * plane(band) + sums) + OVERREAD_BYTES

    if not strict:
        limit = max(limit, ALWAYS_BYTES)
    band = largest_band(limit, out_height, scratch)
    out_step = 4 if requant.raw else channels
    blocks = depthwise_blocks(out_width, out_step)
    kernels = [
        DepthwiseShape(
            block,
            count,
            kernel_height,
            kernel_width,
            along,
            pitch,
            down * pitch,
            out_step,
            out_width * out_step,
            output,
        )
        for block, count in blocks
    ]
    columns = blocks[0][0] * blocks[0][1]
    pair = -qx.zero_point & 0xFFFF
    split = SplitShape(width, channels, left, pitch, plane(band), pair | pair << 16)
    data = depthwise_data(weight, along, requant.constants)
    struct: dict[str, Field] = {
        "height": height,
        "width": width,
        "channels": channels,
        "out_height": out_height,
        "out_width": out_width,
        "top": top,
        "left": left,
        "stride": down,
        "kernel_rows": kernel_height,
        "pitch": pitch,
        "plane": plane(band),
        "band": band,
        "columns": columns,
        "rest": columns * along // 2,
        "channel": data.shape[1],
        "zero_point": qx.zero_point,
        **fields,
        "split": (split if channels % LANES == 0 else None,),
        "kernel": (*kernels, *[None] * (2 - len(kernels))),
    }

    def read(end: int) -> int:
        # a channel's slots: other channels are neither read nor written by its passes
        if end == out_height:
            return height * width
        return min(max((end - 1) * down + kernel_height - top, 0), height) * width

    lead = least_lead(band, out_height, out_width, read)
    return Layer(
        op.name,
        "edgeofa_depthwise_convolution",
        ("{a}", "{out}", "{scratch}", "{weights}"),
        ("edgeofa_depthwise", struct),
        (Constant("weights", "int32_t", data),),
        scratch_bytes=scratch(band),
        # channels must stay among themselves: over the input exactly, or not at all
        overwrites={0: Lead(0, 0)} if lead <= 0 else {},
    )
