"""Frames: both sides agree, and both find a frame again after any noise."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from host_board import build_host_board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeofa.devices.serial_frames import MAX_PAYLOAD, Frame, FrameReader, encode_frame

frames = st.builds(
    Frame,
    command=st.integers(0, 255),
    sequence=st.integers(0, 255),
    payload=st.binary(max_size=MAX_PAYLOAD),
)
IDENTIFY = encode_frame(Frame(1, 77, b""))


@given(st.lists(frames, max_size=5), st.randoms(use_true_random=False))
def test_frames_survive_any_cutting_into_chunks(sent: list[Frame], random) -> None:
    stream = b"".join(encode_frame(f) for f in sent)
    reader, found = FrameReader(), []
    while stream:
        n = random.randint(1, 400)
        found += reader.feed(stream[:n])
        stream = stream[n:]
    assert found == sent
    assert reader.broken == 0


@given(st.binary(max_size=3000), frames)
def test_a_frame_is_found_behind_noise(noise: bytes, frame: Frame) -> None:
    assert FrameReader().feed(noise + encode_frame(frame))[-1] == frame


@given(frames, st.data())
def test_a_changed_byte_is_noticed(frame: Frame, data) -> None:
    encoded = bytearray(encode_frame(frame))
    place = data.draw(st.integers(1, len(encoded) - 2))
    encoded[place] ^= data.draw(st.integers(1, 255))
    assert frame not in FrameReader().feed(bytes(encoded))


def test_an_endless_frame_takes_no_memory() -> None:
    reader = FrameReader()
    for _ in range(100):
        assert reader.feed(b"x" * 10_000) == []
    assert reader.inside <= MAX_PAYLOAD + 16
    assert reader.feed(b"\0" + encode_frame(Frame(1, 2, b"3"))) == [Frame(1, 2, b"3")]
    assert reader.broken == 1


def test_a_payload_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1024"):
        encode_frame(Frame(1, 1, bytes(MAX_PAYLOAD + 1)))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_host_board(tmp_path_factory.mktemp("board"))


def _talk(program: Path, stream: bytes) -> list[Frame]:
    done = subprocess.run([str(program)], input=stream, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return FrameReader().feed(done.stdout)


_MESSAGES = st.one_of(
    st.binary(max_size=200),
    st.builds(encode_frame, frames),
    # well-formed requests with any content, so that the commands themselves are reached
    st.builds(
        lambda command, payload: encode_frame(Frame(command, 5, payload)),
        st.sampled_from([1, 2, 3, 4, 6, 7, 8]),
        st.binary(max_size=12),
    ),
    st.just(encode_frame(Frame(2, 1, bytes(2)))),
    st.just(encode_frame(Frame(5, 1, bytes((1, 1))))),
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_MESSAGES, max_size=12))
def test_the_firmware_survives_anything_and_answers_afterwards(
    program: Path, messages: list[bytes]
) -> None:
    answers = _talk(program, b"".join(messages) + b"\0" + IDENTIFY)
    last = answers[-1]
    assert (last.command, last.sequence, last.payload[0]) == (0x81, 77, 0)
    assert last.payload[10:74] == b"0123456789abcdef" * 4


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=1, max_size=MAX_PAYLOAD - 4))
def test_both_sides_encode_alike(program: Path, data: bytes) -> None:
    """What is set as input comes back, times three, through both encoders."""
    requests = [
        Frame(2, 1, bytes(2)),
        Frame(3, 2, bytes(4) + data),
        Frame(5, 3, bytes((1, 0))),
        Frame(7, 4, bytes(4) + len(data).to_bytes(2, "little")),
    ]
    answers = _talk(program, b"".join(map(encode_frame, requests)))
    assert [a.sequence for a in answers] == [1, 2, 3, 4]
    assert answers[-1].payload == b"\0" + bytes(3 * x & 0xFF for x in data)
