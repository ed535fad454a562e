"""How well does the latency model of the Cortex-A72 hold, and do its counts repeat to the bit?

    python benchmarks/a72_model.py [--json FILE] [--data CSV]

Runs FBNet's blocks through LiteRT's own kernels in the emulator, twice and in another order;
fits the model's two constants to the measurements of a real Raspberry Pi 4 in CSV (by default
rpi4/fbnet_blocks.csv in EDGEOFA_TEST_DATA, or in shared/data beside the checkout), and prints the
errors on layers that the fit had not seen, with those of simpler models for comparison.

Exits with 1 when the errors or the repetition miss what is required, or when the constants that
edgeofa ships are not those of this fit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeofa.backends.litert import LiteRtBackend
from edgeofa.devices.base import Job
from edgeofa.devices.qemu_user import Profile, QemuUserDevice
from edgeofa.emulation.calibrate import Calibration, Sample, block_graph, calibrate, read_blocks
from edgeofa.emulation.model import core_model
from edgeofa.errors import DeviceError, EdgeofaError
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.targets import load_target

MAPE_LIMIT = 0.09
SPEARMAN_LIMIT = 0.985
_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@dataclass(frozen=True)
class Report:
    """What the JSON file holds."""

    device: dict[str, str]
    repeats_to_the_bit: bool
    shipped_is_this_fit: bool
    calibration: Calibration
    mape: float
    spearman: float
    passed: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    root = Path(os.environ.get("EDGEOFA_TEST_DATA", _DATA))
    parser.add_argument("--data", type=Path, default=root / "rpi4" / "fbnet_blocks.csv")
    options = parser.parse_args()
    if not options.data.is_file():
        print(
            f"no table of FBNet blocks at {options.data}: it is HW-NAS-Bench's for the Raspberry "
            "Pi 4 (through HELP); name it with --data CSV",
            file=sys.stderr,
        )
        return 2
    try:
        report = run(options.data)
    except EdgeofaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    _print(report)
    if options.json:
        write_atomic(options.json, dumps(report))
    return 0 if report.passed else 1


def run(data: Path) -> Report:
    """Emulate, fit and judge."""
    target = load_target("rpi4")
    if target.core is None or target.emulation is None:
        raise DeviceError("the target cannot be emulated", where="target rpi4")
    blocks = read_blocks(data)
    device = QemuUserDevice(target, kernels="builtin")
    with tempfile.TemporaryDirectory() as folder:
        backend, jobs = LiteRtBackend(), []
        for number, block in enumerate(blocks):
            path = Path(folder) / f"{number}.tflite"
            backend.compile(block_graph(block), path)
            jobs.append(Job(path, backend.name))
        first = _profiles(device, jobs)
        second = _profiles(device, jobs[::-1])[::-1]
    samples = [
        Sample(block, profile.region, profile.operators)
        for block, profile in zip(blocks, first, strict=True)
    ]
    prices = device.prices(b.code for s in samples for b in s.region.blocks)
    shipped = core_model(target.emulation.model)
    found = calibrate(shipped, target.core.clock_hz, samples, prices)
    best = found.scores[-1]
    repeats = all(a.region == b.region for a, b in zip(first, second, strict=True))
    good = best.mape <= MAPE_LIMIT and best.spearman >= SPEARMAN_LIMIT
    same = found.model == shipped
    return Report(
        device=device.identity(),
        repeats_to_the_bit=repeats,
        shipped_is_this_fit=same,
        calibration=found,
        mape=best.mape,
        spearman=best.spearman,
        passed=good and repeats and same,
    )


def _profiles(device: QemuUserDevice, jobs: list[Job]) -> list[Profile]:
    profiles = []
    for job, profile in zip(jobs, device.profile(jobs), strict=True):
        if isinstance(profile, str):
            raise DeviceError(profile, where=job.path)
        profiles.append(profile)
    return profiles


def _print(report: Report) -> None:
    found = report.calibration
    print(f"{len(found.blocks)} FBNet blocks on a Raspberry Pi 4, one thread, LiteRT's own kernels")
    print(f"{'model':<30}{'fitted':>7}{'MAPE':>9}{'Spearman':>10}{'95% below':>11}")
    for s in found.scores:
        values = f"{s.mape:>9.1%}{s.spearman:>10.3f}{s.q95:>11.1%}"
        print(f"{s.name:<30}{s.fitted or '-':>7}{values}")
    print("fitted models: each layer predicted by a fit to the other layers")
    print(f"pipeline {found.model.pipeline}, operator {found.model.operator_ms} ms", end="; ")
    print("as shipped" if report.shipped_is_this_fit else "NOT as shipped")
    print(f"a second run in another order: {'the same' if report.repeats_to_the_bit else 'OTHER'}")
    print("passed" if report.passed else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
