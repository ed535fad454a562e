"""Boards, links and addresses that are wrong: each a clear error in time. About 40 s."""

from __future__ import annotations

import shutil
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_board import digest, need_loopback

from edgeofa.devices.base import Job, Measurement
from edgeofa.devices.ssh_link import LINK_STATUS, Link, parse_address
from edgeofa.errors import DeviceError, LinkLost, UsageError

need_loopback()
pytestmark = pytest.mark.device


# ---------------------------------------------------------------------- boards and links gone bad


def test_an_unknown_host_key_is_never_accepted(plain, reach) -> None:
    (plain.folder / "known_hosts").write_text("")
    try:
        with pytest.raises(DeviceError, match="accepts none by itself") as caught:
            reach(plain)
    finally:
        plain.know(plain.port)
    assert f"ssh-keyscan -p {plain.port} 127.0.0.1" in str(caught.value.hint)
    assert not isinstance(caught.value, LinkLost)


def test_a_changed_host_key_is_refused(plain, reach) -> None:
    other = (plain.folder / "user_key.pub").read_text().split()[:2]
    (plain.folder / "known_hosts").write_text(f"[127.0.0.1]:{plain.port} {' '.join(other)}\n")
    try:
        with pytest.raises(DeviceError, match="not the one that is known") as caught:
            reach(plain)
    finally:
        plain.know(plain.port)
    assert "ssh-keygen -R" in str(caught.value.hint)


def test_nobody_is_let_in_without_a_key(plain, reach, monkeypatch) -> None:
    config = plain.folder / "ssh_config"
    config.write_text(config.read_text().replace("user_key", "host_key"))
    try:
        with pytest.raises(DeviceError, match="does not let us in") as caught:
            reach(plain)
    finally:
        plain.know(plain.port)
    assert "ssh-copy-id" in str(caught.value.hint)


def test_a_board_that_is_not_there_is_an_error(plain, reach) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(LinkLost, match="cannot be reached"):
            reach(plain, plain.address_at(closed.getsockname()[1]))
    with pytest.raises(DeviceError, match="no board of this name"):
        reach(plain, "ssh://nowhere.invalid")


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("echo Welcome", "not an aarch64 or x86-64 Linux board|nonsense"),
        ("head -c 300000 /dev/zero", "more than"),
        ("printf 'Linux\\nmips\\n'; exit 0", "uname says 'Linux mips'"),
        ("printf 'Linux armv7l'; exit 0", "32-bit Arm"),
        ("exit 3", "uname says ''"),
        (r"printf '\033]0;owned\007\nno room' >&2; exit 72", r"no folder.*\?\]0;owned\? no room"),
        ("ulimit -f 100; trap '' XFSZ", "cannot store a program"),
    ],
)
def test_a_board_that_answers_nonsense_is_refused(plain, reach, before: str, words: str) -> None:
    shutil.rmtree(plain.objects.parent, ignore_errors=True)
    plain.set_shell("/bin/sh", before)
    try:
        with pytest.raises(DeviceError, match=words) as caught:
            reach(plain)
    finally:
        plain.set_shell("/bin/sh")
    assert not isinstance(caught.value, LinkLost)


def test_programs_of_another_machine_do_not_start(plain, reach) -> None:
    uname = plain.folder / "bin" / "uname"
    uname.unlink()
    uname.write_text("#!/bin/sh\necho Linux; echo aarch64\n")
    uname.chmod(0o755)
    try:
        with pytest.raises(DeviceError, match="does not run edgeofa's program"):
            reach(plain)
    finally:
        uname.unlink()
        uname.symlink_to(shutil.which("uname"))


def test_a_disk_that_fills_in_the_middle_fails_clearly(plain, reach, model) -> None:
    shutil.rmtree(plain.objects.parent, ignore_errors=True)
    device = reach(plain)
    plain.set_shell("/bin/sh", "ulimit -f 3000; trap '' XFSZ")
    try:
        with pytest.raises(DeviceError, match="cannot be written") as caught:
            device.run([Job(model, "litert")])
    finally:
        plain.set_shell("/bin/sh")
    assert not isinstance(caught.value, LinkLost)
    assert {digest(p) for p in plain.objects.iterdir()} == plain.held
    (outcome,) = device.run([Job(model, "litert")])
    assert isinstance(outcome, Measurement)


def test_a_folder_that_cannot_be_made_is_named(plain, reach) -> None:
    with pytest.raises(DeviceError, match="no folder for edgeofa's files"):
        reach(plain, f"{plain.address}/dev/null/x")


def test_another_folder_is_used(plain, reach, model) -> None:
    folder = plain.folder / "elsewhere"
    device = reach(plain, f"{plain.address}{folder}")
    assert isinstance(device.run([Job(model, "litert")])[0], Measurement)
    assert (folder / "objects").is_dir()


def test_a_board_that_hangs_is_left_in_time(plain, monkeypatch) -> None:
    monkeypatch.setenv("EDGEOFA_SSH", plain.ssh)
    link = Link(parse_address(plain.address), "board")
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        link.run("sleep 600", timeout_s=1)
    link.close()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_arguments_reach_the_board_as_they_are(plain, monkeypatch, words: list[str]) -> None:
    monkeypatch.setenv("EDGEOFA_SSH", plain.ssh)
    link = Link(parse_address(plain.address), "board")
    answer = link.run('for w; do echo "${#w}"; printf "%s\\n" "$w"; done', *words)
    link.close()
    assert answer.status == 0
    for word in words:
        assert word.encode() in answer.output


# -------------------------------------------------------------------------------------- addresses


def test_addresses() -> None:
    full = parse_address("ssh://pi@board.local:2222/data/edgeofa")
    assert (full.user, full.host, full.port, full.folder) == (
        "pi",
        "board.local",
        2222,
        "/data/edgeofa",
    )
    assert parse_address("ssh://[fe80::1%eth0]:22/").host == "fe80::1%eth0"
    assert parse_address("ssh://alias").user is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ssh://pi:secret@board", "password"),
        ("ssh://-oProxyCommand=touch/x", "not an address"),
        ("ssh://board;reboot", "not an address"),
        ("ssh://board:99999", "port"),
        ("ssh://$(id)@board", "not an address"),
        ("ssh://board/folder with space", "not an address"),
        ("ssh://", "not an address"),
        ("http://board", "not an address"),
    ],
)
def test_bad_addresses_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_address(text)


@given(st.text(max_size=60))
def test_no_text_becomes_an_option_of_ssh(text: str) -> None:
    try:
        address = parse_address(f"ssh://{text}")
    except UsageError:
        return
    assert not address.host.startswith("-")
    assert address.user is None or not address.user.startswith("-")
    assert LINK_STATUS == 255
