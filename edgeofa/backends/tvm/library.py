"""A program as a shared library: machine code from LLVM, its memory, and the entry in C."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeofa.backends.tvm.installed import require_tvm
from edgeofa.backends.tvm.interface import SYMBOL, Interface
from edgeofa.backends.tvm.interface import Tensor as Described
from edgeofa.backends.tvm.machine import Machine
from edgeofa.backends.tvm.program import ALIGNMENT_BYTES, Function, Program, Step
from edgeofa.errors import SetupError
from edgeofa.graph.ir import Tensor

_TIMEOUT_S = 300
#: same input, same bytes: nothing of the machine or the moment goes into the file
_FLAGS = ("-shared", "-fPIC", "-O1", "-fno-ident", "-Wl,--build-id=none", "-Wl,-s")

_ENTRY = """\
#include <stddef.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#define EXPORTED __attribute__((visibility("default")))
#define AT(pointer) {{.type_index = kTVMFFIOpaquePtr, .v_ptr = (void *)(pointer)}}
#define CALL(number, arguments, count)                                            \\
  if (__tvm_ffi_kernel##number(NULL, arguments, count, &nothing)) return -1;

extern const char edgeofa_weights[] __attribute__((visibility("hidden")));
static char arena[{arena}] __attribute__((aligned({alignment})));

EXPORTED const char {symbol}[] = {text};

{declarations}

/* An argument is a DLTensor, or a tensor object, whose DLTensor is behind its head. */
static char *memory(const TVMFFIAny *argument) {{
  const DLTensor *tensor = argument->v_ptr;
  if (argument->type_index == kTVMFFITensor)
    tensor = (const DLTensor *)((const char *)argument->v_ptr + sizeof(TVMFFIObject));
  else if (argument->type_index != kTVMFFIDLTensorPtr)
    return NULL;
  return (char *)tensor->data + tensor->byte_offset;
}}

EXPORTED int __tvm_ffi_main(void *self, const TVMFFIAny *given, int32_t count, TVMFFIAny *result) {{
  TVMFFIAny nothing;
  char *input = count == 2 ? memory(&given[0]) : NULL;
  char *output = count == 2 ? memory(&given[1]) : NULL;
  (void)self, (void)result;
  if (!input || !output) {{
    TVMFFIErrorSetRaisedFromCStr("TypeError", "main takes two tensors: input and output");
    return -1;
  }}
  /* Kernels want whole cache lines. */
  char *source = {takes_input} && !((size_t)input % {alignment}) ? input : arena + {input_offset};
  char *sink = {gives_output} && !((size_t)output % {alignment}) ? output : arena + {output_offset};
  if (source != input) memcpy(source, input, {input_bytes});
{calls}
  if (sink != output) memcpy(output, sink, {output_bytes});
  return 0;
}}
"""

_WEIGHTS = """\
  .section .rodata
  .balign {alignment}
  .global edgeofa_weights
  .hidden edgeofa_weights
edgeofa_weights:
  .incbin "weights.bin"
  .section .note.GNU-stack,"",%progbits
"""


def machine_code(functions: tuple[Function, ...], machine: Machine, path: Path) -> None:
    """Compile the functions to an object file."""
    require_tvm()
    import tvm

    module = tvm.IRModule({function.name: function.code for function in functions})
    # our buffers are flat and our loops final: what these passes look for (for most of the time)
    # is not there
    idle = [
        "s_tir.CompactBufferAllocation",
        "s_tir.HoistIfThenElse",
        "s_tir.InjectVirtualThread",
        "s_tir.PlanAndUpdateBufferAllocationLocation",
        "s_tir.RenormalizeSplitPattern",
        "s_tir.ThreadSync",
        "tirx.NarrowDataType",
    ]
    # storage rewriting would take local buffers out of where the device is known, and merge them;
    # the search for common subexpressions is LLVM's, and takes most of the time otherwise
    config = {"tirx.disable_storage_rewrite": True, "tirx.disable_cse_tir": True}
    with tvm.transform.PassContext(config=config, disabled_pass=idle):
        compiled = tvm.compile(module, target=tvm.target.Target(machine.llvm_target))
    compiled.mod.write_to_file(str(path), "o")


def link(program: Program, machine: Machine) -> bytes:
    """The library's bytes; ``SetupError`` when the C compiler is missing or fails."""
    compiler = _compiler(machine)
    with tempfile.TemporaryDirectory(prefix="edgeofa-tvm-") as name:
        work = Path(name)
        machine_code(program.functions, machine, work / "kernels.o")
        (work / "weights.bin").write_bytes(program.constants or bytes(ALIGNMENT_BYTES))
        (work / "weights.s").write_text(_WEIGHTS.format(alignment=ALIGNMENT_BYTES))
        (work / "entry.c").write_text(_entry(program))
        command = [compiler, *_FLAGS, f"-I{_headers()}"]
        command += ["-o", "library.so", "entry.c", "weights.s", "kernels.o", "-lm"]
        try:
            done = subprocess.run(
                command, cwd=work, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"linking took over {_TIMEOUT_S} s", where=compiler) from error
        if done.returncode:
            raise SetupError(f"linking failed: {done.stderr.strip()[-600:]}", where=compiler)
        return (work / "library.so").read_bytes()


def _compiler(machine: Machine) -> str:
    arch = "aarch64" if machine.is_arm else "x86_64"
    name = "cc" if platform.machine() == arch else f"{arch}-linux-gnu-gcc"
    if shutil.which(name) is None:
        package = "gcc" if name == "cc" else f"gcc-{arch.replace('_', '-')}-linux-gnu"
        raise SetupError(
            f"{name} is missing",
            where="back end tvm",
            hint=f"apt-get install -y --no-install-recommends {package}",
        )
    return name


def _headers() -> Path:
    from tvm_ffi import libinfo

    return Path(libinfo.find_include_path())


def _entry(program: Program) -> str:
    places = {"constants": "edgeofa_weights + ", "arena": "arena + "}
    ends = {"input": "source", "output": "sink"}

    def call(step: Step) -> str:
        memories = {argument.memory for argument in step.arguments}
        storage = "" if memories & ends.keys() else "static "
        values = ", ".join(
            f"AT({ends.get(a.memory) or places[a.memory] + str(a.offset)})" for a in step.arguments
        )
        return (
            f"  {{{storage}const TVMFFIAny with[] = {{{values}}};\n"
            f"    CALL({step.function}, with, {len(step.arguments)})}}"
        )

    interface = Interface(
        (_described(program.input),), (_described(program.output),), len(program.steps)
    )
    lines = [f'  "{line}\\n"' for line in interface.text.splitlines()]
    return _ENTRY.format(
        arena=program.arena_bytes,
        alignment=ALIGNMENT_BYTES,
        symbol=SYMBOL,
        text="\n" + "\n".join(lines),
        declarations="\n".join(
            f"int __tvm_ffi_{f.name}(void *, const TVMFFIAny *, int32_t, TVMFFIAny *);"
            for f in program.functions
        ),
        calls="\n".join(map(call, program.steps)),
        takes_input=int(program.takes_input),
        gives_output=int(program.gives_output),
        input_offset=program.input_offset,
        input_bytes=program.input.nbytes,
        output_offset=program.output_offset,
        output_bytes=program.output.nbytes,
    )


def _described(tensor: Tensor) -> Described:
    return Described(tensor.dtype, tensor.shape)
