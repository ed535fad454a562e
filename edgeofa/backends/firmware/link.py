"""Compiled networks and a target become one firmware image: kernels, board, protocol, networks.

An image may hold many networks, because writing one to a board takes longer than running most
blocks. They share the memory of their arenas: only one of them runs at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from edgeofa.backends.firmware.backend import COMPILER_FLAGS
from edgeofa.errors import DeviceError, FileFormatError, SetupError, UsageError
from edgeofa.microcontroller import KernelLevel, Microcontroller, Region
from edgeofa.paths import cache_dir, data_dir
from edgeofa.targets import Target

COMPILER = "arm-none-eabi-gcc"
PACKAGES = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi")
_NETWORK = "edgeofa_network"
#: of the C interface; each network of an image gets its own
_SYMBOLS = ("init", "run", "input", "output", "arena", "digest", "network_description")
_ARENA = "edgeofa_arena_memory"
_SIZES = ("INPUT_BYTES", "OUTPUT_BYTES", "ARENA_BYTES", "WEIGHT_BYTES", "LAYERS")
_TIMEOUT_S = 300
_MAX_MEMBER_BYTES = 1 << 26
_MAX_MEMBERS = 64
_SOURCE = re.compile(r"[A-Za-z0-9_]+\.(c|h|txt)")
MAX_NETWORKS = 256
_KEPT_IMAGES = 100
#: of what lies beside an image: to be raised when it gets another content
_RECORD = 2
#: what keeps a core from the levels above
_LEVELS: Mapping[KernelLevel, tuple[str, ...]] = {
    "portable": ("-DEDGEOFA_PORTABLE",),
    "dsp": ("-DEDGEOFA_NO_MVE",),
    "mve": (),
}


class DoesNotFit(DeviceError):
    """An image is larger than a memory of the board; ``over_bytes`` by how much."""

    def __init__(self, region: str, over_bytes: int, where: str):
        self.over_bytes = over_bytes
        super().__init__(
            f"the firmware is {over_bytes} bytes too large for the board's {region}",
            where=where,
            hint="a smaller network: edgeofa deploy with --flash and --sram",
        )


@dataclass(frozen=True)
class CompiledNetwork:
    """What the back end wrote: C sources by file name, and the sizes that its header states."""

    sha256: str
    files: Mapping[str, bytes]
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    weight_bytes: int
    layers: int


@dataclass(frozen=True)
class FirmwareImage:
    """A linked image. ``networks`` are the digests of its artifacts in the order of their numbers.

    ``flash_bytes`` and ``ram_bytes`` count everything, the stack included; ``code_bytes`` what each
    network takes of the flash beside its constants: its own loops and descriptions of layers, not
    the kernels that all networks share. ``toolchain`` and ``flags`` are what it was built with.
    """

    elf: Path
    bin: Path
    digest: str
    target: str
    emulated: bool
    networks: tuple[str, ...]
    flash_bytes: int
    ram_bytes: int
    code_bytes: tuple[int, ...]
    toolchain: str
    flags: tuple[str, ...]


@cache
def find_compiler() -> str | None:
    """The cross compiler's own line about its version; None when it is absent."""
    if shutil.which(COMPILER) is None:
        return None
    done = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[0].strip() if done.stdout else None


