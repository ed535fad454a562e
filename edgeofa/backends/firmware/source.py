"""A lowered network as C: one translation unit and its header."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields

import numpy as np

from edgeofa.backends.firmware.assembly import (
    conv_kernel,
    dense_kernel,
    depthwise_halves,
    depthwise_kernel,
    depthwise_words,
)
from edgeofa.backends.firmware.assembly_mve import conv_kernel_mve
from edgeofa.backends.firmware.assembly_mve_simple import dense_kernel_mve, depthwise_kernel_mve
from edgeofa.backends.firmware.assembly_simple import add_kernel, split_kernel
from edgeofa.backends.firmware.layer import Constant, Field, Kernel, Layer
from edgeofa.backends.firmware.network import Network
from edgeofa.backends.firmware.shapes import (
    ConvShape,
    DenseShape,
    DepthwiseShape,
    SplitShape,
    TileInputShape,
    TileOutputShape,
    TileWeightShape,
)
from edgeofa.backends.firmware.winograd import (
    tile_input_kernel,
    tile_output_kernel,
    tile_weight_kernel,
)
from edgeofa.graph.ir import Array

_WORDS_PER_LINE, _BYTES_PER_LINE = 8, 20
#: an immediate offset of a load or store reaches this far
_REACH_BYTES = 4095
_NAMES = {
    "ConvShape": "conv",
    "DepthwiseShape": "depthwise",
    "DenseShape": "dense",
    "SplitShape": "split",
    "AddShape": "add",
    "TileInputShape": "tile_input",
    "TileOutputShape": "tile_output",
    "TileWeightShape": "tile_weight",
}
_PARAMETERS = {
    "conv": ("const uint32_t *x", "const uint32_t *w", "const int32_t *quant", "int32_t blocks"),
    "depthwise": ("const uint32_t *x", "const int32_t *channel", "int32_t rows"),
    "split": ("const int8_t *in", "uint32_t *planes", "int32_t rows"),
    "add": ("const int8_t *a", "const int8_t *b", "int8_t *out", "int32_t quads"),
    "tile_input": ("const uint32_t *x", "uint32_t *v"),
    "tile_weight": ("const uint32_t *from", "uint32_t *u"),
    "tile_output": ("const int32_t *m", "const int32_t *quant", "int8_t *out"),
    "dense": ("const uint32_t *x", "const uint32_t *w", "const int32_t *quant", "int32_t quads"),
}


def _array(values: Array) -> Iterable[str]:
    if values.dtype == np.int8:
        flat = [str(int(v)) for v in values.ravel()]
        width = _BYTES_PER_LINE
    else:
        flat = [f"0x{v:x}" for v in values.astype(np.int64).ravel() & 0xFFFFFFFF]
        if values.dtype == np.int32:
            flat = [_int32(int(v)) for v in values.ravel()]
        width = _WORDS_PER_LINE
    for i in range(0, len(flat), width):
        yield f"    {', '.join(flat[i : i + width])},"


def _int32(value: int) -> str:
    # the most negative number is no literal in C
    return str(value) if value > -(1 << 31) else "INT32_MIN"


def _constant(name: str, constant: Constant) -> list[str]:
    head = f"static const {constant.ctype} {name}[{constant.values.size}]"
    return [f"{head} __attribute__((aligned(16))) = {{", *_array(constant.values), "};", ""]


def _assembly(kernel: Kernel) -> list[str] | None:
    """The inner loop's instructions; None where an offset is out of a load's reach."""
    if isinstance(kernel, ConvShape):
        lines = conv_kernel(kernel)
    elif isinstance(kernel, DepthwiseShape):
        lines = depthwise_kernel(kernel)
    elif isinstance(kernel, DenseShape):
        lines = dense_kernel(kernel)
    elif isinstance(kernel, SplitShape):
        lines = split_kernel(kernel)
    elif isinstance(kernel, TileInputShape):
        lines = tile_input_kernel(kernel)
    elif isinstance(kernel, TileWeightShape):
        lines = tile_weight_kernel(kernel)
    elif isinstance(kernel, TileOutputShape):
        lines = tile_output_kernel(kernel)
    else:
        lines = add_kernel(kernel)
    offsets = [int(n) for line in lines for n in re.findall(r"#(\d+)\]", line)]
    return lines if max(offsets) <= _REACH_BYTES else None


def _vectors(kernel: Kernel) -> list[str] | None:
    """The inner loop by vectors, where there is one."""
    if isinstance(kernel, ConvShape):
        return None if kernel.level == "dsp" else conv_kernel_mve(kernel)
    if isinstance(kernel, DepthwiseShape):
        return depthwise_kernel_mve(kernel)
    if isinstance(kernel, DenseShape):
        return dense_kernel_mve(kernel)
    return None


def _portable_shape(kernel: ConvShape | DepthwiseShape | DenseShape) -> list[str]:
    """The plain-C description of an inner loop, as the local constant ``shape``."""
    kind = _NAMES[type(kernel).__name__]
    output = kernel.output
    finish = {
        "raw": int(output is None),
        "zero_point": 0 if output is None else output.zero_point,
        "low": -128 if output is None else output.low,
        "high": 127 if output is None else output.high,
    }
    left_out = {"chunk", "group", "output", "level"}
    values: dict[str, int | str] = {
        f.name: int(getattr(kernel, f.name)) for f in fields(kernel) if f.name not in left_out
    }
    lines = []
    if isinstance(kernel, DepthwiseShape):
        words = depthwise_words(kernel.kernel_width, kernel.stride)
        halves = depthwise_halves(words)
        taps = [halves[t] for t in range(kernel.kernel_width)]
        for name, index in (("word_of", 0), ("half_of", 1)):
            row = ", ".join(str(tap[index]) for tap in taps)
            lines.append(f"static const uint8_t {name}[] = {{{row}}};")
        values |= {"words": len(words), "word_of": "word_of", "half_of": "half_of"}
    initialisers = ", ".join(f".{k} = {v}" for k, v in (values | finish).items())
    return [*lines, f"static const edgeofa_{kind}_shape shape = {{{initialisers}}};"]


def _kernel(name: str, kernel: Kernel) -> list[str]:
    kind = _NAMES[type(kernel).__name__]
    parameters = list(_PARAMETERS[kind])
    lines = _assembly(kernel)
    # without one of these, the layer does the work itself
    portable = [f"#define {name} NULL"]
    if isinstance(kernel, (ConvShape, DepthwiseShape, DenseShape)):
        parameters.insert(-1, "void *out")
        arguments = ", ".join(re.findall(r"(\w+)(?:$)", p)[0] for p in parameters)
        portable = [
            f"static void {name}({', '.join(parameters)})",
            "{",
            *(f"    {line}" for line in _portable_shape(kernel)),
            f"    edgeofa_{kind}_portable(&shape, {arguments});",
            "}",
        ]
    if lines is None:
        return [*portable, ""]
    head = f"static void {name}({', '.join(parameters)})"
    if isinstance(kernel, ConvShape) and kernel.level == "mve":
        guarded = _naked(head, conv_kernel_mve(kernel))
        return ["#ifdef EDGEOFA_MVE", *guarded, "#else", f"#define {name} NULL", "#endif", ""]
    tiles = isinstance(kernel, (TileInputShape, TileOutputShape, TileWeightShape))
    if isinstance(kernel, ConvShape) and kernel.level == "dsp":
        tiles, portable = True, [f"#define {name} NULL"]
    levels = ["#ifdef EDGEOFA_TILES" if tiles else "#ifdef EDGEOFA_DSP", *_naked(head, lines)]
    vectors = _vectors(kernel)
    if vectors is not None:
        own = _naked(head, vectors)
        levels = ["#if defined(EDGEOFA_MVE)", *own, "#elif defined(EDGEOFA_DSP)", *levels[1:]]
    return [*levels, "#else", *portable, "#endif", ""]


def _naked(head: str, lines: list[str]) -> list[str]:
    """A function of nothing but assembly."""
    return [
        f"__attribute__((naked, noinline)) {head}",
        "{",
        "    __asm volatile(",
        *(f'        "{line}\\n"' for line in lines),
        "    );",
        "}",
    ]


class _Kernels:
    """Names of inner loops; equal shapes share one."""

    def __init__(self) -> None:
        self.names: dict[Kernel, str] = {}

    def name(self, kernel: Kernel | None) -> str:
        if kernel is None:
            return "NULL"
        kind = _NAMES[type(kernel).__name__]
        return self.names.setdefault(kernel, f"{kind}_{len(self.names)}")


def _struct(struct: Mapping[str, Field], kernels: _Kernels) -> list[str]:
    lines = []
    for field, value in struct.items():
        if isinstance(value, tuple):
            text = ", ".join(kernels.name(k) for k in value)
            lines.append(f"        .{field} = {text if len(value) == 1 else f'{{{text}}}'},")
        else:
            lines.append(f"        .{field} = {_int32(value)},")
    return lines


def _layer(network: Network, index: int, layer: Layer, kernels: _Kernels) -> list[str]:
    op, plan = network.graph.ops[index], network.plan
    names = {"a": f"at({plan.offsets[op.inputs[0]]})", "out": f"at({plan.offsets[op.output]})"}
    if len(op.inputs) > 1:
        names["b"] = f"at({plan.offsets[op.inputs[1]]})"
    names["scratch"] = f"scratch({plan.scratch_offsets[index]})"
    names |= {c.name: f"{c.name}_{index}" for c in layer.constants}
    arguments = [argument.format(**names) for argument in layer.arguments]
    comment = f"/* {re.sub(r'[^ -)+-~]', '?', layer.name)}: {op.kind} */"
    lines = [comment, f"static void layer_{index}(void)", "{"]
    if layer.struct is not None:
        ctype, values = layer.struct
        lines += [f"    static const {ctype} layer = {{", *_struct(values, kernels), "    };"]
        arguments.insert(0, "&layer")
    return [*lines, f"    {layer.function}({', '.join(arguments)});", "}", ""]


def _sizes(network: Network) -> dict[str, int]:
    graph = network.graph
    return {
        "INPUT_BYTES": graph.input_tensor.nbytes,
        "OUTPUT_BYTES": graph.output_tensor.nbytes,
        "ARENA_BYTES": network.plan.peak_bytes,
        "WEIGHT_BYTES": network.weight_bytes,
        "LAYERS": len(network.layers),
    }


def _header(network: Network, prefix: str) -> str:
    upper = prefix.upper()
    guard = f"{upper}_NETWORK_H"
    lines = [f"#ifndef {guard}", f"#define {guard}", "", '#include "edgeofa_firmware.h"', ""]
    lines += [f"#define {upper}_{name} {value}" for name, value in _sizes(network).items()]
    for tensor, name in (
        (network.graph.input_tensor, "INPUT"),
        (network.graph.output_tensor, "OUTPUT"),
    ):
        q = tensor.quantization
        if q is not None:
            lines += [f"#define {upper}_{name}_SCALE {float(q.scale)!r}f"]
            lines += [f"#define {upper}_{name}_ZERO_POINT {q.zero_point}"]
    if prefix != "edgeofa":
        lines += ["", f"extern const edgeofa_network {prefix}_network_description;"]
    return "\n".join([*lines, "", "#endif", ""])


_ARENA = """\
#ifdef EDGEOFA_SHARED_ARENA
extern uint8_t EDGEOFA_SHARED_ARENA[];
#define ARENA EDGEOFA_SHARED_ARENA
#else
static uint8_t ARENA[{arena}] __attribute__((aligned(16)));
#endif

