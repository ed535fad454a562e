"""Which compiler is the fastest, and what it costs: LiteRT, onnxruntime, TVM untuned and tuned.

    python benchmarks/backends.py [--json FILE] [--target rpi4 host] [--space NAME ...] [--rounds N]

Three reference networks (small, middle, large) of each space, float32 and int8, random weights, one
thread. On ``host`` they are measured: in rounds, every variant once in each, in another order every
time; a ratio is the median over the rounds of the quotient within a round. On ``rpi4`` they are
modelled by one model. "tuned" uses the records of tuning that there are for the machine (shipped or
your own), and says for how many of a network's kernels there is one.

For ``rpi4`` also block by block, from the published latency tables: TVM's time by LiteRT's.

TVM's outputs are compared with the graph's executor on the device.

Required: float32 outputs within 1e-4 of the largest, int8 ones exact; a network compiled in at most
20 s, to at most 3 times its weights; on host tuned TVM at least as fast as onnxruntime on the
geometric mean, untuned within 1.5 times, int8 faster than float32; on rpi4 TVM at least as fast as
LiteRT on the geometric mean of the blocks. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from edgeofa.backends.base import Artifact, Backend
from edgeofa.backends.registry import get_backend
from edgeofa.backends.tvm.backend import TvmBackend
from edgeofa.backends.tvm.program import default_config
from edgeofa.devices.base import Device, Failure, Job, Measurement
from edgeofa.devices.registry import device_for
from edgeofa.errors import DeviceError, MissingMaterial
from edgeofa.graph.ir import Array, DType, Graph
from edgeofa.graph.memory import weight_bytes
from edgeofa.graph.ops import macs
from edgeofa.graph.reference import quantization, quantize_array, run
from edgeofa.jsonio import dumps
from edgeofa.paths import write_atomic
from edgeofa.pieces import whole_subnet
from edgeofa.spaces import Space, load_space
from edgeofa.tables.store import find_table
from edgeofa.targets import Target, load_target
from edgeofa.tuning.networks import reference_subnets
from edgeofa.tuning.records import all_records

SPACES = ("cifar_lite", "cifar_micro")
PRECISIONS: tuple[DType, ...] = ("float32", "int8")
VARIANTS = ("litert", "onnxruntime", "tvm untuned", "tvm tuned")
UNTUNED_LIMIT = 1.5
ERROR_LIMIT: dict[DType, float] = {"float32": 1e-4, "int8": 0.0}
BUILD_LIMIT_S = 20.0
FILE_LIMIT = 3.0
#: blocks that are named where TVM is the slower one
WORST = 12


@dataclass(frozen=True)
class Row:
    """One network on one target. ``ms`` and ``build_s`` by variant, in the order of VARIANTS;
    ``ratios`` are the tuned TVM's time by each variant's. ``output_error``: of the tuned TVM's
    library, the largest difference by the largest output; ``file_by_weights``: its size by the
    weights' as TFLite stores them."""

    target: str
    evidence: str
    space: str
    size: str
    precision: DType
    subnet: str
    macs: int
    ms: dict[str, float]
    ratios: dict[str, float]
    untuned_by_onnxruntime: float
    file_by_weights: float
    output_error: float
    build_s: dict[str, float]
    kernels: int
    tuned_kernels: int
    trials: int


@dataclass(frozen=True)
class Blocks:
    """TVM's rows of a published table by LiteRT's; ``slower``: the worst, (block, ratio);
    ``failed``: blocks that LiteRT runs and TVM does not. The ratios are None without a common
    block."""

    target: str
    space: str
    precision: DType
    blocks: int
    failed: tuple[str, ...]
    geomean: float | None
    share_slower: float | None
    slower: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Report:
    rows: tuple[Row, ...]
    blocks: tuple[Blocks, ...]
    missing_tables: tuple[str, ...]
    failures: tuple[str, ...]


def geomean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def compilers(target: Target) -> dict[str, Backend]:
    machine = TvmBackend().for_target(target).machine
    untuned = TvmBackend(machine, lambda kernel: default_config(kernel, machine))
    found = (get_backend("litert"), get_backend("onnxruntime"), untuned, TvmBackend(machine))
    return dict(zip(VARIANTS, found, strict=True))


def median_ns(outcome: Measurement | Failure, name: str) -> float:
    if isinstance(outcome, Failure):
        raise DeviceError(outcome.reason, where=name)
    return float(np.median(outcome.samples_ns))


def times(
    device: Device, artifacts: dict[str, Artifact], rounds: int, seed: int
) -> dict[str, list[float]]:
    """Nanoseconds of every variant, round by round; one round where nothing is measured."""
    order = random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in artifacts}
    for _ in range(rounds if device.evidence == "measured" else 1):
        names = list(artifacts)
        order.shuffle(names)
        jobs = [
            Job(artifacts[n].path, artifacts[n].backend, warmups=2, runs=5, min_run_ms=40.0)
            if device.evidence == "measured"
            else Job(artifacts[n].path, artifacts[n].backend, warmups=2)
            for n in names
        ]
        for name, outcome in zip(names, device.run(jobs), strict=True):
            found[name].append(median_ns(outcome, name))
    return found


