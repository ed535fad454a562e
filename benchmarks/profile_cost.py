"""What profiling costs, and that a killed run repeats nothing.

    python benchmarks/profile_cost.py [--json FILE] [--case cifar_lite-int8 ...]

Each case is profiled for ``rpi4`` in an empty cache of its own (the prepared emulator is shared):
once undisturbed, for its CPU minutes with all children, and once killed with ``kill -9`` while
blocks are measured and started again. The second must run no block on the device that the journal
had, and end with the same table byte for byte, but for the date.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgeofa.jsonio import dumps
from edgeofa.paths import cache_dir

CASES = ("cifar_micro-int8", "cifar_lite-int8")
#: the marks of the acceptance, in CPU minutes
MARKS = {"cifar_lite-int8": 15.0, "cifar_micro-int8": 5.0}
#: where in the run it is killed, as a share of the blocks
KILL_AT = 0.4
#: what `edgeofa setup` prepared, in the cache
SHARED = ("native", "runtimes", "sysroots")
#: the journal's rows of blocks, without the two trivial networks
_BLOCKS = "blocks WHERE key NOT LIKE 'trivial-%'"

#: the device itself says what it runs: the journal cannot, a block has one place in it
_LOGGED = """
from edgeofa.devices.qemu_user import QemuUserDevice as Device
run = Device.run
def logged(self, jobs, **options):
    with open({log!r}, "a", encoding="utf-8") as file:
        file.writelines(job.path.stem + chr(10) for job in jobs)
    return run(self, jobs, **options)
Device.run = logged
"""


@dataclass(frozen=True)
class Result:
    case: str
    blocks: int
    subnets: int
    cpu_minutes: float
    wall_minutes: float
    finished_when_killed: int
    repeated_blocks: int
    same_bytes: bool
    passed: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", nargs="*", default=CASES)
    options = parser.parse_args()
    print(
        f"{'case':<18} {'blocks':>6} {'subnets':>7} {'CPU min':>8} {'wall min':>8} "
        f"{'killed at':>9} {'repeated':>8} {'same bytes':>10}"
    )
    results = []
    for case in options.case:
        r = run(case)
        results.append(r)
        print(
            f"{r.case:<18} {r.blocks:6} {r.subnets:7} {r.cpu_minutes:8.2f} {r.wall_minutes:8.2f} "
            f"{r.finished_when_killed:9} {r.repeated_blocks:8} "
            f"{'yes' if r.same_bytes else 'NO':>10}{'' if r.passed else '  MISSED'}",
            flush=True,
        )
    if options.json:
        options.json.write_text(dumps({"benchmark": "profile_cost", "results": results}) + "\n")
    return 0 if all(r.passed for r in results) else 1


def run(case: str) -> Result:
    with tempfile.TemporaryDirectory(prefix="edgeofa-cost-") as name:
        straight, broken = Path(name) / "straight", Path(name) / "broken"
        before, started = _children_cpu_s(), time.monotonic()
        _finish(_start(case, straight))
        wall_s = time.monotonic() - started
        cpu_s = _children_cpu_s() - before
        blocks = _count(straight, _BLOCKS)

        process = _start(case, broken)
        while _count(broken, _BLOCKS) < KILL_AT * blocks:
            if process.poll() is not None:
                raise SystemExit(f"{case}: the run ended before it could be killed")
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        finished = _finished(broken)
        log = Path(name) / "ran"
        _finish(_start(case, broken, log))
        repeated = len(finished & set(log.read_text(encoding="utf-8").split()))
        same = table_files(straight / "tables") == table_files(broken / "tables")
        return Result(
            case=case,
            blocks=blocks,
            subnets=_count(straight, "subnets"),
            cpu_minutes=cpu_s / 60,
            wall_minutes=wall_s / 60,
            finished_when_killed=len(finished),
            repeated_blocks=repeated,
            same_bytes=same,
            passed=same and repeated == 0 and cpu_s / 60 <= MARKS.get(case, float("inf")),
        )


def _start(case: str, folder: Path, log: Path | None = None) -> subprocess.Popen[bytes]:
    """The command as a user gives it, with a cache and tables of its own under ``folder``;
    the names of the artifacts that ran on the device are added to ``log``."""
    space, precision = case.split("-")
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for shared in SHARED:
        link = cache / shared
        if (cache_dir() / shared).exists() and not link.is_symlink():
            link.symlink_to((cache_dir() / shared).resolve())
    logged = "" if log is None else _LOGGED.format(log=str(log))
    command = [sys.executable, "-c", f"{logged}from edgeofa.cli.main import main; main()"]
    command += ["profile"]
    command += ["--target", "rpi4", "--space", space, "--precision", precision]
    command += ["--backend", "litert", "--out", str(folder / "tables")]
    environment = {**os.environ, "EDGEOFA_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait() != 0:
        raise SystemExit(f"edgeofa profile ended with {process.returncode}")


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _count(folder: Path, what: str) -> int:
    """Rows in the journal under ``folder``; 0 while there is none."""
    paths = list((folder / "cache" / "profiles").glob("*.sqlite"))
    if not paths:
        return 0
    try:
        with closing(sqlite3.connect(f"file:{paths[0]}?mode=ro", uri=True, timeout=10)) as journal:
            return int(journal.execute(f"SELECT count(*) FROM {what}").fetchone()[0])  # noqa: S608
    except sqlite3.OperationalError:  # its tables are not there yet
        return 0


def _finished(folder: Path) -> set[str]:
    """Keys of the blocks in the journal under ``folder``."""
    (path,) = (folder / "cache" / "profiles").glob("*.sqlite")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as journal:
        return {str(key) for (key,) in journal.execute(f"SELECT key FROM {_BLOCKS}")}  # noqa: S608


def table_files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder of tables, but for the line that says on which day it was made."""
    return {
        str(p.relative_to(folder)): re.sub(rb'(?m)^date = "[0-9-]{10}"\n', b"", p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
