"""Which processor the TVM back end generates code for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeofa.backends.tvm.machine import MACHINES, host_machine, machine_for
from edgeofa.errors import UsageError
from edgeofa.targets import load_target

WIDE = "avx2 fma avx512f avx512bw avx512vl avx512dq"


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ("sse4_2 avx avx2 fma", "x86-64-avx2"),
        ("avx2 fma avx512f", "x86-64-avx2"),
        (WIDE, "x86-64-avx512"),
        (f"{WIDE} avx512_vnni", "x86-64-avx512-vnni"),
    ],
)
def test_host_by_its_flags(
    flags: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t:\n")
    assert host_machine(cpuinfo).key == key


@pytest.mark.parametrize("text", ["", "flags : fpu sse2 avx\n", "flags : avx2\n"])
def test_old_host_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    with pytest.raises(UsageError, match="needs AVX2 and FMA"):
        host_machine(cpuinfo)


def test_machine_of_a_target() -> None:
    assert machine_for(load_target("rpi4")) is MACHINES["cortex-a72"]
    with pytest.raises(UsageError, match="no schedules for cortex-m4") as error:
        machine_for(load_target("nucleo-l4r5zi"))
    assert "cortex-a72" in str(error.value.hint)


@pytest.mark.parametrize("key", MACHINES)
def test_machines_name_themselves_and_their_registers(key: str) -> None:
    machine = MACHINES[key]
    assert machine.key == key
    assert machine.is_arm == key.startswith("cortex")
    assert machine.lanes(1) == 4 * machine.lanes(4) == machine.vector_bytes
    assert machine.llvm_target["mtriple"] == machine.triple