def read_network(path: Path) -> CompiledNetwork:
    """An artifact of the back end ``firmware``, or the folder that ``edgeofa compile`` wrote;
    ``FileFormatError`` when it is neither."""
    try:
        files = _folder(path) if path.is_dir() else _archive(path)
        header = files[f"{_NETWORK}.h"].decode()
        files[f"{_NETWORK}.c"]
    except (OSError, RuntimeError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(f"not a compiled network: {error}", where=path) from error
    sizes = {}
    for name in _SIZES:
        match = re.search(rf"^#define EDGEOFA_{name} ([0-9]{{1,9}})$", header, re.MULTILINE)
        if match is None:
            raise FileFormatError(f"{_NETWORK}.h does not state {name}", where=path)
        sizes[name.lower()] = int(match[1])
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return CompiledNetwork(digest.hexdigest(), files, **sizes)


def _archive(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise FileFormatError(f"{len(members)} files in it", where=path)
        for member in members:
            if not _SOURCE.fullmatch(member.filename):
                raise FileFormatError(f"a file {member.filename[:80]!r} in it", where=path)
            if member.file_size > _MAX_MEMBER_BYTES:
                raise FileFormatError(f"{member.filename} is too large", where=path)
        return {member.filename: archive.read(member) for member in members}


def _folder(path: Path) -> dict[str, bytes]:
    found = [p for p in sorted(path.iterdir()) if _SOURCE.fullmatch(p.name) and p.is_file()]
    if len(found) > _MAX_MEMBERS or any(p.stat().st_size > _MAX_MEMBER_BYTES for p in found):
        raise FileFormatError("too many or too large files in it", where=path)
    return {p.name: p.read_bytes() for p in found}


def link(target: Target, networks: Sequence[CompiledNetwork], *, emulated: bool) -> FirmwareImage:
    """The image of ``networks`` for the board of ``target``, or for its emulated stand-in.

    Images lie in the cache under the digest of everything that they are made of: the same inputs
    and the same compiler give the same bytes. The emulated board gets no more memory than the
    real one has.

    Raises:
        DoesNotFit: with the memory and the number of bytes.
        SetupError: no cross compiler. DeviceError: it refuses the sources.
    """
    mcu = _mcu(target, emulated)
    if not 1 <= len(networks) <= MAX_NETWORKS:
        raise UsageError(f"{len(networks)} networks in one image", hint=f"1 to {MAX_NETWORKS}")
    toolchain = find_compiler()
    if toolchain is None:
        raise SetupError(
            f"{COMPILER} is missing",
            where=f"target {target.name}",
            hint=f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)}",
        )
    runtime = _runtime(mcu, networks, emulated)
    flags = compiler_flags(mcu)
    places = _places(mcu, emulated)
    defines = {
        "EDGEOFA_CLOCK_HZ": f"{target.core.clock_hz:.0f}u" if target.core else "0u",
        "EDGEOFA_BAUD": f"{mcu.serial.baud}u",
        "EDGEOFA_FLASH_WAIT_STATES": f"{mcu.flash_wait_states}u",
        # boards that QEMU emulates have it; others do not look at it
        "EDGEOFA_UART": f"{mcu.emulation.uart:#x}u",
    }
    build = _Build(target.name, toolchain, flags, defines, places, runtime, tuple(networks))
    folder = cache_dir() / "firmware" / build.digest[:24]
    record = folder / "firmware.json"
    if not record.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not record.is_file():
                with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
                    build.make(Path(work), folder)
        _prune(folder.parent)
    elf = folder / "firmware.elf"
    sizes = json.loads(record.read_text())
    flash_bytes, ram_bytes = (int(x) for x in sizes["bytes"])
    return FirmwareImage(
        elf=elf,
        bin=elf.with_suffix(".bin"),
        digest=build.digest,
        target=target.name,
        emulated=emulated,
        networks=tuple(n.sha256 for n in networks),
        flash_bytes=flash_bytes,
        ram_bytes=ram_bytes,
        code_bytes=tuple(int(x) for x in sizes["code"]),
        toolchain=toolchain,
        flags=flags,
    )


