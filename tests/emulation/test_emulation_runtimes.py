"""Pinned wheels: only the pinned file, only as a whole."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from edgeofa.emulation.runtimes import RUNTIMES, Runtime, extract, fetch, is_ready, runtime_of
from edgeofa.errors import FileFormatError, SetupError

LIBRARY = b"\x7fELF" + bytes(range(256)) * 8
MEMBER = "pkg/libthing.so"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOFA_CACHE", str(tmp_path / "cache"))


def make_wheel(folder: Path, library: bytes = LIBRARY, member: str = MEMBER) -> Path:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pkg/__init__.py", "")
        archive.writestr(member, library)
    path = folder / "pkg-1.0-py3-none-any.whl"
    path.write_bytes(stream.getvalue())
    return path


def pinned(wheel: Path, library: bytes = LIBRARY) -> Runtime:
    return Runtime(
        backend="litert",
        project="edgeofa-test-no-such-project",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        library_bytes=len(library),
        library_sha256=hashlib.sha256(library).hexdigest(),
    )


def leftovers(runtime: Runtime) -> list[str]:
    folder = runtime.path.parent
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_the_pinned_library_is_taken(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    runtime = pinned(wheel)
    assert not is_ready(runtime)
    extract(runtime, wheel)
    assert is_ready(runtime)
    assert runtime.path.read_bytes() == LIBRARY
    assert leftovers(runtime) == [runtime.path.name]


def test_a_corrupted_wheel_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    runtime = pinned(wheel)
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(FileFormatError, match="not the pinned wheel"):
        extract(runtime, wheel)
    assert leftovers(runtime) == []


def test_a_wheel_with_other_contents_is_refused(tmp_path: Path) -> None:
    longer = make_wheel(tmp_path, LIBRARY + b"!")
    with pytest.raises(FileFormatError, match="another size"):
        extract(pinned(longer), longer)
    other = make_wheel(tmp_path, LIBRARY[::-1])
    with pytest.raises(FileFormatError, match="not the pinned file"):
        extract(pinned(other), other)
    without = make_wheel(tmp_path, member="pkg/another.so")
    with pytest.raises(FileFormatError, match="not a readable wheel"):
        extract(pinned(without), without)
    without.write_bytes(b"no zip file at all")
    with pytest.raises(FileFormatError, match="not a readable wheel"):
        extract(pinned(without), without)


def test_a_library_that_changed_on_disk_is_not_ready(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    runtime = pinned(wheel)
    extract(runtime, wheel)
    runtime.path.write_bytes(LIBRARY[::-1])
    assert not is_ready(runtime)
    runtime.path.write_bytes(LIBRARY[:-1])
    assert not is_ready(runtime)
    extract(runtime, wheel)
    assert is_ready(runtime)


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    runtime = pinned(make_wheel(tmp_path))
    with pytest.raises(SetupError, match="pip could not download it") as caught:
        fetch(runtime)
    assert caught.value.where == runtime.requirement
    assert leftovers(runtime) == []


def test_pip_brings_a_wheel_and_its_digest_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    made = make_wheel(links)
    name = "edgeofa_test_no_such_project-1.0-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\nName: edgeofa-test-no-such-project\nVersion: 1.0\n"
    with zipfile.ZipFile(made, "a") as archive:
        info = "edgeofa_test_no_such_project-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    wheel = made.rename(links / name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    runtime = pinned(wheel)
    fetch(runtime)
    assert is_ready(runtime)
    foreign = dataclasses.replace(runtime, wheel_sha256="0" * 64, library_sha256="1" * 64)
    with pytest.raises(FileFormatError, match="not the pinned wheel"):
        fetch(foreign)
    assert leftovers(runtime) == [runtime.path.name]


def test_the_pins_are_whole() -> None:
    assert {runtime.backend for runtime in RUNTIMES} == {"litert", "onnxruntime", "tvm"}
    for runtime in (*RUNTIMES, runtime_of("tvm").needed):
        assert len(runtime.wheel_sha256) == len(runtime.library_sha256) == 64
