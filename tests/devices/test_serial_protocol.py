"""The host's side of the protocol, against the firmware's own code and against ports gone wrong."""

from __future__ import annotations

import os
import pty
import random
import socket
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from host_board import DIGEST, SIZE, build_host_board, on_pty, on_socket

from edgeofa.devices.monitor import observe
from edgeofa.devices.serial_frames import Frame, FrameReader, encode_frame
from edgeofa.devices.serial_port import open_port
from edgeofa.devices.serial_protocol import BoardLink, clock_error
from edgeofa.errors import DeviceError, UsageError
from edgeofa.report.boards import observation_text
from edgeofa.targets import load_target


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_host_board(tmp_path_factory.mktemp("board"))


@pytest.mark.parametrize("reach", [on_pty, on_socket])
def test_every_command(program: Path, reach) -> None:
    with reach(program) as name, open_port(name, 115200) as port:
        link = BoardLink(port, name)
        board = link.identify()
        assert (board.target, board.digest) == ("nucleo-l4r5zi", DIGEST)
        assert (board.clock_hz, board.networks, board.timer) == (120_000_000, 1, "dwt")
        network = link.select(0)
        assert (network.input_bytes, network.output_bytes, network.layers) == (SIZE, SIZE, 2)
        data = random.Random(0).randbytes(SIZE)
        link.set_input(data)
        assert len(link.run(3)) == 3
        assert link.output(SIZE) == bytes(3 * x & 0xFF for x in data)
        link.run(1, layers=True)
        assert len(link.layer_cycles()) == 2
        memory = link.memory()
        assert memory.stack_used == 100
        assert 2 * SIZE - 8 <= memory.arena_used <= 2 * SIZE
        link.fill_input(1)
        link.run(1)
        first = link.output(100)
        link.fill_input(2)
        link.run(1)
        assert link.output(100) != first


def test_refusals_are_named(program: Path) -> None:
    with on_pty(program) as name, open_port(name, 115200) as port:
        link = BoardLink(port, name)
        with pytest.raises(DeviceError, match="refuses run: no network was selected"):
            link.run(1)
        with pytest.raises(DeviceError, match="refuses select: a value out of range"):
            link.select(7)
        link.select(0)
        with pytest.raises(DeviceError, match="refuses set_input: a value out of range"):
            link.set_input(bytes(SIZE + 1))


@pytest.mark.parametrize(("share", "right"), [("1.0", True), ("0.5", False), ("2.0", False)])
def test_a_wrong_clock_is_noticed(program: Path, share: str, right: bool) -> None:
    with on_pty(program, share) as name, open_port(name, 115200) as port:
        error = clock_error(BoardLink(port, name), 120e6, seconds=0.3)
        assert (abs(error) < 0.2) == right


def test_monitor(program: Path) -> None:
    with on_pty(program) as name:
        found = observe(load_target("nucleo-l4r5zi"), name, network=0, runs=2)
    assert found.timing is not None
    assert len(found.timing.layer_cycles) == 2
    text = observation_text(found)
    assert "nucleo-l4r5zi" in text
    assert "layer 1" in text
    with on_pty(program) as name, pytest.raises(DeviceError, match="for nucleo-l4r5zi, not for"):
        observe(load_target("nrf5340"), name)
    with on_pty(program) as name, pytest.raises(UsageError, match="network 3"):
        observe(load_target("nucleo-l4r5zi"), name, network=3)
    with pytest.raises(UsageError, match="no port is known"):
        observe(load_target("nucleo-l4r5zi"), None)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds, "no error within the time limit"


