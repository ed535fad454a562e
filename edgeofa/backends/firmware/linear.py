"""Convolutions, depthwise convolutions and dense layers, lowered to the runtime's kernels.

Each takes a limit for its scratch memory, which holds a band of widened rows: the tighter it is,
the shorter the band, and the more often weights are widened and loops entered. A strict limit is
kept wherever a band of one row keeps it, another one never below what keeps most layers fast.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

from edgeofa.backends.firmware.assembly_mve import VECTOR_WORDS
from edgeofa.backends.firmware.layer import Constant, Field, Kernel, Layer
from edgeofa.backends.firmware.packing import (
    conv_words,
    dense_words,
    depthwise_data,
    padded_rows,
    requantization,
)
from edgeofa.backends.firmware.shapes import (
    ConvShape,
    DenseShape,
    DepthwiseShape,
    Output,
    SplitShape,
    chunked,
    conv_pixels,
    depthwise_blocks,
    grouped,
)
from edgeofa.backends.firmware.tiles import TILE, fitting_tiles, tile_fields
from edgeofa.graph.int8_kernels import activation_range
from edgeofa.graph.ir import Graph, Op
from edgeofa.graph.memory import Lead
from edgeofa.graph.reference import quantization

#: what widening weights may cost, of the layer's work
_OVERHEAD = 0.015
#: scratch memory that a layer may take in any case, lest it be slow; enough for most, so that a
#: layer costs the same time in a block that is profiled and in a network with more memory
_ALWAYS_BYTES = 7680
#: pairs of channels whose weights are widened together, and what they may take: each time, the code
#: that widens and the loops are fetched from flash again
_MOST_PAIRS, _PAIRS_BYTES = 8, 4096
_FEW_PAIRS, _FEW_PAIRS_BYTES = 4, 1024
#: cycles to fetch and widen a weight, and of a product in an inner loop
_WEIGHT_CYCLES, _PRODUCT_CYCLES = 2.2, 1.1
_LANES = 4
#: sums of merged weights have 24 bits, sign included
_MERGED_SUM = 1 << 23


def _output(graph: Graph, op: Op, raw: bool) -> tuple[Output | None, dict[str, int]]:
    """How the inner loops finish sums, and the same for the layer's description."""
    qy = quantization(graph, op.output)
    low, high = activation_range(op.activation, qy)
    fields = {"raw": int(raw), "out_zero_point": qy.zero_point, "low": low, "high": high}
    return None if raw else Output(qy.zero_point, low, high), fields


def _largest_band(limit: int, most: int, scratch: Callable[[int], int]) -> int:
    """The largest band up to ``most`` whose scratch bytes are within the limit; at least 1."""
    fits, too_large = 1, most + 1
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if scratch(middle) <= limit:
            fits = middle
        else:
            too_large = middle
    return fits


def _least_lead(band: int, outputs: int, written: int, read: Callable[[int], int]) -> int:
    """How far the input must lie above the output so that no pass writes over input that a later
    one still has to widen.

    Args:
        band: rows of outputs in a pass, of ``outputs``; ``written``: bytes of a row.
        read: bytes of the input that are widened once the first n rows of outputs can be computed.
    """
    ends = [*range(band, outputs, band), outputs]
    return max(int(end * written - read(end)) for end in ends)


