"""The emulator's command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgeofa.devices.native import build, runner_path
from edgeofa.emulation.qemu import profile_command, require_qemu
from edgeofa.emulation.sysroot import sysroot
from edgeofa.setup import requirements
from edgeofa.targets import load_target

TARGET = load_target("rpi4")
MISSING = [r.name for r in requirements(TARGET) if r.is_missing]
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(bool(MISSING), reason=f"edgeofa doctor: missing {', '.join(MISSING)}"),
]


def test_a_comma_in_the_caches_path_is_no_option(tmp_path: Path) -> None:
    assert TARGET.core is not None
    assert TARGET.emulation is not None
    plugin = tmp_path / "one, two" / "profile.so"
    plugin.parent.mkdir()
    plugin.symlink_to(build("edgeofa-profile", "host"))
    root = sysroot(TARGET.core, TARGET.emulation)
    command = profile_command(require_qemu(), "cortex-a72", TARGET.core, root, plugin)
    done = subprocess.run(
        [*command, runner_path("aarch64")], cwd=tmp_path, capture_output=True, timeout=60
    )
    # the program itself answers: it was given no library
    assert b"--library is missing" in done.stdout, done.stderr
    assert done.returncode == 2
