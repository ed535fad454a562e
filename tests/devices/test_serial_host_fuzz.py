"""The host's side of the protocol against any answers: what it returns is plausible, all else a
``DeviceError`` in time. About 6 s."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeofa.devices.serial_frames import MAX_PAYLOAD, Frame, FrameReader, encode_frame
from edgeofa.devices.serial_protocol import (
    BoardInfo,
    BoardLink,
    MemoryUse,
    NetworkInfo,
    clock_error,
)
from edgeofa.errors import DeviceError

_REPLY_S = 0.02
DIGEST = b"0123456789abcdef" * 4

#: what a payload is made of: numbers of any size, a digest, text
_NUMBERS = st.one_of(
    st.integers(0, 300), st.sampled_from([0xFFFF, 1 << 28, (1 << 32) - 1, MAX_PAYLOAD])
)
_PAYLOADS = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=MAX_PAYLOAD),
    st.builds(
        lambda numbers, sizes, tail: (
            b"\0"
            + b"".join(
                n.to_bytes(8, "little")[:size] for n, size in zip(numbers, sizes, strict=False)
            )
            + tail
        ),
        st.lists(_NUMBERS, max_size=12),
        st.lists(st.sampled_from([1, 2, 4, 8]), min_size=12, max_size=12),
        st.sampled_from(
            [b"", b"0123456789abcdef" * 4, b"0123456789abcdef" * 4 + b"board", b"\xff"]
        ),
    ),
)
#: an answer to a request: to the very one, to another one, a broken one, or just bytes
_ANSWERS = st.one_of(
    st.builds(
        lambda payload: lambda f: encode_frame(Frame(f.command | 0x80, f.sequence, payload)),
        _PAYLOADS,
    ),
    st.builds(
        lambda command, payload: lambda f: encode_frame(Frame(command, f.sequence, payload)),
        st.integers(0, 255),
        _PAYLOADS,
    ),
    st.builds(
        lambda payload, cut: (
            lambda f: encode_frame(Frame(f.command | 0x80, f.sequence, payload))[:cut]
        ),
        _PAYLOADS,
        st.integers(0, 40),
    ),
    st.builds(lambda noise: lambda _: noise, st.binary(max_size=200)),
)
Answer = Callable[[Frame], bytes]


class _Port:
    """A port in memory whose other side answers each request with the next of ``answers``, and
    whose cable is cut where it would have to be waited for."""

    def __init__(self, answers: list[Answer]):
        self.timeout: float | None = None
        self._answers = answers
        self._reader = FrameReader()
        self._waiting = bytearray()

    def read(self, size: int = 1) -> bytes:
        if not self._waiting and self.timeout:
            raise OSError("cut")
        chunk = bytes(self._waiting[:size])
        del self._waiting[:size]
        return chunk

    def write(self, data: bytes, /) -> int | None:
        for frame in self._reader.feed(data):
            if self._answers:
                self._waiting += self._answers.pop(0)(frame)
        return len(data)


_ASKED: dict[str, Callable[[BoardLink], object]] = {
    "identify": lambda link: link.identify(),
    "select": lambda link: link.select(0),
    "set": lambda link: link.set_input(bytes(1500)),
    "fill": lambda link: link.fill_input(1),
    "run": lambda link: link.run(3, limit_s=_REPLY_S),
    "layers": lambda link: link.layer_cycles(),
    "output": lambda link: link.output(1500),
    "memory": lambda link: link.memory(),
    "wait": lambda link: link.wait(1000, limit_s=_REPLY_S),
}


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(_ASKED)), st.lists(_ANSWERS, max_size=6))
def test_any_answer_is_a_plausible_value_or_a_clear_error(
    command: str, answers: list[Answer]
) -> None:
    link = BoardLink(_Port(answers), "a port", reply_s=_REPLY_S)
    try:
        value = _ASKED[command](link)
    except DeviceError:
        return
    if isinstance(value, BoardInfo):
        assert len(value.digest) == 64
        assert value.clock_hz > 0
    elif isinstance(value, NetworkInfo):
        assert max(value.input_bytes, value.output_bytes, value.arena_bytes) <= 1 << 28
    elif isinstance(value, MemoryUse):
        assert value.arena_used <= value.arena_bytes
        assert value.stack_used <= value.stack_bytes
    elif command == "run":
        assert isinstance(value, tuple)
        assert len(value) == 3
    elif command == "output":
        assert isinstance(value, bytes)
        assert len(value) == 1500


def test_layers_that_never_end_do() -> None:
    """A board that claims ever more layers, one an answer."""

    def one_more(frame: Frame) -> bytes:
        payload = b"\0" + struct.pack("<I", (1 << 32) - 1) + struct.pack("<HQ", 1, 2)
        return encode_frame(Frame(frame.command | 0x80, frame.sequence, payload))

    link = BoardLink(_Port([one_more] * 300), "a port", reply_s=_REPLY_S)
    with pytest.raises(DeviceError, match="256 are recorded at most"):
        link.layer_cycles()


def test_a_count_of_no_cycles_is_no_clock() -> None:
    def counted(frame: Frame) -> bytes:
        return encode_frame(Frame(frame.command | 0x80, frame.sequence, bytes(9)))

    link = BoardLink(_Port([counted] * 100), "a port", reply_s=_REPLY_S)
    assert abs(clock_error(link, 120e6, seconds=0.01)) > 0.02
