"""Does ``edgeofa test`` raise an alarm when it must, and only then?

    python benchmarks/regression_gate.py [--json FILE] [--quick] [--target host rpi4]

A trained subnet of cifar_micro is deployed to the emulated rpi4 and placed on this machine too;
each gets a baseline. Then, interleaved so that a change of the machine's load meets all alike:

- A/A runs: the same deployment tested again and again. None may be a regression; ``unstable`` is no
  alarm but is counted, with the load of the machine;
- slow-downs of at least 5% (rpi4) and 15% (host) in one block after the other, by idle operators
  in the artifact itself. Each must be a regression whose first block is the slowed one. A test that
  ends ``unstable`` is repeated, as its message asks; how often is counted;
- faults in the artifact itself (see artifact_faults.py). Each must be a regression, and the layer
  that is named the spoilt one. The record's digest is that of the faulty file, as if the compiler
  had written it: or else the file would be refused at once.

Exits with 1 when a requirement is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import artifact_faults as faults
import numpy as np

from edgeofa.deploy import Request, deploy
from edgeofa.deployment import Budget, load_deployment, save_deployment
from edgeofa.devices.base import Device, Failure, Job
from edgeofa.devices.registry import device_for
from edgeofa.errors import DeviceError
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.regression.accept import accept
from edgeofa.regression.blocks import segments
from edgeofa.regression.cuts import open_cuts
from edgeofa.regression.deployed import Deployed, open_deployment
from edgeofa.regression.record import DeploymentTest, Layer
from edgeofa.regression.suite import Plan, test_deployment
from edgeofa.report.progress import Steps
from edgeofa.targets import Target, load_target

#: the slow-down that must be caught
SLOWER = {"rpi4": 0.05, "host": 0.15}
#: an ``unstable`` test is repeated so many times
ATTEMPTS = 5


@dataclass(frozen=True)
class AARuns:
    """Alarms are runs with any failed check; ``deviation`` is the largest of their latencies from
    the baseline's; ``load`` the one-minute load of this machine, smallest and largest."""

    runs: int
    alarms: tuple[str, ...]
    unstable: int
    deviation: float
    load: tuple[float, float]
    seconds_each: float


@dataclass(frozen=True)
class SlowDown:
    """``injected`` is the slow-down as measured when it was made; ``named`` the blamed block."""

    block: str
    injected: float
    caught: bool
    found: float
    named: str
    attempts: int

    @property
    def failure(self) -> str:
        if not self.caught:
            return f"a slow-down of {100 * self.injected:.1f}% in {self.block} was not caught"
        return "" if self.named == self.block else f"{self.named} was blamed for {self.block}"


@dataclass(frozen=True)
class FaultCase:
    """``by_outputs``: the layer that running the network named; ``by_artifact``: reading it."""

    fault: str
    layer: str
    caught: bool
    by_outputs: str
    by_artifact: str
    summary: str

    @property
    def failure(self) -> str:
        if not self.caught:
            return f"{self.fault} in {self.layer} was not caught"
        named = {self.by_outputs, self.by_artifact}
        return "" if self.layer in named else f"{self.fault} in {self.layer}: named {named}"


@dataclass(frozen=True)
class Gate:
    """One target."""

    target: str
    device: str
    latency_ms: float
    gate: float
    aa: AARuns
    slow_downs: tuple[SlowDown, ...]
    faults: tuple[FaultCase, ...]
    whole_test_s: float

    @property
    def failures(self) -> list[str]:
        found = [f"A/A alarm: {alarm}" for alarm in self.aa.alarms]
        found += [x.failure for x in (*self.slow_downs, *self.faults) if x.failure]
        if self.target == "rpi4" and self.whole_test_s >= 60:
            found.append(f"a test takes {self.whole_test_s:.0f} s")
        return [f"{self.target}: {f}" for f in found]


@dataclass(frozen=True)
class Bench:
    """A target with its deployment, ready to be tested."""

    target: Target
    device: Device
    deployed: Deployed
    plan: Plan

    def test(self, deployed: Deployed | None = None) -> DeploymentTest:
        return test_deployment(self.target, self.device, deployed or self.deployed, self.plan)


def make_deployment(folder: Path) -> Path:
    """A trained subnet on the emulated board."""
    request = Request(
        target="rpi4",
        budget=Budget(latency_ms=2.0),
        space="cifar_micro",
        precision="int8",
        backend="litert",
        out=folder / "rpi4" / "micro",
    )
    return deploy(request, Steps())[1]


def place_on(target: Target, device: Device, source: Path, folder: Path) -> Path:
    """The same artifact as a deployment to another target."""
    shutil.copytree(source, folder)
    record = load_deployment(folder / "deployment.json")
    moved = record.model_copy(
        update={
            "target": target.name,
            "device": device.name,
            "device_identity": dict(device.identity()),
            "evidence": device.evidence,
        }
    )
    save_deployment(moved, folder / "deployment.json")
    return folder