@contextmanager
def _peer(serve) -> Iterator[str]:
    """A pseudo-terminal whose other end is ``serve(descriptor, stop)``."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(master, stop), daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        stop.set()
        os.close(slave)
        thread.join(5)
        os.close(master)


def _mute(master: int, stop: threading.Event) -> None:
    stop.wait()


def _babbling(master: int, stop: threading.Event) -> None:
    noise = random.Random(3)
    os.set_blocking(master, False)
    while not stop.is_set():
        try:
            os.write(master, noise.randbytes(512))
        except BlockingIOError:
            stop.wait(0.001)
        except OSError:
            return


def _answering(make):
    """Answers each request with ``make(request)``."""

    def serve(master: int, stop: threading.Event) -> None:
        reader = FrameReader()
        os.set_blocking(master, False)
        while not stop.is_set():
            try:
                for frame in reader.feed(os.read(master, 4096)):
                    os.write(master, make(frame))
            except BlockingIOError:
                stop.wait(0.001)
            except OSError:
                return

    return serve


def _whole(frame: Frame) -> bytes:
    body = b"\0" + (1024).to_bytes(2, "little") + bytes((1, 0)) + (10**8).to_bytes(4, "little")
    return encode_frame(
        Frame(frame.command | 0x80, frame.sequence, body + b"\1" + DIGEST.encode() + b"board")
    )


def _version_2(frame: Frame) -> bytes:
    return encode_frame(Frame(frame.command | 0x80, frame.sequence, b"\0", version=2))


def _foreign(frame: Frame) -> bytes:
    return encode_frame(Frame(frame.command | 0x80, frame.sequence, b"\0hello"))


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (_mute, "the port is mute"),
        (_babbling, "babbles|no answer to identify"),
        (_answering(lambda f: _whole(f)[:20]), "cut in the middle of a frame"),
        (_answering(lambda _: b"\0" + bytes(20) + b"abc\0"), "broken frames"),
        (_answering(_version_2), "speaks version 2 of the protocol"),
        (_answering(_foreign), "the answer cannot be what it says of itself"),
    ],
    ids=["mute", "babbling", "cut", "garbage", "version", "foreign"],
)
def test_a_port_gone_wrong_is_a_clear_error_and_is_released(serve, message: str) -> None:
    before = _descriptors()
    with _peer(serve) as name:
        with (
            _limit(6),
            pytest.raises(DeviceError, match=message),
            open_port(name, 115200) as port,
        ):
            BoardLink(port, name, reply_s=0.3).identify()
        # the port is free again
        with open_port(name, 115200):
            pass
    assert _descriptors() == before


def test_an_answer_lost_once_is_asked_for_again() -> None:
    seen: list[int] = []

    def make(frame: Frame) -> bytes:
        seen.append(frame.sequence)
        return _whole(frame)[:-9] if len(seen) == 1 else _whole(frame)

    with _peer(_answering(make)) as name, open_port(name, 115200) as port:
        assert BoardLink(port, name, reply_s=0.3).identify().target == "board"
    assert seen == [1, 2]


@pytest.mark.parametrize("bytes_left", [0, 3, 40])
def test_a_board_that_vanishes(program: Path, bytes_left: int) -> None:
    before = _descriptors()
    with (
        on_socket(program, "1", str(bytes_left)) as name,
        _limit(10),
        pytest.raises(DeviceError, match=r"line was cut|cut in the middle|mute"),
        open_port(name, 115200) as port,
    ):
        BoardLink(port, name, reply_s=0.5).identify()
    assert _descriptors() <= before


def test_a_babbling_socket_can_be_opened() -> None:
    """pyserial empties the input of a socket for as long as some comes."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                while not stop.is_set():
                    try:
                        connection.sendall(b"\x55" * 65536)
                    except OSError:
                        return

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        name = f"socket://127.0.0.1:{server.getsockname()[1]}"
        with (
            _limit(10),
            pytest.raises(DeviceError, match="babbles"),
            open_port(name, 115200) as port,
        ):
            BoardLink(port, name).identify()
        stop.set()
        thread.join(5)


@pytest.mark.parametrize("name", ["", "/dev/does-not-exist", "socket://127.0.0.1:1", "a\nb"])
def test_a_port_that_is_not_there(name: str) -> None:
    with pytest.raises(DeviceError, match="port"), open_port(name, 115200):
        pass
