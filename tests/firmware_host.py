"""Compiled networks on this machine: the plain-C kernels under the sanitizers, layer by layer."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from edgeofa.backends.firmware.backend import runtime_sources
from edgeofa.backends.firmware.network import Network
from edgeofa.backends.firmware.source import network_source
from edgeofa.graph.ir import Array

_FLAGS = ("-std=c11", "-O0", "-Wall", "-Wextra", "-Werror")
_SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_TIMEOUT_S = 120

_MAIN = """\
#include <stdio.h>
#include "edgeofa_network.h"

static const uint32_t outputs[][2] = {{{outputs}}};

void edgeofa_layer_begin(int index)
{{
    (void)index;
}}

void edgeofa_layer_end(int index)
{{
    fwrite(edgeofa_arena() + outputs[index][0], 1, outputs[index][1], stdout);
}}

int main(void)
{{
    const size_t size = EDGEOFA_INPUT_BYTES;
    if (edgeofa_init() || fread(edgeofa_input(), 1, size, stdin) != size)
        return 1;
    return edgeofa_run();
}}
"""


@cache
def _kernels() -> tuple[Path, tuple[str, ...]]:
    """The folder of the runtime's sources, and its objects, compiled once."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = Path(mkdtemp(prefix="edgeofa-kernels-"))
    for name, content in runtime_sources().items():
        (folder / name).write_bytes(content)
    sources = [name for name in runtime_sources() if name.endswith(".c")]
    subprocess.run(["gcc", *_FLAGS, *_SANITIZERS, "-c", *sources], cwd=folder, check=True)
    return folder, tuple(str(folder / name.replace(".c", ".o")) for name in sources)


def layer_outputs(network: Network, x: Array, folder: Path) -> list[Array]:
    """The output of each layer for one input, as stored, flat."""
    kernels, objects = _kernels()
    for name, text in network_source(network).items():
        (folder / name).write_text(text)
    graph, plan = network.graph, network.plan
    places = [(plan.offsets[op.output], graph.tensors[op.output].nbytes) for op in graph.ops]
    rows = ", ".join(f"{{{offset}, {size}}}" for offset, size in places)
    (folder / "main.c").write_text(_MAIN.format(outputs=rows))
    command = ["gcc", *_FLAGS, *_SANITIZERS, "-DEDGEOFA_LAYER_HOOKS", f"-I{kernels}"]
    command += ["main.c", "edgeofa_network.c", *objects, "-o", "network"]
    subprocess.run(command, cwd=folder, check=True, timeout=_TIMEOUT_S)
    done = subprocess.run(
        [folder / "network"], input=x.tobytes(), capture_output=True, timeout=_TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    ends = np.cumsum([size for _, size in places])
    assert len(done.stdout) == ends[-1]
    return np.split(np.frombuffer(done.stdout, np.int8), ends[:-1])