def with_artifact(deployed: Deployed, content: bytes, folder: Path) -> Deployed:
    """The deployment with another artifact, recorded as if the compiler had written it.

    The folder keeps its name, by which baselines are found."""
    place = folder / deployed.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(deployed.folder, place)
    (place / deployed.artifact.name).write_bytes(content)
    artifact = deployed.record.artifact.model_copy(
        update={"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    )
    record = deployed.record.model_copy(update={"artifact": artifact})
    save_deployment(record, place / "deployment.json")
    return open_deployment(place)


def latency_ms(device: Device, contents: list[bytes], folder: Path) -> list[float]:
    """Latencies of several artifacts, interleaved where there is a clock."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"trial-{number}.tflite")
        paths[-1].write_bytes(content)
    rounds = 9 if device.evidence == "measured" else 1
    jobs = [Job(p, "litert", 3, 5, 10.0) for _ in range(rounds) for p in paths]
    medians: list[list[float]] = [[] for _ in paths]
    for number, outcome in enumerate(device.run(jobs)):
        if isinstance(outcome, Failure):
            raise DeviceError(outcome.reason, where=device.name)
        medians[number % len(paths)].append(float(np.median(outcome.samples_ns)) / 1e6)
    return [float(np.median(m)) for m in medians]


def slow_block(bench: Bench, layer: str, share: float, folder: Path) -> tuple[bytes, float]:
    """The artifact with just enough idle operators behind a layer, and its measured slow-down."""
    path = bench.deployed.artifact
    trial = 8 if bench.device.evidence == "measured" else 1
    plain, once = latency_ms(
        bench.device, [path.read_bytes(), faults.slowed(path, layer, trial)], folder
    )
    copies = max(1, math.ceil(share * plain / max((once - plain) / trial, 1e-6)))
    while True:
        content = faults.slowed(path, layer, copies)
        plain, slow = latency_ms(bench.device, [path.read_bytes(), content], folder)
        if slow / plain - 1 >= share:
            return content, slow / plain - 1
        copies += max(1, copies // 10)


def block_layers(deployed: Deployed) -> list[tuple[str, str]]:
    """Each block's name with its first layer, which is read inside the block.

    A block of one layer is left out: what stands behind it belongs to the next one."""
    assert deployed.material is not None
    graph = deployed.material.graph
    cuts = open_cuts(deployed.artifact, "litert", graph)
    found = segments(graph, cuts, [b.block for b in deployed.record.blocks])
    return [(s.name, graph.ops[s.first].name) for s in found if s.first < s.last]


def run_slow_down(bench: Bench, block: str, layer: str, share: float, folder: Path) -> SlowDown:
    content, injected = slow_block(bench, layer, share, folder)
    slower = with_artifact(bench.deployed, content, folder)
    attempts = 0
    while True:
        attempts += 1
        (check,) = [c for c in bench.test(slower).checks if c.name == "latency"]
        if check.status != "unstable" or attempts == ATTEMPTS:
            break
    found = (check.value or 0) / (check.baseline or 1) - 1
    named = check.blocks[0].block if check.blocks else ""
    return SlowDown(block, injected, check.status == "failed", found, named, attempts)


def run_fault(bench: Bench, fault: Any, rng: random.Random, folder: Path) -> FaultCase:
    spoilt = fault(bench.deployed.artifact, rng)
    test = bench.test(with_artifact(bench.deployed, spoilt.content, folder))
    layers: dict[str, Layer | None] = {c.name: c.layer for c in test.checks if c.status == "failed"}
    wrong = {name for name in layers if name in ("outputs", "artifact")}
    outputs, artifact = layers.get("outputs"), layers.get("artifact")
    (check,) = [c for c in test.checks if c.name == "outputs"]
    return FaultCase(
        fault=spoilt.fault,
        layer=spoilt.layer,
        caught=bool(wrong),
        by_outputs=outputs.layer if outputs else "",
        by_artifact=artifact.layer if artifact else "",
        summary=check.summary,
    )


def run_target(bench: Bench, aa_runs: int, cases: int, folder: Path, seed: int) -> Gate:
    """Baseline, then everything interleaved."""
    name = bench.target.name
    path, baseline = accept(bench.target, bench.device, bench.deployed, bench.plan)
    print(f"{name}: {baseline.latency.ms:.4f} ms, gate {100 * baseline.gate.relative:.1f}%, {path}")
    rng = random.Random(f"{seed}:{name}")
    blocks = block_layers(bench.deployed)
    others: list[Any] = [("slow", b) for b in blocks * (-(-2 * cases // len(blocks)))][: 2 * cases]
    others += [("fault", f) for f in faults.FAULTS for _ in range(cases)]
    rng.shuffle(others)
    alarms, unstable, deviation, loads, seconds = [], 0, 0.0, [os.getloadavg()[0]], []
    slow_downs, found = [], []
    for number in range(max(aa_runs, len(others))):
        if number < aa_runs:
            begin = time.monotonic()
            test = bench.test()
            seconds.append(time.monotonic() - begin)
            bad = [c for c in test.checks if c.status in ("failed", "error")]
            alarms += [f"{c.name}: {c.summary}" for c in bad]
            print(f"{name}: A/A run {number + 1}: {test.status}", *alarms[len(alarms) - len(bad) :])
            unstable += test.status == "unstable"
            (check,) = [c for c in test.checks if c.name == "latency"]
            deviation = max(deviation, abs((check.value or 0) / baseline.latency.ms - 1))
            loads.append(os.getloadavg()[0])
        if number < len(others):
            kind, what = others[number]
            if kind == "slow":
                slow_downs.append(run_slow_down(bench, *what, SLOWER[name], folder))
                x = slow_downs[-1]
                print(
                    f"{name}: {100 * x.injected:.1f}% in {x.block}: "
                    f"{'caught' if x.caught else 'MISSED'} as {100 * x.found:+.1f}%, "
                    f"blamed {x.named}, {x.attempts} attempt(s)"
                )
            else:
                found.append(run_fault(bench, what, rng, folder))
                f = found[-1]
                print(
                    f"{name}: {f.fault} in {f.layer}: {'caught' if f.caught else 'MISSED'}, "
                    f"outputs name {f.by_outputs or 'nothing'}, the file {f.by_artifact}"
                )
    begin = time.monotonic()
    test_deployment(bench.target, bench.device, bench.deployed, Plan(bench.plan.baselines))
    return Gate(
        target=name,
        device=bench.device.name,
        latency_ms=baseline.latency.ms,
        gate=baseline.gate.relative,
        aa=AARuns(
            aa_runs,
            tuple(alarms),
            unstable,
            deviation,
            (min(loads), max(loads)),
            float(np.median(seconds)),
        ),
        slow_downs=tuple(slow_downs),
        faults=tuple(found),
        whole_test_s=time.monotonic() - begin,
    )


def show(gate: Gate) -> None:
    """One target as a few lines."""
    aa = gate.aa
    print(
        f"{gate.target}: {aa.runs} A/A runs, {len(aa.alarms)} alarms, {aa.unstable} unstable, "
        f"largest deviation {100 * aa.deviation:.2f}%, gate {100 * gate.gate:.1f}%, "
        f"load {aa.load[0]:.1f} to {aa.load[1]:.1f}"
    )
    caught = sum(s.caught for s in gate.slow_downs)
    right = sum(not s.failure for s in gate.slow_downs)
    attempts = sum(s.attempts for s in gate.slow_downs)
    print(
        f"{gate.target}: {caught} of {len(gate.slow_downs)} slow-downs caught, {right} with the "
        f"right block, {attempts} tests"
    )
    for fault in dict.fromkeys(f.fault for f in gate.faults):
        cases = [f for f in gate.faults if f.fault == fault]
        print(
            f"{gate.target}: {fault}: {sum(f.caught for f in cases)} of {len(cases)} caught; the "
            f"layer named by the outputs {sum(f.by_outputs == f.layer for f in cases)} times, by "
            f"the file {sum(f.by_artifact == f.layer for f in cases)} times"
        )
    print(f"{gate.target}: a whole test takes {gate.whole_test_s:.1f} s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="5 A/A runs, one fault of a kind")
    parser.add_argument("--target", nargs="*", default=["host", "rpi4"], choices=list(SLOWER))
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    aa_runs, cases = (5, 1) if options.quick else (50, 5)
    gates = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = make_deployment(folder)
        for name in options.target:
            target = load_target(name)
            device = device_for(target)
            where = (
                source
                if name == "rpi4"
                else place_on(target, device, source, folder / name / "micro")
            )
            # on the emulated board a few runs in a row: their number is not what is shown here
            plan = Plan(folder / "baselines", runs=100 if name == "host" else 8)
            bench = Bench(target, device, open_deployment(where), plan)
            work = folder / f"work-{name}"
            work.mkdir()
            gates.append(run_target(bench, aa_runs, cases, work, options.seed))
            show(gates[-1])
    failures = [f for gate in gates for f in gate.failures]
    for failure in failures:
        print(f"MISSED: {failure}")
    print("passed" if not failures else "MISSED")
    if options.json:
        write_atomic(options.json, dumps({"gates": gates, "passed": not failures}) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