def output_error(device: Device, artifact: Artifact, graph: Graph, seed: int) -> float:
    """Largest difference of one output from the executor's, by the largest output."""
    image = np.random.default_rng(seed).standard_normal(graph.input_tensor.shape)
    x: Array = image.astype(np.float32)
    if graph.precision == "int8":
        x = quantize_array(x, quantization(graph, graph.input))
    job = Job(artifact.path, artifact.backend, input=x, want_output=True, timed=False)
    (outcome,) = device.run([job])
    if isinstance(outcome, Failure) or outcome.output is None:
        raise DeviceError(getattr(outcome, "reason", "no output"), where=graph.name)
    expected = run(graph, x).astype(np.float64)
    difference = np.abs(outcome.output.reshape(expected.shape).astype(np.float64) - expected)
    return float(difference.max() / max(np.abs(expected).max(), 1e-30))


def compare(
    target: Target, device: Device, space: Space, size: str, graph: Graph, rounds: int, seed: int
) -> Row:
    artifacts: dict[str, Artifact] = {}
    build_s: dict[str, float] = {}
    variants = compilers(target)
    with tempfile.TemporaryDirectory() as folder:
        for name, compiler in variants.items():
            start = time.perf_counter()
            path = Path(folder) / f"{name.replace(' ', '-')}{compiler.suffix}"
            artifacts[name] = compiler.compile(graph, path)
            build_s[name] = time.perf_counter() - start
        with device.exclusive():
            found = times(device, artifacts, rounds, seed)
        error = output_error(device, artifacts["tvm tuned"], graph, seed)

    def ratio(of: str, by: str) -> float:
        return median(a / b for a, b in zip(found[of], found[by], strict=True))

    tuned = variants["tvm tuned"]
    assert isinstance(tuned, TvmBackend)
    records = all_records(tuned.machine.key)
    kernels = {k.plain.key for k in tuned.kernels(graph) if k.macs}
    known = [records[key] for key in kernels if key in records]
    return Row(
        target=target.name,
        evidence=device.evidence,
        space=space.name,
        size=size,
        precision=graph.precision,
        subnet=str(reference_subnets(space)[size]),
        macs=macs(graph),
        ms={name: median(ns) / 1e6 for name, ns in found.items()},
        ratios={name: ratio("tvm tuned", name) for name in VARIANTS[:-1]},
        untuned_by_onnxruntime=ratio("tvm untuned", "onnxruntime"),
        file_by_weights=artifacts["tvm tuned"].file_bytes / weight_bytes(graph),
        output_error=error,
        build_s=build_s,
        kernels=len(kernels),
        tuned_kernels=len(known),
        trials=sum(r.trials for r in known),
    )


def block_ratios(target: Target, space: Space, precision: DType) -> Blocks:
    ours = find_table(target, space.name, "tvm", precision, source=space.source)
    theirs = find_table(target, space.name, "litert", precision, source=space.source)
    ratios: dict[str, float] = {}
    failed = []
    for key, row in theirs.rows.items():
        own = ours.rows.get(key)
        if row.status == "failed":
            continue
        if own is None or own.status == "failed":
            failed.append(key)
        else:
            ratios[key] = own.latency_ms / row.latency_ms
    worst = sorted(ratios.items(), key=lambda pair: -pair[1])
    return Blocks(
        target=target.name,
        space=space.name,
        precision=precision,
        blocks=len(ratios),
        failed=tuple(failed),
        geomean=geomean(list(ratios.values())) if ratios else None,
        share_slower=sum(r > 1 for r in ratios.values()) / len(ratios) if ratios else None,
        slower=tuple(pair for pair in worst if pair[1] > 1)[:WORST],
    )


