"""Convolutions, lowered to the runtime's kernels.

The scratch memory holds a band of widened rows and widened weights: the less there is, the shorter
the band, and the more often weights are widened and loops entered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

from edgeofa.backends.firmware.assembly_mve import VECTOR_BYTES, VECTOR_PAIRS
from edgeofa.backends.firmware.layer import Constant, Field, Kernel, Layer
from edgeofa.backends.firmware.linear import lower_dense
from edgeofa.backends.firmware.packing import (
    QUANT_BYTES,
    Requantization,
    conv_words,
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
from edgeofa.backends.firmware.patches import fitting_patches, patch_fields
from edgeofa.backends.firmware.shapes import ConvShape, Output, chunked, conv_pixels, grouped
from edgeofa.backends.firmware.tiles import TILE, Tiles, fitting_tiles, tile_fields
from edgeofa.graph.ir import Graph, Op
from edgeofa.graph.memory import Lead
from edgeofa.graph.reference import quantization

#: what widening weights may cost, of the layer's work
_OVERHEAD = 0.015
#: cycles to fetch and widen a weight, and of a product in an inner loop
_WEIGHT_CYCLES, _PRODUCT_CYCLES = 2.2, 1.1
#: of a product where a block has one, two or three outputs left, relative to a whole block's four
_REST_CYCLES = (0.0, 1.5, 1.12, 1.0)
#: around a call of an inner loop, and widening's own
_CALL_CYCLES = 30
#: a band is long enough when the layer takes at most this much more than with any longer one
_ENOUGH = 1.05
#: pairs of channels whose weights are widened together, and what they may take: each time, the code
#: that widens and the loops are fetched from flash again
_MOST_PAIRS, _PAIRS_BYTES = 8, 4096
_FEW_PAIRS, _FEW_PAIRS_BYTES = 4, 1024


@dataclass(frozen=True, eq=False)
class _Conv:
    """A convolution's geometry. Rows of outputs; of a pointwise one, whose pixels are one long row,
    single outputs. Sizes of widened input are in words of two int16."""

    graph: Graph
    op: Op
    requant: Requantization

    @cached_property
    def weight_shape(self) -> tuple[int, int, int, int]:
        cout, rows, columns, cin = (int(n) for n in self.op.linear[0].shape)
        return cout, rows, columns, cin

    @property
    def rows(self) -> int:
        """Of the kernel."""
        return self.weight_shape[1]

    @property
    def channels(self) -> tuple[int, int]:
        """In and out."""
        return self.weight_shape[3], self.weight_shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        shape = self.graph.shape(self.op.inputs[0])
        return shape[1], shape[2]

    @property
    def out_size(self) -> tuple[int, int]:
        shape = self.graph.shape(self.op.output)
        return shape[1], shape[2]

    @cached_property
    def pointwise(self) -> bool:
        kernel = self.weight_shape[1:3]
        return kernel == self.op.stride == (1, 1) and not any(self.op.pads)

    @property
    def stored(self) -> int:
        """int16 of a pixel: the inputs of every output must start at a word."""
        cin = self.channels[0]
        return cin if self.op.stride[1] * cin % 2 == 0 else cin + 1

    @property
    def step(self) -> int:
        """Between the inputs of neighbouring outputs."""
        return self.op.stride[1] * self.stored // 2

    @property
    def chunks(self) -> tuple[int, int]:
        """Words of a kernel row, padded to whole chunks, and of a chunk."""
        return chunked(-(-self.weight_shape[2] * self.stored // 2))

    @property
    def pitch(self) -> int:
        """Of a widened row."""
        if self.pointwise:
            return self.step
        _, _, left, right = self.op.pads
        return -(-(left + self.size[1] + right) * self.stored // 2)

    @property
    def outputs(self) -> int:
        """Rows of outputs."""
        height, width = self.out_size
        return height * width if self.pointwise else height

    @property
    def row(self) -> int:
        """Outputs in a row."""
        return 1 if self.pointwise else self.out_size[1]

    def x_words(self, band: int) -> int:
        """Widened input for some rows of outputs."""
        words = self.chunks[0]
        if self.pointwise:
            return (band - 1) * self.step + words
        above = (band - 1) * self.op.stride[0] + self.rows - 1
        return above * self.pitch + max(self.pitch, (self.row - 1) * self.step + words)

    def weight_bytes(self, pairs: int) -> int:
        """Widened weights of some pairs of output channels; vectors, which take int8 as it is, have
        their constants there too."""
        words = self.chunks[0]
        vectors = self.rows * -(-words // VECTOR_PAIRS)
        return pairs * max(8 * self.rows * words, 2 * (VECTOR_BYTES * vectors + QUANT_BYTES))

    def scratch(self, band: int, pairs: int) -> int:
        """Bytes."""
        run = band if self.pointwise else max(self.out_size)
        sums = 8 * run if self.requant.raw else 0
        # half as much input in vectors, but weights start at a whole vector
        x_bytes = max(4 * self.x_words(band), 2 * self.x_words(band) + VECTOR_BYTES)
        return x_bytes + self.weight_bytes(pairs) + sums

    def lead(self, band: int) -> Lead:
        """How the output may lie over the input."""
        (height, width), (cin, cout) = self.size, self.channels

        def read(end: int) -> int:
            if self.pointwise:
                return end * cin
            if end == self.outputs:
                return height * width * cin
            rows = (end - 1) * self.op.stride[0] + self.rows - self.op.pads[0]
            return min(max(rows, 0), height) * width * cin

        return Lead(least_lead(band, self.outputs, self.row * cout, read))


@dataclass(frozen=True)
class _Passes:
    """How a convolution is cut: rows in a pass, pairs of channels whose weights are widened
    together, whether runs of outputs go down columns, outputs in a block, and tiles."""

    band: int
    pairs: int
    upright: bool
    pixels: int
    tiles: Tiles | None


def _rest(run: int) -> float:
    """The share of a run that does not fill a block of four: it is slower."""
    return run % LANES / run


def _run(conv: _Conv, upright: bool) -> tuple[int, int]:
    """Words and output bytes between neighbours of a run."""
    cout = conv.channels[1]
    if upright:
        return conv.op.stride[0] * conv.pitch, conv.row * cout
    return conv.step, cout


def _cycles(conv: _Conv, band: int) -> float:
    """About what the layer takes for each output channel, in passes of ``band`` rows."""
    taps = prod(conv.weight_shape[1:])

    def run(outputs: int) -> float:
        whole, rest = divmod(outputs, LANES)
        products = taps * _PRODUCT_CYCLES * (LANES * whole + rest * _REST_CYCLES[rest])
        return products + _CALL_CYCLES * ((whole > 0) + (rest > 0))

    passes, last = divmod(conv.outputs, band)
    widening = (passes + (last > 0)) * (taps * _WEIGHT_CYCLES + _CALL_CYCLES)
    if conv.pointwise:
        return widening + passes * run(band) + run(last)
    return widening + conv.outputs * run(conv.row)


def _enough(conv: _Conv, most: int) -> int:
    """The shortest band up to ``most`` that is about as fast as any.

    A layer gets its scratch memory whatever the network around it takes: a block that is profiled
    alone, with few activations, has to cost what it costs in a large network.
    """
    cycles = {band: _cycles(conv, band) for band in range(1, most + 1)}
    limit = _ENOUGH * min(cycles.values())
    return min(band for band, spent in cycles.items() if spent <= limit)


def _cut(conv: _Conv, limit: int, strict: bool) -> _Passes:
    """The passes that scratch memory of ``limit`` bytes allows."""
    most_pairs = -(-conv.channels[1] // 2)
    # some pairs of channels come before a longer band, where they take little
    few = min(_FEW_PAIRS, most_pairs)
    if strict or conv.weight_bytes(few) > _FEW_PAIRS_BYTES:
        few = 1
    wanted = ceil(_WEIGHT_CYCLES / (_OVERHEAD * _PRODUCT_CYCLES * conv.row))
    most = min(conv.outputs, wanted)
    if not strict:
        limit = max(limit, ALWAYS_BYTES, conv.scratch(_enough(conv, most), few))
    band = largest_band(limit, most, lambda n: conv.scratch(n, few))
    upright = (
        not conv.pointwise
        and conv.scratch(conv.outputs, 1) <= limit
        and _rest(conv.outputs) < _rest(conv.row)
    )
    if upright:
        band = conv.outputs
    words, chunk = conv.chunks
    unrolled = chunk + (grouped(conv.rows, words, chunk) - 1) * conv.pitch
    pixels = conv_pixels(_run(conv, upright)[0], unrolled, _run(conv, upright)[1])
    if conv.pointwise and band < conv.outputs:
        # only the last pass has a rest
        pixels = min(pixels, band)
        band -= band % pixels
    tiles = None
    if not (conv.pointwise or upright or conv.requant.raw):
        tiles = fitting_tiles(conv.op, conv.graph, conv.pitch, words, limit)
    if tiles is not None:
        band = tiles.rows * TILE
    pairs = max(
        n
        for n in range(1, min(_MOST_PAIRS, most_pairs) + 1)
        if n == 1 or (conv.scratch(band, n) <= limit and conv.weight_bytes(n) <= _PAIRS_BYTES)
    )
    return _Passes(band, pairs, upright, pixels, tiles)


def _kernels(conv: _Conv, passes: _Passes, output: Output | None) -> dict[str, Field]:
    """The inner loops: for whole blocks and for the rest of a run, for two channels and for one."""
    words, chunk = conv.chunks
    step, out_step = _run(conv, passes.upright)
    pixels, cout = passes.pixels, conv.channels[1]

    def kernel(count: int, channels: int) -> Kernel | None:
        if not count or not channels:
            return None
        return ConvShape(
            pixels=count,
            rows=conv.rows,
            words=words,
            chunk=chunk,
            group=grouped(conv.rows, words, chunk),
            pitch=conv.pitch,
            step=step,
            channels=channels,
            out_step=out_step,
            output=output,
        )

    if conv.pointwise:
        run = conv.outputs
        rests = {passes.band % pixels, run % passes.band % pixels}
    else:
        run = conv.outputs if passes.upright else conv.row
        rests = {run % pixels}
    (rest,) = rests - {0} or {0}
    counts = (2 if cout > 1 else 0, cout % 2)
    return {
        "whole": tuple(kernel(pixels if run >= pixels else 0, n) for n in counts),
        "rest": tuple(kernel(rest, n) for n in counts),
    }


def lower_conv(graph: Graph, op: Op, limit: int, *, strict: bool) -> Layer:
    """A convolution.

    Args:
        limit: of its scratch memory, in bytes.
        strict: keep to the limit where a band of one row does, however slow that is.
    """
    qx, qy = quantization(graph, op.inputs[0]), quantization(graph, op.output)
    conv = _Conv(graph, op, requantization(op, qx, qy))
    if conv.pointwise and conv.size == (1, 1):
        return lower_dense(graph, op)
    passes = _cut(conv, limit, strict)
    output, fields = output_of(graph, op, conv.requant.raw)
    (height, width), (cin, cout), words = conv.size, conv.channels, conv.chunks[0]
    struct: dict[str, Field] = {
        "height": height,
        "width": width,
        "channels": cin,
        "out_height": conv.outputs,
        "out_width": conv.out_size[1],
        "out_channels": cout,
        "top": op.pads[0],
        "left": op.pads[2],
        "stride": op.stride[0],
        "kernel_rows": conv.rows,
        "stored": conv.stored,
        "pitch": conv.pitch,
        "step": conv.step,
        "run_step": _run(conv, passes.upright)[0],
        "words": words,
        "pixels": passes.pixels,
        "band": passes.band,
        "upright": int(passes.upright),
        "pairs": passes.pairs,
        "x_words": conv.x_words(passes.band),
        "zero_point": qx.zero_point,
        **fields,
        **_kernels(conv, passes, output),
        **tile_fields(passes.tiles, output),
    }
    scratch_bytes = conv.scratch(passes.band, passes.pairs)
    if passes.tiles is not None:
        by_tiles = 4 * (conv.x_words(passes.band) + passes.tiles.words)
        scratch_bytes = max(scratch_bytes, by_tiles)
    arguments = ["{a}", "{out}", "{scratch}", "{weights}", "{quant}"]
    constants = [
        Constant("weights", "uint32_t", conv_words(op.linear[0], conv.stored, words)),
        Constant("quant", "int32_t", padded_rows(conv.requant.constants, 2)),
    ]
    if not conv.pointwise:
        patches = fitting_patches(
            op,
            graph,
            words=words,
            stored=conv.stored,
            band=passes.band,
            pairs=passes.pairs,
            limit=scratch_bytes,
            strict=strict,
        )
        struct |= patch_fields(patches, output)
        arguments.append("{places}" if patches else "NULL")
        if patches is not None:
            scratch_bytes = max(scratch_bytes, patches.scratch_bytes)
            constants.append(Constant("places", "uint8_t", patches.places))
    return Layer(
        op.name,
        "edgeofa_pointwise" if conv.pointwise else "edgeofa_convolution",
        tuple(arguments),
        ("edgeofa_conv", struct),
        tuple(constants),
        scratch_bytes=scratch_bytes,
        overwrites={0: conv.lead(passes.band)},
    )