def lower_dense(graph: Graph, op: Op) -> Layer:
    """A dense layer, or a 1x1 convolution of one pixel."""
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    weight, bias = op.linear
    weight = weight.reshape(len(bias), -1)
    outputs, inputs = (int(n) for n in weight.shape)
    words, chunk = chunked(-(-inputs // 2))
    requant = requantization(op, qx, qy)
    output, fields = _output(graph, op, requant.raw)
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
    sums = padded_rows(bias, _LANES).size if requant.raw else 0
    return Layer(
        op.name,
        "edgeofa_fully_connected",
        ("{a}", "{out}", "{scratch}", "{weights}", "{quant}"),
        ("edgeofa_dense", struct),
        (
            Constant("weights", "uint32_t", dense_words(weight, words, merged)),
            Constant("quant", "int32_t", padded_rows(requant.constants, _LANES)),
        ),
        scratch_bytes=4 * (words + sums),
        overwrites={0: Lead(0)},
    )


def _rest(run: int) -> float:
    """The share of a run that does not fill a block of four: it is slower."""
    return run % _LANES / run


def lower_conv(graph: Graph, op: Op, limit: int, *, strict: bool) -> Layer:
    """A convolution."""
    weight, _ = op.linear
    cout, kernel_rows, kernel_width, cin = (int(n) for n in weight.shape)
    _, height, width, _ = graph.shape(op.inputs[0])
    _, out_height, out_width, _ = graph.shape(op.output)
    pointwise = (kernel_rows, kernel_width, op.stride) == (1, 1, (1, 1)) and not any(op.pads)
    if pointwise and height * width == 1:
        return lower_dense(graph, op)
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    down, along = op.stride
    top, _, left, right = op.pads
    # the inputs of every output must start at a word
    stored = cin if along * cin % 2 == 0 else cin + 1
    step = along * stored // 2
    words, chunk = chunked(-(-kernel_width * stored // 2))
    # what vectors read of a row, weights beyond the last word being zero
    reach = -(-words // VECTOR_WORDS) * VECTOR_WORDS
    pitch = -(-(left + width + right) * stored // 2)
    requant = requantization(op, qx, qy)
    run = height * width if pointwise else out_width
    if pointwise:
        out_height, pitch = run, step

    def x_words(band: int) -> int:
        if pointwise:
            return (band - 1) * step + reach
        return ((band - 1) * down + kernel_rows - 1) * pitch + max(
            pitch, (out_width - 1) * step + reach
        )

    def scratch(band: int, pairs: int = 1) -> int:
        raw_sums = 2 * (band if pointwise else max(out_height, out_width)) if requant.raw else 0
        return 4 * (x_words(band) + 2 * pairs * kernel_rows * reach + raw_sums)

    per_row = 1 if pointwise else out_width
    wanted = min(out_height, ceil(_WEIGHT_CYCLES / (_OVERHEAD * _PRODUCT_CYCLES * per_row)))
    # some pairs of channels come before a longer band, where they take little
    few = min(_FEW_PAIRS, -(-cout // 2))
    if strict or scratch(0, few) - scratch(0, 0) > _FEW_PAIRS_BYTES:
        few = 1
    if not strict:
        limit = max(limit, _ALWAYS_BYTES)
    band = _largest_band(limit, wanted, lambda n: scratch(n, few))
    group = grouped(kernel_rows, words, chunk)
    upright = (
        not pointwise and scratch(out_height) <= limit and _rest(out_height) < _rest(out_width)
    )
    if upright:
        band, run = out_height, out_height
    run_step, run_out = (down * pitch, out_width * cout) if upright else (step, cout)
    pixels = conv_pixels(run_step, chunk + (group - 1) * pitch, run_out)
    if pointwise and band < out_height:
        # only the last pass has a rest
        pixels = min(pixels, band)
        band -= band % pixels
    tiles = None
    if not (pointwise or upright or requant.raw):
        tiles = fitting_tiles(op, graph, pitch, words, limit)
    if tiles is not None:
        band = tiles.rows * TILE
    pairs = max(
        n
        for n in range(1, min(_MOST_PAIRS, -(-cout // 2)) + 1)
        if n == 1 or (scratch(band, n) <= limit and scratch(0, n) - scratch(0, 0) <= _PAIRS_BYTES)
    )
    output, fields = _output(graph, op, requant.raw)

    def kernel(count: int, channels: int) -> Kernel | None:
        if not count:
            return None
        return ConvShape(
            pixels=count,
            rows=kernel_rows,
            words=words,
            chunk=chunk,
            group=group,
            pitch=pitch,
            step=run_step,
            channels=channels,
            out_step=run_out,
            output=output,
        )

    rest = {run % pixels} if not pointwise else {band % pixels, run % band % pixels}
    (tail,) = rest - {0} or {0}
    whole = pixels if run >= pixels else 0
    scratch_bytes = scratch(band, pairs)
    if tiles is not None:
        scratch_bytes = max(scratch_bytes, 4 * (x_words(band) + tiles.words))
    channel_counts = (2 if cout > 1 else 0, cout % 2)
    struct: dict[str, Field] = {
        "height": height,
        "width": width,
        "channels": cin,
        "out_height": out_height,
        "out_width": out_width,
        "out_channels": cout,
        "top": top,
        "left": left,
        "stride": down,
        "kernel_rows": kernel_rows,
        "stored": stored,
        "pitch": pitch,
        "step": step,
        "run_step": run_step,
        "words": words,
        "pixels": pixels,
        "band": band,
        "upright": int(upright),
        "pairs": pairs,
        "x_words": x_words(band),
        "zero_point": qx.zero_point,
        **fields,
        "whole": tuple(kernel(whole, n) if n else None for n in channel_counts),
        "rest": tuple(kernel(tail, n) if n else None for n in channel_counts),
        **tile_fields(tiles, output),
    }

    def read(end: int) -> int:
        if pointwise:
            return end * cin
        rows = (end - 1) * down + kernel_rows - top
        return (
            min(max(rows, 0), height) * width * cin
            if end < out_height
            else prod((height, width, cin))
        )

    written = cout if pointwise else out_width * cout
    return Layer(
        op.name,
        "edgeofa_pointwise" if pointwise else "edgeofa_convolution",
        ("{a}", "{out}", "{scratch}", "{weights}", "{quant}"),
        ("edgeofa_conv", struct),
        (
            Constant("weights", "uint32_t", conv_words(weight, stored, words)),
            Constant("quant", "int32_t", padded_rows(requant.constants, 2)),
        ),
        scratch_bytes=scratch_bytes,
        overwrites={0: Lead(_least_lead(band, out_height, written, read))},
    )


def lower_depthwise(graph: Graph, op: Op, limit: int, *, strict: bool) -> Layer:
    """A depthwise convolution."""
    weight, _ = op.linear
    _, kernel_height, kernel_width, channels = (int(n) for n in weight.shape)
    _, height, width, _ = graph.shape(op.inputs[0])
    _, out_height, out_width, _ = graph.shape(op.output)
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    down, along = op.stride
    top, _, left, right = op.pads
    pitch = -(-(left + width + right) // 2)
    requant = requantization(op, qx, qy)
    output, fields = _output(graph, op, requant.raw)

    def plane(band: int) -> int:
        return ((band - 1) * down + kernel_height) * pitch

    def scratch(band: int) -> int:
        return 4 * (_LANES * plane(band) + (band * out_width if requant.raw else 0))

    if not strict:
        limit = max(limit, _ALWAYS_BYTES)
    band = _largest_band(limit, out_height, scratch)
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
        "split": (split if channels % _LANES == 0 else None,),
        "kernel": (*kernels, *[None] * (2 - len(kernels))),
    }

    def read(end: int) -> int:
        # a channel's slots: other channels are neither read nor written by its passes
        if end == out_height:
            return height * width
        return min(max((end - 1) * down + kernel_height - top, 0), height) * width

    lead = _least_lead(band, out_height, out_width, read)
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
