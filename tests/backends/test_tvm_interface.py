"""The text by which a TVM library tells what it is: what is written is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeofa.backends.tvm.interface import Interface, Tensor, read_interface
from edgeofa.errors import FileFormatError

tensors = st.builds(
    Tensor,
    st.sampled_from(["float32", "int8", "uint8"]),
    st.lists(st.integers(1, 12), min_size=1, max_size=8).map(tuple),
).filter(lambda t: t.bytes <= 1 << 30)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@shared
@given(
    st.lists(tensors, min_size=1, max_size=4).map(tuple),
    st.lists(tensors, min_size=1, max_size=4).map(tuple),
    st.integers(0, 999_999),
    st.binary(max_size=50),
)
def test_what_is_written_is_read(
    tmp_path: Path,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    operators: int,
    around: bytes,
) -> None:
    made = Interface(inputs, outputs, operators)
    path = tmp_path / "library.so"
    path.write_bytes(around + made.text.encode() + b"\0" + around)
    assert read_interface(path) == made


@shared
@given(st.binary(max_size=200), st.integers(0, 80), st.binary(max_size=4))
def test_any_other_file_is_refused_or_read_whole(
    tmp_path: Path, content: bytes, place: int, patch: bytes
) -> None:
    good = b"edgeofa-tvm 1\ninput int8 1 2\noutput int8 1 2\noperators 3\n"
    path = tmp_path / "library.so"
    for text in (content, good[:place] + patch + good[place + len(patch) :], good[:place]):
        path.write_bytes(text)
        try:
            found = read_interface(path)
        except FileFormatError as error:
            assert error.where == str(path)  # noqa: PT017 - both ends are fine
        else:
            assert found.inputs
            assert found.outputs


@pytest.mark.parametrize(
    "line", ["input int8 1 0", "input int8", "input int8 99999 99999", "input int4 1", "inputs 1"]
)
def test_a_tensor_that_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "library.so"
    path.write_text(f"edgeofa-tvm 1\n{line}\noutput int8 1 2\noperators 3\n")
    with pytest.raises(FileFormatError):
        read_interface(path)
