"""Loopback boards for the tests of devices over ssh."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_board import LoopbackBoard
from sample_graphs import float_graph

from edgeofa.backends.registry import get_backend
from edgeofa.devices import runner, ssh_link
from edgeofa.devices.ssh import SshDevice
from edgeofa.targets import load_target


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Iterator[LoopbackBoard]:
    """An aarch64 board."""
    yield from running(LoopbackBoard(tmp_path_factory.mktemp("arm") / "board"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Iterator[LoopbackBoard]:
    """A board of this machine's own kind."""
    board = LoopbackBoard(tmp_path_factory.mktemp("plain") / "board", machine=platform.machine())
    yield from running(board)


def running(board: LoopbackBoard) -> Iterator[LoopbackBoard]:
    board.make()
    board.start()
    board.require_login()
    yield board
    board.stop()


@pytest.fixture
def patience(monkeypatch) -> None:
    """Waits between attempts short enough for tests."""
    monkeypatch.setattr(ssh_link, "_RETRY_WAITS_S", (0.1,) * 4)
    monkeypatch.setattr(runner, "_BREAK_REST_S", 0.05)


@pytest.fixture
def reach(monkeypatch, patience):
    """Makes a device of a board."""
    made: list[SshDevice] = []

    def make(board: LoopbackBoard, address: str = "", target: str | None = None) -> SshDevice:
        monkeypatch.setenv("EDGEOFA_SSH", board.ssh)
        kind = load_target(target) if target else None
        made.append(SshDevice(kind, address or board.address))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return get_backend("litert").compile(float_graph("network"), folder / "network.tflite").path
