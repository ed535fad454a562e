"""Configured devices: the list, which one is meant, plugins. Under 10 s."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from fake_device import FakeDevice

from edgeofa.devices import configure, registry, store
from edgeofa.devices.local import LocalDevice
from edgeofa.devices.ssh_link import parse_address
from edgeofa.errors import DeviceError, FileFormatError, UsageError
from edgeofa.paths import data_dir
from edgeofa.targets import load_target


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGEOFA_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_devices_are_kept_and_forgotten(config) -> None:
    assert store.stored_devices() == ()
    configure.configure("desk-pi", "ssh://pi@desk", "rpi4")
    configure.configure("attic", "ssh://attic")
    assert [d.name for d in store.stored_devices()] == ["attic", "desk-pi"]
    assert store.require_device("desk-pi").target == "rpi4"
    assert store.remove_device("attic").address == "ssh://attic"
    assert store.find_device("attic") is None
    assert store.remove_device("desk-pi").name == "desk-pi"
    assert {p.name for p in config.iterdir()} <= {"devices.json", "devices.lock"}


def test_a_name_is_taken_once() -> None:
    configure.configure("pi", "ssh://one")
    with pytest.raises(UsageError, match="already"):
        configure.configure("pi", "ssh://two")
    configure.configure("pi", "ssh://two", replace=True)
    assert store.require_device("pi").address == "ssh://two"


def test_many_at_once_lose_nothing() -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: configure.configure(f"board{n}", f"ssh://board{n}"), range(12)))
    assert len(store.stored_devices()) == 12


@pytest.mark.parametrize(
    ("name", "address", "target", "words"),
    [
        ("My Pi", "ssh://pi", None, "not a device name"),
        ("../x", "ssh://pi", None, "not a device name"),
        ("qemu-user", "ssh://pi", None, "is a kind"),
        ("pi", "telnet://pi", None, "no kind of device"),
        ("pi", "shh://pi", None, "no kind of device"),
        ("pi", "ssh://pi:secret@pi", None, "password"),
        ("pi", "ssh://pi", "rpi44", "unknown target"),
    ],
)
def test_what_cannot_be_kept_is_refused(config, name, address, target, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        configure.configure(name, address, target)
    assert not (config / "devices.json").exists()


def test_an_unknown_name_comes_with_the_nearest() -> None:
    configure.configure("desk-pi", "ssh://pi@desk")
    with pytest.raises(UsageError) as caught:
        store.require_device("desk-pj")
    assert caught.value.hint == "did you mean desk-pi?"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"devices": [{"name": "x"}]}',
        b'{"devices": [{"name": "x", "address": "ssh://x", "password": "p"}]}',
        b'{"devices": [{"name": "x", "address": "ssh://x"}, {"name": "x", "address": "ssh://y"}]}',
        b'{"schema_version": 2}',
        b" " * ((1 << 20) + 1),
    ],
)
def test_a_foreign_list_is_refused_and_left_alone(config, content: bytes) -> None:
    config.mkdir()
    path = config / "devices.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError):
        store.stored_devices()
    with pytest.raises(FileFormatError):
        configure.configure("pi", "ssh://pi")
    assert path.read_bytes() == content


# ------------------------------------------------------------------------------- which is meant


def reached(monkeypatch) -> list[tuple[str, str]]:
    """Records what would be reached over ssh."""
    calls: list[tuple[str, str]] = []

    class Recorder(FakeDevice):
        def __init__(self, target, address):
            super().__init__(name=address)
            calls.append((target.name, address))

        @staticmethod
        def check_address(address: str) -> None:
            parse_address(address)

    monkeypatch.setattr("edgeofa.devices.ssh.SshDevice", Recorder)
    return calls


def test_the_targets_own_device_is_the_default() -> None:
    assert isinstance(registry.device_for(load_target("host")), LocalDevice)


def test_a_configured_device_goes_before_the_targets_own(monkeypatch) -> None:
    calls = reached(monkeypatch)
    configure.configure("desk", "ssh://desk", "rpi4")
    configure.configure("other", "ssh://other", "host")
    assert registry.device_for(load_target("rpi4")).name == "ssh://desk"
    assert registry.device_for(load_target("rpi4"), "desk").name == "ssh://desk"
    assert registry.device_for(load_target("rpi4"), "ssh://third").name == "ssh://third"
    assert calls == [("rpi4", "ssh://desk"), ("rpi4", "ssh://desk"), ("rpi4", "ssh://third")]
    assert isinstance(registry.device_for(load_target("host"), "local"), LocalDevice)
    with pytest.raises(UsageError, match="other is a host, not a rpi4"):
        registry.device_for(load_target("rpi4"), "other")


def test_one_of_several_has_to_be_named(monkeypatch) -> None:
    calls = reached(monkeypatch)
    configure.configure("one", "ssh://one", "rpi4")
    configure.configure("two", "ssh://two", "rpi4")
    with pytest.raises(UsageError, match="several devices") as caught:
        registry.device_for(load_target("rpi4"))
    assert caught.value.hint == "--device one or two"
    assert registry.device_for(load_target("rpi4"), "two").name == "ssh://two"
    assert calls == [("rpi4", "ssh://two")]


def test_a_target_that_needs_a_board_says_how_to_add_one(tmp_path) -> None:
    file = tmp_path / "board.toml"
    text = (data_dir() / "targets" / "host.toml").read_text()
    file.write_text(text.replace('"local"', '"ssh"').replace('"host"', '"board"'))
    with pytest.raises(DeviceError, match="no device is configured") as caught:
        registry.device_for(load_target(str(file)))
    assert "edgeofa device add NAME ssh://" in str(caught.value.hint)


def test_unknown_devices_are_named() -> None:
    with pytest.raises(UsageError, match="no device is called") as caught:
        registry.device_for(load_target("host"), "locl")
    assert caught.value.hint == "did you mean local?"


# -------------------------------------------------------------------------------------- plugins


def make_fake(target, address):
    return FakeDevice(name=f"{target.name} at {address}")


def make_nonsense(target, address):
    return "a device"


NOT_CALLABLE = 7


@pytest.fixture
def plugins(monkeypatch):
    def install(**points: str) -> None:
        found = [EntryPoint(n.replace("_", "-"), v, registry.GROUP) for n, v in points.items()]

        def entry_points(**query: str) -> EntryPoints:
            return EntryPoints(found).select(**query)

        monkeypatch.setattr(registry, "entry_points", entry_points)

    return install


def test_a_plugin_makes_devices(plugins, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "some_plugin", sys.modules[__name__])
    plugins(carrier="some_plugin:make_fake")
    host = load_target("host")
    assert registry.device_for(host, "carrier").name == "host at None"
    assert registry.device_for(host, "carrier://roof").name == "host at carrier://roof"
    configure.configure("pigeon", "carrier://roof", "host")
    assert registry.device_for(host).name == "host at carrier://roof"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_module:thing", "does not load"),
        ("some_plugin:NOT_CALLABLE", "is a int"),
    ],
)
def test_a_plugin_that_is_none_is_skipped(plugins, monkeypatch, value: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "some_plugin", sys.modules[__name__])
    plugins(carrier=value)
    with (
        pytest.warns(UserWarning, match=words),
        pytest.raises(DeviceError, match="no way to reach"),
    ):
        registry.device_for(load_target("host"), "carrier")


def test_a_plugin_must_make_a_device(plugins, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "some_plugin", sys.modules[__name__])
    plugins(carrier="some_plugin:make_nonsense")
    with pytest.raises(DeviceError, match="made a str"):
        registry.device_for(load_target("host"), "carrier")


def test_the_list_holds_no_secret(config) -> None:
    configure.configure("pi", "ssh://pi@board", "rpi4")
    record = json.loads((config / "devices.json").read_text())
    assert set(record["devices"][0]) == {"name", "address", "target", "target_file"}
    shutil.rmtree(config)
