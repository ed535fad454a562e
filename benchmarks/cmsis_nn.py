"""A network that calls CMSIS-NN layer by layer, for comparisons: the sources are the user's own.

Works with the repository CMSIS-NN (2022 and later) and with CMSIS_5, whose folder CMSIS/NN held it
before. Operators that MLPerf Tiny's models have; activations lie where a plan without in-place
execution puts them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from edgeofa.backends.firmware.link import CompiledNetwork
from edgeofa.errors import MissingMaterial, UnsupportedOperator
from edgeofa.graph.fixed_point import quantize_multiplier
from edgeofa.graph.int8_kernels import activation_range, add_multipliers, linear_multipliers
from edgeofa.graph.ir import Array, Graph, Op
from edgeofa.graph.memory import plan_memory, weight_bytes
from edgeofa.graph.reference import quantization
from edgeofa.graph.rewrites import fold_pads
from edgeofa.paths import data_dir

_SCRATCH_BYTES = 65536
_ADD_SHIFT = 20
_SOURCES = (
    "ConvolutionFunctions",
    "FullyConnectedFunctions",
    "PoolingFunctions",
    "SoftmaxFunctions",
    "BasicMathFunctions",
    "NNSupportFunctions",
)
#: files of these kinds of arithmetic are not needed, and some need libraries of their own
_OTHER = ("_f16", "_f32", "_q7", "_q15", "_s16", "_s4", "_u8", "_flt")

_FRAME = """\
#include "edgeofa_network.h"
#include "arm_nnfunctions.h"

extern uint8_t EDGEOFA_SHARED_ARENA[];
#define AT(offset) ((int8_t *)EDGEOFA_SHARED_ARENA + (offset))
#define SCRATCH ((void *)(EDGEOFA_SHARED_ARENA + {activations}))

