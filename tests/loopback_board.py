"""A board on this machine: a private sshd whose user land is aarch64 under qemu-aarch64.

Every command that comes over ssh runs in an arm64 busybox shell; what that starts runs under the
emulator too. The board has a root folder of its own for what it tells of itself (``proc``, ``sys``,
the device tree), which a test may change. Its clock is the emulator's: edgeofa must notice.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from edgeofa.emulation.qemu import find_qemu
from edgeofa.emulation.sysroot import LIBRARIES, cpuinfo, missing_libraries
from edgeofa.paths import cache_dir
from edgeofa.targets import load_target

_HERE = Path(__file__).resolve().parent
_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxSessions 64
MaxStartups 64
LogLevel ERROR
{force}
"""
_APPLETS = ("sh", "uname", "mkdir", "cat", "wc", "chmod", "mv", "rm", "touch", "find", "sleep")


def why_not() -> str | None:
    """What is missing for a loopback board; None when all is there."""
    for tool, package in (
        ("sshd", "openssh-server"),
        ("ssh", "openssh-client"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("dpkg-deb", "dpkg"),
    ):
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return f"apt-get install {package}"
    if find_qemu() is None or missing_libraries():
        return "edgeofa doctor --target rpi4"
    return None


def need_loopback() -> None:
    """Skip the calling module or test where there can be no loopback board, and say why."""
    reason = why_not()
    if reason is None and _busybox() is None:
        reason = "apt-get download busybox:arm64 does not work here"
    if reason is not None:
        pytest.skip(f"no loopback board: {reason}", allow_module_level=True)


def _busybox() -> Path | None:
    """An arm64 busybox out of Debian's package, kept in the cache; apt checks its signature."""
    folder = cache_dir() / "tests" / "busybox-arm64"
    found = folder / "busybox"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", timeout=300):
        if found.is_file():
            return found
        state = folder / "apt"
        for name in ("lists/partial", "archives/partial"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        options = [f"Dir::State::Lists={state}/lists", f"Dir::State::status={state}/status"]
        options += [f"Dir::Cache={state}", "APT::Architecture=arm64", "APT::Architectures=arm64"]
        options += ["APT::Sandbox::User=", "Debug::NoLocking=1"]
        apt = ["apt-get", "-q", *(word for o in options for word in ("-o", o))]
        for verb in (["update"], ["download", "busybox"]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([*apt, *verb], cwd=state, capture_output=True, timeout=120)
        package = next(state.glob("busybox_*.deb"), None)
        if package is None:
            return None
        content = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True, timeout=60
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            member = next(m for m in archive if m.name.endswith("bin/busybox"))
            file = archive.extractfile(member)
            assert file is not None
            found.with_suffix(".new").write_bytes(file.read())
        found.with_suffix(".new").chmod(0o755)
        found.with_suffix(".new").rename(found)
        shutil.rmtree(state)
    return found


def _shim(root: Path, busybox: Path, folder: Path) -> Path:
    qemu = find_qemu()
    assert qemu is not None
    path = folder / "execute.so"
    names = {"QEMU": qemu.path, "ROOT": root, "BUSYBOX": busybox, "SHIM": path}
    macros = [f'-D{name}="{value}"' for name, value in names.items()]
    source = _HERE / "loopback" / "execute.c"
    command = ["aarch64-linux-gnu-gcc", "-O1", "-shared", "-fPIC", *macros, "-o", path, source]
    subprocess.run(command, check=True, timeout=120)
    return path


@dataclass
class LoopbackBoard:
    """One running board. ``root`` is what its programs see of ``/proc`` and ``/sys``."""

    folder: Path
    machine: str = "aarch64"
    port: int = 0
    _sshd: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def objects(self) -> Path:
        """What edgeofa keeps on the board."""
        return self.home / ".cache" / "edgeofa" / "objects"

    @property
    def held(self) -> set[str]:
        """Names of what edgeofa keeps on the board."""
        return {p.name for p in self.objects.iterdir()}

    @property
    def address(self) -> str:
        return self.address_at(self.port)

    def address_at(self, port: int) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port}"

    @property
    def ssh(self) -> str:
        """The value of EDGEOFA_SSH by which it is reached."""
        return f"ssh -F {self.folder}/ssh_config"

    def make(self) -> None:
        """Keys, root folder and user land; nothing runs yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("home", "tmp", "bin"):
            (self.folder / name).mkdir()
        for key in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key]
            subprocess.run(command, check=True, timeout=60)
        self._make_root()
        if self.machine == "aarch64":
            busybox = _busybox()
            assert busybox is not None
            for applet in _APPLETS:
                (self.folder / "bin" / applet).symlink_to(busybox)
            shim = _shim(self.root, busybox, self.folder)
            self.set_shell(
                f"{find_qemu().path} -cpu cortex-a72 -L {self.root} -E LD_PRELOAD={shim} "
                f"-0 sh {busybox}"
            )
        else:
            for applet in _APPLETS:
                (self.folder / "bin" / applet).symlink_to(shutil.which(applet))
            self.set_shell("/bin/sh")

    def set_shell(self, shell: str, before: str = "") -> None:
        """What runs the commands that come in, and host shell code in front of it."""
        environment = f"HOME={self.home} TMPDIR={self.folder}/tmp PATH={self.folder}/bin"
        script = self.folder / "command"
        new = script.with_suffix(".new")
        new.write_text(
            f"#!/bin/sh\nulimit -c 0\n{before}\n"
            f'exec env -i {environment} {shell} -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        new.chmod(0o755)
        new.rename(script)
        self.shell = shell

    def start(self) -> None:
        """Listen on a free port, or again on the one that it had."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where its package would have put it
        if not self.port:
            with closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        config = self.folder / "sshd_config"
        force = f"ForceCommand {self.folder}/command"
        config.write_text(_CONFIG.format(port=self.port, folder=self.folder, force=force))
        sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin")
        assert sshd is not None
        log = (self.folder / "sshd.log").open("ab")
        self._sshd = subprocess.Popen(
            [sshd, "-D", "-e", "-f", config], stderr=log, start_new_session=True
        )
        log.close()
        self.know(self.port)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._sshd.poll() is not None or time.monotonic() > deadline:
                    log_text = (self.folder / "sshd.log").read_text()[-400:]
                    pytest.skip(f"no loopback board: sshd does not start: {log_text}")
                time.sleep(0.05)

    def require_login(self) -> None:
        """Skip where the current user may not log in at all (no shell, a locked account)."""
        command = [*self.ssh.split(), "-o", "BatchMode=yes", "-p", str(self.port)]
        command += [f"{getpass.getuser()}@127.0.0.1", "true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"no loopback board: no log-in: {done.stderr.strip()[-200:]}")

    def know(self, *ports: int) -> None:
        """The client's configuration, which knows the board's host key at these ports."""
        key = (self.folder / "host_key.pub").read_text().split()[:2]
        known = "".join(f"[127.0.0.1]:{port} {' '.join(key)}\n" for port in ports)
        (self.folder / "known_hosts").write_text(known)
        (self.folder / "ssh_config").write_text(
            f"IdentityFile {self.folder}/user_key\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {self.folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
        )

    def drop(self) -> None:
        """Every connection ends at once, and with it what ran for it: the power is gone."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's end of every connection."""
        assert self._sshd is not None
        children = Path(f"/proc/{self._sshd.pid}/task/{self._sshd.pid}/children")
        for pid in children.read_text().split():
            os.kill(int(pid), number)

    def stop(self) -> None:
        if self._sshd is not None:
            self.drop()
            self._sshd.kill()
            self._sshd.wait()
            self._sshd = None

    def write(self, path: str, content: str) -> Path:
        """A file that the board's programs see at the absolute ``path``."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def _make_root(self) -> None:
        target = load_target("rpi4")
        assert target.core is not None
        assert target.emulation is not None
        core = target.core.model_copy(update={"cores": 2})
        self.root.mkdir()
        (self.root / "lib").symlink_to(LIBRARIES)
        self.write("/proc/cpuinfo", cpuinfo(core, target.emulation))
        self.write("/proc/device-tree/model", "Loopback Board Model 4\0")
        for name in ("possible", "present", "online"):
            self.write(f"/sys/devices/system/cpu/{name}", "0-1\n")
        for name, value in {
            "cpuinfo_max_freq": "1500000",
            "cpuinfo_min_freq": "600000",
            "scaling_max_freq": "1500000",
            "scaling_min_freq": "600000",
            "scaling_cur_freq": "600000",
            "scaling_governor": "ondemand",
        }.items():
            self.write(f"/sys/devices/system/cpu/cpufreq/policy0/{name}", f"{value}\n")
        for number in range(core.cores):
            processor = self.root / f"sys/devices/system/cpu/cpu{number}"
            processor.mkdir()
            (processor / "cpufreq").symlink_to("../cpufreq/policy0")
        self.write("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        self.write("/sys/class/thermal/thermal_zone0/temp", "48312\n")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
