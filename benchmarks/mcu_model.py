"""How far is the Cortex-M cycle model from real boards? Its terms, and the comparison again.

    python benchmarks/mcu_model.py [--json FILE] [--model FILE.tflite ...] [--cmsis-nn PATH]
        [--target NAME ...]

Without ``--model``, the two int8 models of MLPerf Tiny, which lie in mlperf_tiny in
EDGEOFA_TEST_DATA, or in shared/data beside the checkout. For each: what edgeofa's own firmware
executes on the emulated board, priced by every engine, and what fetching instructions could cost at
most, if no prefetcher hid any of it. The published latencies that the model was
judged on are CMSIS-NN's, so the comparison needs its sources: with ``--cmsis-nn`` (a checkout of
CMSIS-NN, or of CMSIS_5) the same networks are compiled to call it, checked bit for bit, and
compared with the published rows of "microTVM + CMSIS-NN" on the NUCLEO-L4R5ZI; more than 5% off
exits with 1. The commit of CMSIS-NN matters: real times of its versions differ by up to 20%.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cmsis_nn import cmsis_network
from mcu_speed import default_models

from edgeofa.backends.firmware.backend import FirmwareBackend
from edgeofa.backends.firmware.link import CompiledNetwork, link, read_network
from edgeofa.devices.base import Job
from edgeofa.devices.mcu_jobs import perform
from edgeofa.devices.native import build
from edgeofa.devices.qemu_board import PLUGIN
from edgeofa.devices.serial_port import open_port
from edgeofa.devices.serial_protocol import BoardLink
from edgeofa.emulation.cortex_m import CortexModel, cortex_model, cycle_cost, relative_error
from edgeofa.emulation.cortex_m_trace import Executed, parse_runs
from edgeofa.emulation.mca import BlockPrices, find_llvm
from edgeofa.emulation.qemu_system import emulated_board
from edgeofa.emulation.thumb import THUMB
from edgeofa.graph.importers.tflite import import_tflite
from edgeofa.graph.ir import Graph
from edgeofa.graph.ops import macs
from edgeofa.graph.reference import run
from edgeofa.jsonio import dumps
from edgeofa.paths import cache_dir, write_atomic
from edgeofa.targets import Target, load_target

TARGETS = ("nucleo-l4r5zi", "nrf5340", "nucleo-h7a3zi", "corstone-300")
_JUDGED = "nucleo-l4r5zi"
_WITHIN = 0.05
#: MACs -> published milliseconds of microTVM + CMSIS-NN, MLPerf Tiny 1.1, NUCLEO-L4R5ZI
PUBLISHED_MS = {12_501_632: 389.56, 2_656_768: 99.81}


@dataclass(frozen=True)
class Terms:
    """One network on one target: milliseconds by each engine, and the model's own terms."""

    model: str
    kernels: str
    target: str
    macs: int
    instructions: int
    by_engine_ms: dict[str, float]
    core_ms: float
    branches_ms: float
    flash_ms: float
    #: every missed line of code at a whole flash access; not in the model's time
    fetch_ms: float
    error: float
    published_ms: float | None
    #: relative, of the target's own engine against the published time
    off: float | None


@dataclass(frozen=True)
class Report:
    rows: tuple[Terms, ...]
    passed: bool


