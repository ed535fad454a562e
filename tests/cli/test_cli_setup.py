"""``edgeofa setup`` and ``edgeofa doctor``: idempotent, and clear about what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeofa.cli.doctor import doctor
from edgeofa.cli.setup import setup
from edgeofa.emulation.runtimes import RUNTIMES, is_ready, runtime_of
from edgeofa.errors import SetupError
from edgeofa.paths import cache_dir
from edgeofa.setup import Requirement, missing_packages, prepare, requirements
from edgeofa.targets import load_target

TARGET = load_target("rpi4")
MISSING = [r.name for r in requirements(TARGET) if r.is_missing]
needs_everything = pytest.mark.skipif(bool(MISSING), reason=f"missing {', '.join(MISSING)}")


def test_packages_are_named_once() -> None:
    needed = [
        Requirement("a", "", None, "", ("x", "y")),
        Requirement("b", "", "1.0", "", ("z",)),
        Requirement("c", "", None, "", ("y", "w")),
    ]
    assert missing_packages(needed) == ["x", "y", "w"]


def test_a_machine_without_tools_gets_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SetupError, match="cmake") as caught:
        prepare(load_target("host"), install=True)
    assert caught.value.exit_code == 4
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("apt-get install -y --no-install-recommends cmake")


@needs_everything
def test_setup_is_idempotent(capsys: pytest.CaptureFixture[str]) -> None:
    kept = [r for r in RUNTIMES if is_ready(r)]
    before = {r.path: r.path.stat().st_mtime_ns for r in kept}
    setup(target="rpi4")
    setup(target="rpi4", as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rpi4 is ready")
    record = json.loads("\n".join(lines[1:]))
    assert record["target"] == "rpi4"
    assert not [step for step in record["steps"] if step.startswith("download")]
    assert all(r["found"] or r["optional"] for r in record["requirements"])
    assert {r.path: r.path.stat().st_mtime_ns for r in kept} == before


@needs_everything
def test_an_interrupted_download_is_swept_and_the_rest_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TVM is an extra: its libraries are there where a set-up has brought them
    ready = {r.backend: r.path.read_bytes() for r in RUNTIMES if is_ready(r)}
    tvm_ffi = runtime_of("tvm").needed
    whole_tvm = tvm_ffi.path.read_bytes() if "tvm" in ready else None
    built = cache_dir() / "native"
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "native").symlink_to(built)
    litert, onnxruntime, tvm = RUNTIMES
    stale = litert.path.parent / ".download-killed"
    stale.mkdir(parents=True)
    (stale / "half.whl").write_bytes(b"half")
    litert.path.write_bytes(ready["litert"])
    if whole_tvm:
        tvm.path.write_bytes(ready["tvm"])
        tvm.needed.path.write_bytes(whole_tvm)
    onnxruntime.path.write_bytes(ready["onnxruntime"][:-1])
    assert is_ready(litert)
    assert not is_ready(onnxruntime)
    with pytest.raises(SetupError, match="pip could not download it"):
        prepare(TARGET)
    assert not stale.exists()
    assert is_ready(litert)
    # what is not whole is not used, and the same command goes on from here
    onnxruntime.path.write_bytes(ready["onnxruntime"])
    assert not any(r.is_missing for r in prepare(TARGET).requirements)


def test_doctor_lists_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match="missing for this target"):
        doctor(target="rpi4")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(requirements(TARGET))
    (line,) = [x for x in lines if "ai-edge-litert" in x]
    assert line.startswith("--")
    assert line.endswith("missing: edgeofa setup --target rpi4")


@needs_everything
def test_doctor_is_content(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(target="rpi4", as_json=True)
    assert all(r["found"] for r in json.loads(capsys.readouterr().out))
    doctor(target="host")
    assert "qemu" not in capsys.readouterr().out
