"""Cycles of a basic block on one core, priced by llvm-mca and remembered on disk.

A block's price is its steady-state cycles per execution when it repeats: what the pipeline model
of LLVM says about dependences, ports and dispatch, with every access a hit in L1.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from edgeofa.errors import DeviceError, SetupError

#: raise when the way of pricing changes: answers of other versions are not used
_PRICING = 1
_ITERATIONS = 100
_TIMEOUT_S = 300
#: what runtimes may contain beyond the core's own instructions (kernels chosen at run time)
_FEATURES = "+v8.2a,+fullfp16,+dotprod"
_LLVM_VERSIONS = ("19", "20", "21", "22")
#: the first that can skip an instruction it has no model for
_OLDEST_LLVM = 19


@dataclass(frozen=True)
class Llvm:
    """The two tools and their version."""

    mc: Path
    mca: Path
    version: str


@cache
def find_llvm() -> Llvm | None:
    """llvm-mc and llvm-mca of one version, 19 preferred; None when absent."""
    for suffix in (*(f"-{version}" for version in _LLVM_VERSIONS), ""):
        mc, mca = shutil.which(f"llvm-mc{suffix}"), shutil.which(f"llvm-mca{suffix}")
        if mc is None or mca is None:
            continue
        text = subprocess.run([mca, "--version"], capture_output=True, text=True, timeout=60).stdout
        match = re.search(r"LLVM version ([0-9]{1,3})([0-9.]{0,20})", text)
        if match and int(match[1]) >= _OLDEST_LLVM:
            return Llvm(Path(mc), Path(mca), match[1] + match[2])
    return None


def require_llvm() -> Llvm:
    """:func:`find_llvm`, or a ``SetupError`` that names the package."""
    llvm = find_llvm()
    if llvm is None:
        raise SetupError("llvm-mca is missing", hint="apt-get install llvm-19")
    return llvm


@dataclass(frozen=True)
class Isa:
    """How LLVM is told about an instruction set, and how the code of a block is written.

    ``split`` gives a block's instructions, ``unit`` the bytes of the little-endian units that
    their hexadecimal digits are written in.
    """

    triple: str
    features: str
    split: Callable[[str], list[str]]
    unit: int

    def bytes_of(self, instruction: str) -> str:
        """The instruction's bytes in memory order, as llvm-mc reads them."""
        digits = 2 * self.unit
        units = [instruction[i : i + digits] for i in range(0, len(instruction), digits)]
        return " ".join(f"0x{u[i : i + 2]}" for u in units for i in range(digits - 2, -2, -2))


def _words(code: str) -> list[str]:
    return [code[i : i + 8] for i in range(0, len(code), 8)]


AARCH64 = Isa("aarch64", _FEATURES, _words, 4)


