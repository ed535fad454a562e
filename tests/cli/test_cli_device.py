"""``edgeofa device`` and ``edgeofa target new`` on the command line. Under 10 s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EDGEOFA = Path(sys.executable).parent / "edgeofa"


@pytest.fixture
def edgeofa(tmp_path):
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "EDGEOFA_CONFIG": str(tmp_path / "config")}
        return subprocess.run(
            [EDGEOFA, *args], capture_output=True, text=True, cwd=tmp_path, env=environment
        )

    return run


def test_a_device_is_added_listed_and_removed(edgeofa) -> None:
    added = edgeofa("device", "add", "desk-pi", "ssh://pi@desk", "--target", "rpi4", "--json")
    assert json.loads(added.stdout)["target"] == "rpi4"
    assert edgeofa("device", "list").stdout.split() == ["desk-pi", "ssh://pi@desk", "rpi4"]
    assert edgeofa("device", "remove", "desk-pi").returncode == 0
    assert json.loads(edgeofa("device", "list", "--json").stdout) == []


def test_this_machine_is_probed_and_becomes_a_target(edgeofa, tmp_path) -> None:
    probed = edgeofa("device", "probe", "local")
    assert probed.returncode == 0, probed.stderr
    assert "C library" in probed.stdout
    assert edgeofa("device", "add", "this-one", "local:").returncode == 0
    made = edgeofa("target", "new", "--from-device", "this-one", "--out", "bench.toml")
    assert made.returncode == 0, made.stderr
    assert 'device = "local"' in (tmp_path / "bench.toml").read_text()
    valid = edgeofa("target", "validate", "bench.toml", "--json")
    assert json.loads(valid.stdout)["name"] == "bench"
    # its name alone is enough from now on
    assert "bench" in edgeofa("target", "list").stdout
    assert edgeofa("target", "validate", "bench").returncode == 0
    (tmp_path / "bench.toml").unlink()
    gone = edgeofa("target", "show", "bench")
    assert gone.returncode == 2
    assert "not there any more" in gone.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("device", "probe", "nobody"), 2, "no device is called"),
        (("device", "probe", "qemu-user:x"), 2, "nothing to probe"),
        (("device", "add", "x", "ssh://pi:secret@x"), 2, "ssh-copy-id"),
        (("target", "new", "--from-device", "nobody"), 2, "edgeofa device add"),
        (("target", "new", "--from-device", "nobody", "--out", "x.txt"), 2, "no device"),
        (("device", "probe", "ssh://127.0.0.1:1"), 4, "cannot be reached"),
    ],
)
def test_mistakes_are_one_message(edgeofa, args, code: int, words: str) -> None:
    done = edgeofa(*args)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