def _prune(root: Path) -> None:
    """Keep the newest images: a profile makes one for every few dozen blocks."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in folders[_KEPT_IMAGES:]:
        shutil.rmtree(old, ignore_errors=True)


def compiler_flags(mcu: Microcontroller) -> tuple[str, ...]:
    """Everything that the code of a target is compiled with, paths and constants aside."""
    floats = (f"-mfpu={mcu.fpu}", "-mfloat-abi=hard") if mcu.fpu else ("-mfloat-abi=hard",)
    level = _LEVELS[mcu.kernels]
    return (f"-mcpu={mcu.cpu}", "-mthumb", *floats, *COMPILER_FLAGS, "-ffreestanding", *level)


def _mcu(target: Target, emulated: bool) -> Microcontroller:
    if target.mcu is None:
        raise UsageError("not a microcontroller: no section [mcu]", where=f"target {target.name}")
    if target.mcu.board is None and not emulated:
        raise UsageError("it exists emulated only", where=f"target {target.name}")
    return target.mcu


def _runtime(
    mcu: Microcontroller, networks: Sequence[CompiledNetwork], emulated: bool
) -> dict[str, bytes]:
    """Sources that all networks share, by path: their kernels, and what edgeofa adds."""
    root = data_dir() / "targets" / "runtime" / "mcu"
    board = "mps" if emulated else mcu.board
    boards = ("main.c", "startup.c", "cycles.c", f"{board}.c")
    files = [*(root / "protocol").glob("*.[ch]"), *(root / "boards").glob("*.h")]
    files += [root / "boards" / name for name in boards]
    if missing := [path.name for path in files if not path.is_file()]:
        raise UsageError(f"no board file {', '.join(missing)}", where=root / "boards")
    # the program that speaks for the host build is not firmware
    own = {str(p.relative_to(root)): p.read_bytes() for p in sorted(files) if "host" not in p.name}
    kernels = _kernels(networks[0])
    for network in networks[1:]:
        if _kernels(network) != kernels:
            raise UsageError(
                "networks that were compiled with different kernels cannot share an image",
                hint="compile them again with this version of edgeofa",
            )
    script = data_dir() / "firmware_scripts" / "linker" / "cortex_m.ld"
    return {**own, **kernels, "cortex_m.ld": script.read_bytes()}


def _kernels(network: CompiledNetwork) -> dict[str, bytes]:
    return {
        f"kernels/{name}": content
        for name, content in network.files.items()
        if not name.startswith(_NETWORK) and not name.endswith(".txt")
    }


def _places(mcu: Microcontroller, emulated: bool) -> dict[str, int]:
    """The memory map as the linker script's symbols."""
    flash, ram = mcu.flash, mcu.ram
    if emulated:
        flash, ram = (
            Region(origin=there.origin, bytes=min(there.bytes, real.bytes))
            for there, real in ((mcu.emulation.flash, flash), (mcu.emulation.ram, ram))
        )
    return {
        "edgeofa_flash_origin": flash.origin,
        "edgeofa_flash_bytes": flash.bytes,
        "edgeofa_ram_origin": ram.origin,
        "edgeofa_ram_bytes": ram.bytes,
        "edgeofa_stack_bytes": mcu.stack_bytes,
    }