def execute(target: Target, network: CompiledNetwork, graph: Graph) -> Executed:
    """What one inference executes; the output is checked against the graph's reference."""
    if target.mcu is None:
        raise ValueError(f"{target.name} is no microcontroller")
    image = link(target, [network], emulated=True)
    rng = np.random.default_rng(0)
    inputs = rng.integers(-128, 128, graph.input_tensor.shape, dtype=np.int8)
    job = Job(Path(graph.name), "firmware", input=inputs, want_output=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "board"
        with (
            emulated_board(target.mcu, place, elf=image.elf, plugin=build(PLUGIN, "host")) as board,
            open_port(board.port, target.mcu.serial.baud) as port,
        ):
            link_ = BoardLink(port, board.port, reply_s=30.0)
            done = perform(link_, image, job, network, runs=1, limit_s=300.0)
        executed = parse_runs(board.trace)[0].whole
    expected = run(graph, inputs).ravel()
    if done.output is None or not np.array_equal(done.output, expected):
        differ = "no output" if done.output is None else int((done.output != expected).sum())
        raise ValueError(f"{graph.name}: outputs differ from the reference ({differ})")
    return executed


def engines(target: Target) -> dict[str, tuple[CortexModel, bool]]:
    """Ways to price, and whether the flash counts; the model's own one last."""
    if target.mcu is None:
        raise ValueError(f"{target.name} is no microcontroller")
    model = cortex_model(target.mcu.cycle_model)
    found = {
        "instructions": (dataclasses.replace(model, engine="count", taken_cycles=0.0), False),
        "classes": (dataclasses.replace(model, engine="classes"), False),
    }
    if find_llvm() is not None:
        found["llvm-mca, flash"] = (dataclasses.replace(model, engine="mca"), True)
    return {**found, f"{model.engine}, flash": (model, True)}


def terms(target: Target, name: str, kernels: str, graph: Graph, network: CompiledNetwork) -> Terms:
    if target.mcu is None or target.core is None:
        raise ValueError(f"{target.name} is no microcontroller")
    executed = execute(target, network, graph)
    timing, cycle_ms = target.mcu.flash_timing, 1e3 / target.core.clock_hz
    mca = None
    if find_llvm() is not None:
        prices = BlockPrices(target.mcu.cpu, cache_dir() / "prices" / "blocks.sqlite", isa=THUMB)
        mca = prices.cycles
    by_engine = {}
    for label, (model, flash) in engines(target).items():
        cost = cycle_cost(executed, model, timing if flash else None, mca)
        by_engine[label] = cost.cycles * cycle_ms
    own = cortex_model(target.mcu.cycle_model)
    cost = cycle_cost(executed, own, timing, mca)
    published = None
    if kernels == "CMSIS-NN" and target.name == _JUDGED:
        published = PUBLISHED_MS.get(macs(graph))
    return Terms(
        model=name,
        kernels=kernels,
        target=target.name,
        macs=macs(graph),
        instructions=cost.instructions,
        by_engine_ms=by_engine,
        core_ms=cost.core * cycle_ms,
        branches_ms=cost.branches * cycle_ms,
        flash_ms=cost.flash * cycle_ms,
        fetch_ms=0.0 if timing is None else cost.code_misses * timing.miss_cycles * cycle_ms,
        error=relative_error(cost, own, timing),
        published_ms=published,
        off=None if published is None else cost.cycles * cycle_ms / published - 1,
    )


def show(row: Terms) -> None:
    print(
        f"{row.model} on {row.target}, {row.kernels}: {row.macs / 1e6:.2f} M MAC, "
        f"{row.instructions / row.macs:.2f} instructions per MAC"
    )
    for label, ms in row.by_engine_ms.items():
        print(f"  {ms:9.2f} ms  {label}")
    print(
        f"             of which branches {row.branches_ms:.2f}, flash {row.flash_ms:.2f}; "
        f"±{row.error:.0%}"
    )
    if row.fetch_ms:
        whole = row.core_ms + row.branches_ms + row.flash_ms
        print(f"             fetching code: at most {row.fetch_ms / whole:.1%} more")
    if row.published_ms is not None and row.off is not None:
        print(f"  {row.published_ms:9.2f} ms  published, the model is {row.off:+.1%} off")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, nargs="*", default=None)
    parser.add_argument("--cmsis-nn", type=Path, default=None)
    parser.add_argument("--target", nargs="*", default=TARGETS)
    options: Any = parser.parse_args(arguments)
    rows: list[Terms] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.model or default_models():
            graph = import_tflite(path)
            artifact = FirmwareBackend().compile(graph, Path(folder) / f"{path.stem}.zip")
            networks = {"edgeofa": read_network(artifact.path)}
            if options.cmsis_nn is not None:
                networks["CMSIS-NN"] = cmsis_network(graph, options.cmsis_nn)
            for kernels, network in networks.items():
                for name in options.target:
                    rows.append(terms(load_target(name), path.stem, kernels, graph, network))
                    show(rows[-1])
    judged = [row.off for row in rows if row.off is not None]
    if not judged:
        print("nothing to compare with published latencies: --cmsis-nn PATH")
    report = Report(tuple(rows), all(abs(off) <= _WITHIN for off in judged))
    if options.json:
        write_atomic(options.json, dumps(report) + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