def failures(rows: Sequence[Row], blocks: Sequence[Blocks], missing: Sequence[str]) -> list[str]:
    """Which requirements are missed."""
    found = [f"no table: {text}" for text in missing]
    for row in rows:
        name = f"{row.target} {row.space} {row.size} {row.precision}"
        if not row.output_error <= ERROR_LIMIT[row.precision]:
            found.append(f"{name}: outputs are off by {row.output_error:.1e} of the largest")
        if row.file_by_weights > FILE_LIMIT:
            found.append(f"{name}: the library is {row.file_by_weights:.1f} times the weights")
        if row.build_s["tvm untuned"] > BUILD_LIMIT_S:
            found.append(f"{name}: compiled in {row.build_s['tvm untuned']:.0f} s")
    host = [row for row in rows if row.target == "host"]
    if host:
        tuned = geomean([row.ratios["onnxruntime"] for row in host])
        untuned = geomean([row.untuned_by_onnxruntime for row in host])
        if tuned > 1:
            found.append(f"host: tuned TVM takes {tuned:.2f} of onnxruntime's time")
        if untuned > UNTUNED_LIMIT:
            found.append(f"host: untuned TVM takes {untuned:.2f} of onnxruntime's time")
        gain = int8_by_float32(host)
        if gain is not None and gain >= 1:
            found.append(f"host: int8 takes {gain:.2f} of float32's time")
    for b in blocks:
        name = f"{b.target} {b.space} {b.precision}"
        if b.failed:
            found.append(f"{name}: TVM fails {len(b.failed)} blocks, such as {b.failed[0]}")
        if b.geomean is None:
            found.append(f"{name}: no block is in both tables")
        elif b.geomean > 1:
            found.append(
                f"{name}: {b.geomean:.3f} of LiteRT's time on the geometric mean of the blocks"
            )
    return found


def int8_by_float32(rows: Sequence[Row]) -> float | None:
    """Tuned TVM's int8 time by its float32 time, geometric mean over the networks."""
    by = {(r.space, r.size, r.precision): r.ms["tvm tuned"] for r in rows}
    ratios = [
        ms / by[space, size, "float32"]
        for (space, size, precision), ms in by.items()
        if precision == "int8" and (space, size, "float32") in by
    ]
    return geomean(ratios) if ratios else None


def say(row: Row) -> str:
    ms = " ".join(f"{row.ms[name]:11.3f}" for name in VARIANTS)
    ratios = " ".join(f"{row.ratios[name]:11.3f}" for name in VARIANTS[:-1])
    builds = "/".join(f"{row.build_s[name]:.1f}" for name in VARIANTS)
    return (
        f"{row.target:<5} {row.space:<11} {row.size:<6} {row.precision:<7} {row.macs / 1e6:7.1f} |"
        f" {ms} | {ratios} | {builds:>17} | {row.file_by_weights:4.2f} | "
        f"{row.tuned_kernels}/{row.kernels} ({row.trials})"
    )


def summary(rows: Sequence[Row]) -> list[str]:
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        for precision in PRECISIONS:
            some = [row for row in own if row.precision == precision]
            if some:
                parts = ", ".join(
                    f"{geomean([r.ratios[name] for r in some]):.3f} of {name}'s"
                    for name in VARIANTS[:-1]
                )
                lines.append(f"{target} {precision}: tuned TVM's time is {parts} (geometric mean)")
        gain = int8_by_float32(own)
        if gain is not None:
            lines.append(f"{target}: tuned TVM's int8 takes {gain:.3f} of its float32's time")
    return lines


def is_part(options: argparse.Namespace) -> bool:
    """Whether some of what has requirements was left out."""
    wanted = (("host", "rpi4"), SPACES, PRECISIONS)
    given = (options.target, options.space, options.precision)
    return any(set(w) - set(g) for w, g in zip(wanted, given, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--target", nargs="+", default=["host", "rpi4"])
    parser.add_argument("--space", nargs="+", default=list(SPACES))
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[Row] = []
    blocks: list[Blocks] = []
    missing: list[str] = []
    columns = " ".join(f"{name:>11}" for name in VARIANTS)
    print(f"{'':33}{'M MAC':>8} | {columns} | tuned TVM by the others'{'':12}| built in s")
    for name in options.target:
        target = load_target(name)
        device = device_for(target)
        for space in map(load_space, options.space):
            for size, subnet in reference_subnets(space).items():
                for precision in options.precision:
                    graph = whole_subnet(space, subnet).graph(precision, options.seed)
                    row = compare(target, device, space, size, graph, options.rounds, options.seed)
                    rows.append(row)
                    print(say(row), flush=True)
            if device.evidence == "modelled":
                for precision in options.precision:
                    try:
                        blocks.append(block_ratios(target, space, precision))
                    except MissingMaterial as error:
                        missing.append(f"{name} {space.name} {precision}: {error.what}")
    print("\n".join(summary(rows)))
    for b in blocks:
        if b.geomean is None or b.share_slower is None:
            continue
        print(
            f"{b.target} {b.space} {b.precision}: {b.blocks} blocks, TVM's time is "
            f"{b.geomean:.3f} of LiteRT's (geometric mean), slower in {100 * b.share_slower:.0f}%"
        )
        for key, ratio in b.slower:
            print(f"  {ratio:.3f}  {key}")
    found = failures(rows, blocks, missing)
    left_out = " of those that were looked at" if is_part(options) else ""
    print("missed: " + "; ".join(found) if found else f"every requirement{left_out} is met")
    if options.json:
        report = Report(tuple(rows), tuple(blocks), tuple(missing), tuple(found))
        write_atomic(options.json, dumps(report) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