static inline int8_t *at(uint32_t offset)
{{
    return (int8_t *)ARENA + offset;
}}

static inline uint32_t *scratch(uint32_t offset)
{{
    return (uint32_t *)__builtin_assume_aligned(ARENA + offset, 16);
}}
"""

_API = """\
#ifdef EDGEOFA_LAYER_HOOKS
#define LAYER(index) edgeofa_layer_begin(index), layer_##index(), edgeofa_layer_end(index)
#else
#define LAYER(index) layer_##index()
#endif

int {prefix}_init(void)
{{
    return 0;
}}

int {prefix}_run(void)
{{
{calls}
    return 0;
}}

int8_t *{prefix}_input(void)
{{
    return at({input});
}}

const int8_t *{prefix}_output(void)
{{
    return at({output});
}}

uint8_t *{prefix}_arena(void)
{{
    return ARENA;
}}

const char {prefix}_digest[EDGEOFA_DIGEST_CHARS + 1] =
    "{digest}";

const edgeofa_network {prefix}_network_description = {{
    {prefix}_digest, {prefix}_init, {prefix}_run, {prefix}_input, {prefix}_output, {prefix}_arena,
    {sizes},
}};
"""


def network_source(network: Network, prefix: str = "edgeofa") -> dict[str, str]:
    """The C file and the header of a network, by file name; ``prefix`` starts its symbols."""
    kernels = _Kernels()
    bodies = [
        line
        for i, layer in enumerate(network.layers)
        for line in _layer(network, i, layer, kernels)
    ]
    constants = [
        line
        for i, layer in enumerate(network.layers)
        for constant in layer.constants
        for line in _constant(f"{constant.name}_{i}", constant)
    ]
    loops = [line for kernel, name in kernels.names.items() for line in _kernel(name, kernel)]
    sizes = _sizes(network)
    body = "\n".join([*constants, *loops, _ARENA.format(arena=sizes["ARENA_BYTES"]), *bodies])
    graph, plan = network.graph, network.plan
    api = _API.format(
        prefix=prefix,
        calls="\n".join(f"    LAYER({i});" for i in range(len(network.layers))),
        input=plan.offsets[graph.input],
        output=plan.offsets[graph.output],
        # of all that decides what the network computes and how, not of its name
        digest=hashlib.sha256(body.encode()).hexdigest(),
        sizes=", ".join(str(n) for n in sizes.values()),
    )
    name = f"{prefix}_network"
    top = [
        "/* Generated by edgeofa from an int8 network; see edgeofa_firmware.h for its use. */",
        f'#include "{name}.h"',
        '#include "edgeofa_kernels.h"',
        "",
        "#ifdef EDGEOFA_DSP",
        "/* a naked function's parameters are read by its assembly */",
        '#pragma GCC diagnostic ignored "-Wunused-parameter"',
        "#endif",
        "",
    ]
    return {f"{name}.c": "\n".join([*top, body, api]), f"{name}.h": _header(network, prefix)}
