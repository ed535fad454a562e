"""Kernels and protocol of the microcontrollers under a fuzzer, from a fixed seed and for a fixed
number of inputs.

With clang and its runtime it is libFuzzer that looks for inputs, else a loop of our own; both under
ASan and UBSan. About 20 s.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeofa.paths import data_dir

#: newest first; Debian's names
_CLANG = ("clang-19", "clang")
#: inputs, which take about 5 s each
_RUNS = {"fuzz-kernels": 40_000, "fuzz-protocol": 60_000}
_LAYERS = 11
_TIMEOUT_S = 120
_HERE = Path(__file__).parent / "fuzz"


def _clang(folder: Path) -> str | None:
    """A clang that links libFuzzer, whose runtime Debian packs apart."""
    program = folder / "try.c"
    program.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n"
        "int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) { return d == NULL && n; }\n"
    )
    for name in _CLANG:
        command = [name, "-fsanitize=fuzzer,address,undefined", str(program), "-o"]
        if shutil.which(name) is None:
            continue
        done = subprocess.run([*command, str(folder / "try")], capture_output=True, timeout=60)
        if done.returncode == 0:
            return name
    return None


def seeds(name: str) -> list[bytes]:
    """Small inputs that reach every layer, or every command."""
    rng = random.Random(1)
    if name == "fuzz-kernels":
        # what an input leaves out is made up from what it says
        return [bytes((layer, *rng.randbytes(n))) for layer in range(_LAYERS) for n in (1, 3, 20)]
    select = bytes((1, 2, 0, 0, 2, 1))
    requests = {1: b"", 3: bytes(4) + b"input", 4: b"seed", 5: b"\3\1", 6: b"\0\0", 8: b""}
    requests |= {7: bytes((3, 0, 0, 0, 20, 0)), 9: b"\xff\0\0\0"}
    framed = [
        bytes((1, 1, len(payload))) + payload + bytes((command, 7))
        for command, payload in requests.items()
    ]
    return [*(b"\1" + select + one for one in framed), b"\1" + select + b"".join(framed)]


def _must(command: Sequence[str | Path], **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT_S,
        **options,  # type: ignore[call-overload]
    )
    said: str = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{command[0]}: {said[-3000:]}"
    return said


def _build(folder: Path, compiler: str) -> Path:
    if not all(map(shutil.which, ("cmake", "make", compiler))):
        pytest.skip(f"needs cmake, make and {compiler}")
    off = [f"-DEDGEOFA_{name}=OFF" for name in ("RUNNER", "BOARD", "PLUGIN")]
    configure = ["cmake", "-G", "Unix Makefiles", "-S", data_dir(), "-B", folder, *off]
    _must([*configure, "-DEDGEOFA_FUZZ=ON", f"-DCMAKE_C_COMPILER={compiler}"])
    said = _must(["cmake", "--build", folder])
    assert "warning" not in said.lower(), said
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """The folder of the programs, and whether they are libFuzzer's."""
    clang = _clang(tmp_path_factory.mktemp("clang"))
    return _build(tmp_path_factory.mktemp("fuzz"), clang or "gcc"), clang is not None


def _seed_files(name: str, folder: Path) -> list[Path]:
    folder.mkdir()
    files = []
    for number, seed in enumerate(seeds(name)):
        files.append(folder / f"{number:03}")
        files[-1].write_bytes(seed)
    return files


@pytest.mark.parametrize("name", list(_RUNS))
def test_nothing_is_found(built: tuple[Path, bool], name: str, tmp_path: Path) -> None:
    folder, libfuzzer = built
    files = _seed_files(name, tmp_path / "seeds")
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0"}
    # the loop of our own sees no coverage, and is faster
    runs = _RUNS[name] if libfuzzer else 4 * _RUNS[name]
    if libfuzzer:
        options = [f"-runs={runs}", "-seed=1", "-max_len=600", "-timeout=20", "-verbosity=1"]
        options += [f"-artifact_prefix={tmp_path}/", "-print_final_stats=1"]
        said = _must([folder / name, *options, tmp_path / "seeds"], env=environment)
        assert f"number_of_executed_units: {runs}" in said
    else:
        said = _must([folder / name, "1", "0", str(runs), *files], env=environment)
        assert f"{runs} runs" in said


@pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-arm") is None,
    reason="needs gcc-arm-none-eabi and qemu-user",
)
def test_the_dsp_extension_computes_what_plain_code_does(tmp_path: Path) -> None:
    """The same layers, kernels compiled for Thumb-2 with the DSP extension, as on a Cortex-M4."""
    kernels = data_dir() / "targets" / "runtime" / "mcu" / "kernels"
    core = ["-mcpu=cortex-a7", "-mthumb", "-mfpu=neon-vfpv4", "-mfloat-abi=hard"]
    command = ["arm-none-eabi-gcc", *core, "-std=gnu11", "-O2", "--specs=rdimon.specs"]
    command += ["-Wall", "-Wextra", f"-I{kernels}", str(_HERE / "driver.c")]
    command += [str(_HERE / "fuzz_kernels.c"), *map(str, sorted(kernels.glob("*.c"))), "-lm"]
    _must([*command, "-o", tmp_path / "fuzz"])
    disassembled = _must(["arm-none-eabi-objdump", "-d", tmp_path / "fuzz"])
    assert "smmlar" in disassembled
    said = _must(["qemu-arm", "-cpu", "cortex-a7", tmp_path / "fuzz", "1", "0", "20000"])
    assert "20000 runs" in said


def test_the_loop_without_libfuzzer_repeats_itself_and_finds_what_is_wrong(tmp_path: Path) -> None:
    """On a target that fails for inputs which hold a certain word, of which the seed has most."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    source = tmp_path / "target.c"
    source.write_text(
        "#include <stdint.h>\n#include <stdlib.h>\n#include <stdio.h>\n#include <string.h>\n"
        "static unsigned sum;\n"
        'static void say(void) { printf("%u\\n", sum); }\n'
        "int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) {\n"
        "  if (sum == 0) atexit(say);\n"
        "  sum = sum * 31 + 7; for (size_t i = 0; i < n; i++) sum = sum * 31 + d[i];\n"
        '  for (size_t i = 0; WRONG && i + 3 <= n; i++) if (!memcmp(d + i, "bug", 3)) abort();\n'
        "  return 0;\n}\n"
    )
    seed = tmp_path / "seed"
    seed.write_bytes(b"a bvg")
    for wrong in ("0", "1"):
        build = ["gcc", "-std=gnu11", f"-DWRONG={wrong}", str(_HERE / "driver.c"), str(source)]
        _must([*build, "-o", tmp_path / f"wrong-{wrong}"])
    first, again, other = (
        _must([tmp_path / "wrong-0", number, "0", "3000", seed]) for number in ("1", "1", "2")
    )
    assert first == again != other
    done = subprocess.run(
        [tmp_path / "wrong-1", "1", "0", "2000000", seed], capture_output=True, timeout=_TIMEOUT_S
    )
    assert done.returncode != 0