class BlockPrices:
    """Prices for one core (``mca_cpu`` is llvm-mca's ``-mcpu``), kept in an SQLite file.

    Several processes may use one file. A file that SQLite cannot read is put aside: it holds
    nothing that cannot be computed again.
    """

    def __init__(self, mca_cpu: str, path: Path, llvm: Llvm | None = None, *, isa: Isa = AARCH64):
        self._isa = isa
        self._llvm = llvm or require_llvm()
        self._cpu = mca_cpu
        self._path = path
        self._key = f"{_PRICING} {mca_cpu} llvm {self._llvm.version}"
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def identity(self) -> str:
        """Core, tool and version that the prices depend on."""
        return self._key

    def cycles(self, codes: Iterable[str]) -> dict[str, float]:
        """Cycles per execution of each block; a block that llvm-mca cannot price is left out.

        ``codes`` are blocks as ``Isa.split`` takes them. Raises ``DeviceError`` when
        llvm-mca itself fails.
        """
        wanted = sorted(set(codes))
        known = self._load(wanted)
        missing = [code for code in wanted if code not in known]
        if missing:
            fresh = self._price(missing)
            self._store(missing, fresh)
            known |= fresh
        return {code: value for code, value in known.items() if value > 0}

    def listing(self, code: str) -> list[str]:
        """A block's instructions in assembly; one that LLVM does not know as its digits."""
        known = self._disassemble([code])
        return [" ".join(known.get(w, f".inst 0x{w}").split()) for w in self._isa.split(code)]

    def bottleneck(self, code: str) -> str:
        """What keeps a block from being faster, by llvm-mca: the share of cycles in which results
        or execution units were waited for, and the unit; empty where it cannot tell."""
        assembly = self._disassemble([code])
        source = "\n".join(assembly[w] for w in self._isa.split(code) if w in assembly) + "\n"
        command = [*self._mca(), "-all-views=0", "-bottleneck-analysis"]
        return _bottleneck(_run(command, source)[0])

    # ---- the file ----

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=60)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS price "
            "(key TEXT, code TEXT, cycles REAL, PRIMARY KEY (key, code)) WITHOUT ROWID"
        )
        return connection

    def _load(self, codes: Sequence[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        try:
            with closing(self._connect()) as connection:
                for code in codes:
                    row = connection.execute(
                        "SELECT cycles FROM price WHERE key = ? AND code = ?", (self._key, code)
                    ).fetchone()
                    if row is not None and _plausible(code, row[0]):
                        found[code] = float(row[0])
        except sqlite3.OperationalError as error:
            raise DeviceError(f"the cache of block prices: {error}", where=self._path) from error
        except sqlite3.DatabaseError:
            self._put_aside()
        return found

    def _put_aside(self) -> None:
        """Move a corrupt file away, unless another process did so since and began a new one."""
        with FileLock(self._path.with_suffix(".lock")):
            try:
                with closing(self._connect()) as connection:
                    is_sound = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            except sqlite3.OperationalError as error:
                raise DeviceError(
                    f"the cache of block prices: {error}", where=self._path
                ) from error
            except sqlite3.DatabaseError:
                is_sound = False
            if not is_sound:
                self._path.replace(self._path.with_suffix(".corrupt"))

    def _store(self, codes: Sequence[str], prices: dict[str, float]) -> None:
        """Zero stands for a block that has no price, so that it is not asked for again."""
        rows = [(self._key, code, prices.get(code, 0.0)) for code in codes]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO price VALUES (?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            raise DeviceError(f"the cache of block prices: {error}", where=self._path) from error

    # ---- LLVM ----

    def _price(self, codes: Sequence[str]) -> dict[str, float]:
        assembly = self._disassemble(codes)
        source: list[str] = []
        for number, code in enumerate(codes):
            source.append(f"# LLVM-MCA-BEGIN r{number}")
            source += [assembly[word] for word in self._isa.split(code) if word in assembly]
            source.append(f"# LLVM-MCA-END r{number}")
        command = [*self._mca(), "-all-views=0", "-summary-view"]
        output, errors = _run(command, "\n".join(source) + "\n")
        prices: dict[str, float] = {}
        current: str | None = None
        for line in output.splitlines():
            if match := re.search(r"Code Region - r([0-9]+)$", line):
                current = codes[int(match[1])]
            elif current is not None and (match := re.match(r"Total Cycles:\s+([0-9]+)$", line)):
                prices[current] = int(match[1]) / _ITERATIONS
        if not prices:
            raise DeviceError(f"llvm-mca priced no block: {errors[:300]}", where=self._cpu)
        return prices

    def _mca(self) -> list[str]:
        command = [str(self._llvm.mca), f"-mtriple={self._isa.triple}", f"-mcpu={self._cpu}"]
        command += [f"-mattr={self._isa.features}", f"-iterations={_ITERATIONS}"]
        # without this a single atomic instruction makes the whole batch fail
        major = int(self._llvm.version.split(".")[0])
        command.append(f"-skip-unsupported-instructions={'any' if major < 20 else 'lack-sched'}")
        return command

    def _disassemble(self, codes: Sequence[str]) -> dict[str, str]:
        """Assembly of every distinct instruction that LLVM knows."""
        words = sorted({word for code in codes for word in self._isa.split(code)})
        lines = [self._isa.bytes_of(word) for word in words]
        command = [str(self._llvm.mc), "-disassemble", f"-triple={self._isa.triple}"]
        command += [f"-mattr={self._isa.features}"]
        output, errors = _run(command, "\n".join(lines) + "\n")
        unknown = {int(n) for n in re.findall(r"<stdin>:([0-9]+):[0-9]+: warning: invalid", errors)}
        known = [word for number, word in enumerate(words, 1) if number not in unknown]
        if unknown and known:
            # of a long instruction that it does not know llvm-mc may show the rest as a short one
            text = "\n".join(self._isa.bytes_of(word) for word in known) + "\n"
            output, _ = _run(command, text)
        found = [x.strip() for x in output.splitlines() if re.match(r"\s+[a-z]", x)]
        if len(found) != len(known):
            raise DeviceError(
                f"llvm-mc gave {len(found)} lines for {len(known)} instructions", where=self._cpu
            )
        return dict(zip(known, found, strict=True))


def _bottleneck(text: str) -> str:
    """What ``-bottleneck-analysis`` says: ``execution units 95% (A57UnitW), data 20%``."""
    found = []
    unit = re.findall(r"^\s+- (\w+)\s+\[ ([0-9.]+)% \]$", text, re.MULTILINE)
    units = sorted(((float(n), name) for name, n in unit), reverse=True)
    for label, word in (("Resource Pressure", "execution units"), ("Data Dependencies:", "data")):
        match = re.search(rf"{label}\s+\[ ([0-9.]+)% \]", text)
        if match and float(match[1]) >= 1:
            name = f" ({units[0][1]})" if word == "execution units" and units else ""
            found.append(f"{word} {float(match[1]):.0f}%{name}")
    return ", ".join(found)


def _plausible(code: str, cycles: object) -> bool:
    """No core of ours retires more than 8 or fewer than 1/200 instructions per cycle."""
    words = len(code) / 8
    return isinstance(cycles, float) and (cycles == 0 or words / 8 <= cycles <= words * 200)


def _run(command: list[str], text: str) -> tuple[str, str]:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{Path(command[0]).name} did not answer: {error}") from error
    if done.returncode < 0:
        # half an answer would be remembered as the whole one
        raise DeviceError(
            f"{Path(command[0]).name} was killed by signal {-done.returncode}",
            hint="free memory, then run the same command again",
        )
    return done.stdout, done.stderr
