"""Libraries as edgeofa's TVM back end makes them, written in C: no compiler of TVM is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

INTERFACE = "edgeofa-tvm 1\ninput float32 1 2 2 3\noutput float32 1 12\noperators 1\n"

#: a packed function that doubles its input, after it has done ``FIRST``
_SOURCE = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
struct tensor { ELEMENT *data; int32_t device[2]; int32_t rank; uint8_t code, bits; uint16_t lanes;
                int64_t *shape, *strides; uint64_t offset; };
struct any { int32_t kind; uint32_t zero; struct tensor *tensor; };
int TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);
const char edgeofa_interface[] = INTERFACE;
int __tvm_ffi_main(void *self, const struct any *given, int32_t count, void *result) {
  const struct tensor *in = given[0].tensor, *out = given[1].tensor;
  int64_t elements = 1;
  (void)self, (void)count, (void)result;
  FIRST;
  for (int i = 0; i < in->rank; i++) elements *= in->shape[i];
  for (int64_t i = 0; i < elements; i++) out->data[i] = (ELEMENT)(in->data[i] * 2);
  return 0;
}
"""


def tvm_library(
    path: Path,
    interface: str = INTERFACE,
    *,
    element: str = "float",
    first: str = "",
    compiler: str = "cc",
) -> Path:
    """A library at ``path`` with that interface; ``first`` is C that runs before its work."""
    text = '"' + interface.replace("\n", "\\n").replace("\0", "\\0") + '"'
    source = path.with_suffix(".c")
    defines = f"#define ELEMENT {element}\n#define FIRST {first}\n#define INTERFACE {text}\n"
    source.write_text(defines + _SOURCE, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(path), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return path