{constants}
{functions}
int edgeofa_init(void) {{ return 0; }}
int edgeofa_run(void) {{
  int failed = 0;
{calls}
  return failed;
}}
int8_t *edgeofa_input(void) {{ return AT({input}); }}
const int8_t *edgeofa_output(void) {{ return AT({output}); }}
uint8_t *edgeofa_arena(void) {{ return EDGEOFA_SHARED_ARENA; }}
const char edgeofa_digest[EDGEOFA_DIGEST_CHARS + 1] = "{digest}";
const edgeofa_network edgeofa_network_description = {{
  edgeofa_digest, edgeofa_init, edgeofa_run, edgeofa_input, edgeofa_output, edgeofa_arena, {sizes},
}};
"""


def cmsis_network(graph: Graph, root: Path) -> CompiledNetwork:
    """``graph`` as calls into the CMSIS-NN at ``root``, ready to be linked.

    Raises ``MissingMaterial`` when that is not CMSIS-NN, ``UnsupportedOperator`` for what no
    model of MLPerf Tiny has.
    """
    graph = fold_pads(graph)
    library = _library(root)
    plan = plan_memory(graph)
    sums = _sum_parameters(library)
    constants: list[str] = []
    functions: list[str] = []
    for index, op in enumerate(graph.ops):
        places = [f"AT({plan.offsets[t]})" for t in (*op.inputs, op.output)]
        body = _call(graph, op, index, places, constants, sums=sums)
        functions.append(f"static int layer_{index}(void) {{\n{body}\n}}\n")
    calls = [
        f"  edgeofa_layer_begin({i}); failed |= layer_{i}(); edgeofa_layer_end({i});"
        for i in range(len(graph.ops))
    ]
    sizes = {
        "input_bytes": graph.input_tensor.nbytes,
        "output_bytes": graph.output_tensor.nbytes,
        "arena_bytes": plan.peak_bytes + _SCRATCH_BYTES,
        "weight_bytes": weight_bytes(graph),
        "layers": len(graph.ops),
    }
    text = _FRAME.format(
        activations=plan.peak_bytes,
        constants="\n".join(constants),
        functions="\n".join(functions),
        calls="\n".join(calls),
        input=plan.offsets[graph.input],
        output=plan.offsets[graph.output],
        digest=hashlib.sha256("".join([*constants, *functions]).encode()).hexdigest(),
        sizes=", ".join(map(str, sizes.values())),
    )
    api = (data_dir() / "targets/runtime/mcu/include/edgeofa_firmware.h").read_bytes()
    files = {
        **library,
        "edgeofa_firmware.h": api,
        "edgeofa_network.h": b'#include "edgeofa_firmware.h"\n',
        "edgeofa_network.c": text.encode(),
    }
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return CompiledNetwork(digest.hexdigest(), files, **sizes)


def _library(root: Path) -> dict[str, bytes]:
    """Sources and headers by the names that their includes use."""
    home = root / "CMSIS" / "NN" if (root / "CMSIS" / "NN").is_dir() else root
    headers = [home / "Include"]
    headers += [root / "CMSIS" / part / "Include" for part in ("DSP", "Core")]
    found: dict[str, bytes] = {}
    for folder in headers:
        for path in sorted(folder.rglob("*.h")):
            found[str(path.relative_to(folder))] = path.read_bytes()
    for name in _SOURCES:
        for path in sorted((home / "Source" / name).glob("*.c")):
            if not any(part in path.name for part in _OTHER):
                found[path.name] = path.read_bytes()
    if "arm_nnfunctions.h" not in found or "arm_convolve_s8.c" not in found:
        raise MissingMaterial(
            "not CMSIS-NN", where=root, hint="a checkout of CMSIS-NN, or of CMSIS_5"
        )
    return found


def _sum_parameters(library: dict[str, bytes]) -> tuple[str, ...]:
    """Names of what arm_vector_sum_s8 takes, which newer dense layers want called before them; its
    parameters have changed over the years."""
    for name in ("arm_nnfunctions.h", "arm_nnsupportfunctions.h"):
        text = library.get(name, b"").decode(errors="replace")
        found = re.search(r"\barm_vector_sum_s8\(([^)]*)\);", text)
        if found is not None:
            return tuple(re.findall(r"(\w+)\s*(?:,|$)", found[1]))
    return ()


def _array(name: str, ctype: str, values: Array) -> str:
    numbers = ",".join(str(int(v)) for v in np.asarray(values).ravel())
    return f"static const {ctype} {name}[] __attribute__((aligned(16))) = {{{numbers}}};"


def _dims(name: str, shape: tuple[int, ...]) -> str:
    return f"cmsis_nn_dims {name} = {{{', '.join(map(str, shape))}}};"


def _nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (1, 1, 1, int(np.prod(shape)))


def _call(
    graph: Graph,
    op: Op,
    index: int,
    places: list[str],
    constants: list[str],
    *,
    sums: tuple[str, ...],
) -> str:
    """The body of one layer's function; its constants are appended to ``constants``."""
    qs = [quantization(graph, t) for t in op.inputs]
    qy = quantization(graph, op.output)
    low, high = activation_range(op.activation, qy)
    source, sink = _nhwc(graph.shape(op.inputs[0])), _nhwc(graph.shape(op.output))
    shapes = [_dims("di", source), _dims("d_o", sink)]
    context = f"cmsis_nn_context c = {{SCRATCH, {_SCRATCH_BYTES}}};"
    if op.kind in ("conv2d", "depthwise_conv2d", "fully_connected"):
        weight, bias = op.linear
        multipliers, shifts = linear_multipliers(op, qs[0], qy)
        constants.append(_array(f"w{index}", "int8_t", weight))
        constants.append(_array(f"b{index}", "int32_t", bias))
        tail = f"{places[0]}, &df, w{index}, &db, b{index}, &d_o, {places[1]}"
        if op.kind == "fully_connected":
            if len(multipliers) != 1:
                raise UnsupportedOperator("a dense layer with a scale per channel", where=op.name)
            inputs = weight.shape[1]
            shapes = [_dims("di", (1, 1, 1, inputs)), _dims("df", (inputs, 1, 1, weight.shape[0]))]
            shapes += [_dims("db", (1, 1, 1, len(bias))), _dims("d_o", (1, 1, 1, len(bias)))]
            prepare = ""
            if sums:
                values = {
                    "vector_sum_buf": "SCRATCH",
                    "vector_cols": inputs,
                    "vector_rows": len(bias),
                    "vector_data": f"w{index}",
                    "lhs_offset": -qs[0].zero_point,
                    "rhs_offset": 0,
                    "bias_data": f"b{index}",
                }
                prepare = f"arm_vector_sum_s8({', '.join(str(values[s]) for s in sums)});"
            return "\n".join(
                [
                    f"  cmsis_nn_fc_params p = {{{-qs[0].zero_point}, 0, {qy.zero_point}, "
                    f"{{{low}, {high}}}}};",
                    f"  cmsis_nn_per_tensor_quant_params q = {{{multipliers[0]}, {shifts[0]}}};",
                    *(f"  {s}" for s in (*shapes, context, prepare)),
                    f"  return arm_fully_connected_s8(&c, &p, &q, &di, {tail});",
                ]
            )
        count = sink[3]
        constants.append(_array(f"m{index}", "int32_t", np.resize(multipliers, count)))
        constants.append(_array(f"s{index}", "int32_t", np.resize(shifts, count)))
        depthwise = op.kind == "depthwise_conv2d"
        pads = f"{{{op.stride[1]}, {op.stride[0]}}}, {{{op.pads[2]}, {op.pads[0]}}}, {{1, 1}}"
        offsets = f"{-qs[0].zero_point}, {qy.zero_point}"
        ctype, function = "cmsis_nn_conv_params", "arm_convolve_wrapper_s8"
        if depthwise:
            offsets += ", 1"
            ctype, function = "cmsis_nn_dw_conv_params", "arm_depthwise_conv_wrapper_s8"
        shapes += [_dims("df", weight.shape), _dims("db", (1, 1, 1, count))]
        return "\n".join(
            [
                f"  {ctype} p = {{{offsets}, {pads}, {{{low}, {high}}}}};",
                f"  cmsis_nn_per_channel_quant_params q = {{(int32_t *)m{index}, "
                f"(int32_t *)s{index}}};",
                *(f"  {s}" for s in (*shapes, context)),
                f"  return {function}(&c, &p, &q, &di, {tail});",
            ]
        )
    if op.kind in ("average_pool2d", "mean"):
        kernel = op.kernel if op.kind == "average_pool2d" else (source[1], source[2])
        return "\n".join(
            [
                f"  cmsis_nn_pool_params p = {{{{{op.stride[1]}, {op.stride[0]}}}, "
                f"{{{op.pads[2]}, {op.pads[0]}}}, {{{low}, {high}}}}};",
                *(f"  {s}" for s in (*shapes, _dims("df", (1, *kernel, 1)), context)),
                f"  return arm_avgpool_s8(&c, &p, &di, {places[0]}, &df, &d_o, {places[1]});",
            ]
        )
    if op.kind == "add":
        both = add_multipliers(qs, qy)
        first, second = (
            f"{-q.zero_point}, {m}, {s}" for q, (m, s) in zip(qs, both.inputs, strict=True)
        )
        out_m, out_s = both.output
        return (
            f"  return arm_elementwise_add_s8({places[0]}, {places[1]}, {first}, {second}, "
            f"{_ADD_SHIFT}, {places[2]}, {qy.zero_point}, {out_m}, {out_s}, {low}, {high}, "
            f"{int(np.prod(sink))});"
        )
    if op.kind == "softmax":
        multiplier, shift = quantize_multiplier(min(qs[0].scale * (1 << 26), float((1 << 31) - 1)))
        least = -int(31 * (1 << 26) / (1 << shift))
        return (
            f"  arm_softmax_s8({places[0]}, 1, {sink[3]}, {multiplier}, {shift}, {least}, "
            f"{places[1]});\n  return 0;"
        )
    raise UnsupportedOperator(f"no call into CMSIS-NN for {op.kind}", where=op.name)