@dataclass(frozen=True, eq=False)
class _Build:
    """Everything that one image is made of."""

    target: str
    toolchain: str
    flags: tuple[str, ...]
    defines: Mapping[str, str]
    places: Mapping[str, int]
    runtime: Mapping[str, bytes]
    networks: tuple[CompiledNetwork, ...]

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        facts = [_RECORD, self.target, self.toolchain, self.flags, self.defines, self.places]
        facts.append([n.sha256 for n in self.networks])
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for name, content in sorted(self.runtime.items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def make(self, work: Path, folder: Path) -> None:
        """Compile and link in ``work``; the record goes to ``folder`` last of all."""
        for name, content in self.runtime.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (work / "image.c").write_text(self._image())
        sources = [name for name in self.runtime if name.endswith(".c")]
        shared = [*self.flags, "-Wall", "-Ikernels", "-Iprotocol", "-Iboards"]
        shared += [f"-D{name}={value}" for name, value in self.defines.items()]
        self._run([COMPILER, *shared, "-c", "image.c", *sources], work)
        for number, network in enumerate(self.networks):
            self._compile_network(number, network, shared, work)
        objects = sorted(p.name for p in work.glob("*.o"))
        (work / "objects").write_text("\n".join(objects) + "\n")
        command = [COMPILER, *self.flags, "-nostartfiles", "-specs=nano.specs", "@objects"]
        command += ["-T", "cortex_m.ld", "-Wl,--gc-sections", "-Wl,--fatal-warnings"]
        command += ["-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments"]
        command += [f"-Wl,--defsym={name}={value:#x}" for name, value in self.places.items()]
        self._run([*command, "-o", "firmware.elf"], work)
        self._run(["arm-none-eabi-objcopy", "-O", "binary", "firmware.elf", "firmware.bin"], work)
        used = _used(self._run(["arm-none-eabi-size", "-A", "-d", "firmware.elf"], work))
        code = [self._code_bytes(i, network, work) for i, network in enumerate(self.networks)]
        (work / "firmware.json").write_text(json.dumps({"bytes": used, "code": code}) + "\n")
        for name in ("firmware.elf", "firmware.bin", "firmware.json"):
            (work / name).replace(folder / name)

    def _image(self) -> str:
        """The file that names this image's networks."""
        count = len(self.networks)
        arena = max(n.arena_bytes for n in self.networks)
        declared = [f"extern const edgeofa_network n{i}_network_description;" for i in range(count)]
        listed = [f"    &n{i}_network_description," for i in range(count)]
        return "\n".join(
            [
                '#include "server.h"',
                "",
                f"uint8_t {_ARENA}[{max(arena, 16)}] __attribute__((aligned(16)));",
                *declared,
                "static const edgeofa_network *const networks[] = {",
                *listed,
                "};",
                "const edgeofa_image edgeofa_this_image = {",
                f'    "{self.target}", "{self.digest}", EDGEOFA_CLOCK_HZ, {count}, networks,',
                "};",
                "",
            ]
        )

    def _compile_network(
        self, number: int, network: CompiledNetwork, shared: Sequence[str], work: Path
    ) -> None:
        own = work / f"n{number}"
        own.mkdir()
        for name in (f"{_NETWORK}.c", f"{_NETWORK}.h"):
            (own / name).write_bytes(network.files[name])
        command = [COMPILER, *shared, f"-DEDGEOFA_SHARED_ARENA={_ARENA}", "-DEDGEOFA_LAYER_HOOKS"]
        command += [f"-Dedgeofa_{symbol}=n{number}_{symbol}" for symbol in _SYMBOLS]
        self._run([*command, "-c", f"n{number}/{_NETWORK}.c", "-o", f"n{number}.o"], work)

    def _code_bytes(self, number: int, network: CompiledNetwork, work: Path) -> int:
        """Flash that a network takes beside its constants."""
        listed = self._run(["arm-none-eabi-size", "-A", "-d", f"n{number}.o"], work)
        sections = re.findall(r"^\.(?:text|rodata|data)\S*\s+([0-9]+)", listed, re.MULTILINE)
        return max(sum(int(size) for size in sections) - network.weight_bytes, 0)

    def _run(self, command: list[str], work: Path) -> str:
        try:
            done = subprocess.run(
                command, cwd=work, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupError(f"{command[0]} did not answer: {error}", where=self.target) from error
        if done.returncode == 0:
            return done.stdout
        over = re.search(r"region `(FLASH|RAM)' overflowed by ([0-9]{1,12}) bytes", done.stderr)
        if over is not None:
            region = {"FLASH": "flash", "RAM": "RAM"}[over[1]]
            raise DoesNotFit(region, int(over[2]), f"target {self.target}")
        errors = [x for x in done.stderr.splitlines() if "error" in x or "undefined" in x]
        said = "; ".join(errors[:3] or done.stderr.splitlines()[-3:])[:600]
        raise DeviceError(f"{command[0]} failed: {said}", where=f"target {self.target}")


def _used(sizes: str) -> tuple[int, int]:
    """Bytes of flash and RAM, from what ``size -A`` lists."""
    found = {m[1]: int(m[2]) for m in re.finditer(r"^(\.\S+)\s+([0-9]+)", sizes, re.MULTILINE)}
    flash = sum(found.get(name, 0) for name in (".text", ".ARM.exidx", ".data"))
    return flash, sum(found.get(name, 0) for name in (".data", ".bss", ".stack"))


def describe(image: FirmwareImage) -> dict[str, object]:
    """``image`` as plain values, for records and ``--json``."""
    values = asdict(image)
    return values | {"elf": str(image.elf), "bin": str(image.bin)}
